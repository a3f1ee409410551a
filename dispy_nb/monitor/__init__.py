"""What has been seen of clusters over time, for whatever shows it: pure, and of bounded size."""
