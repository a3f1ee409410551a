"""What runs in template and job processes."""
