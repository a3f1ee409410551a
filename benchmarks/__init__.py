"""Measurements of dispy-nb beside what one would use instead; `make bench` runs them."""
