"""Clusters in notebooks: what a cell shows of them while jobs run, and what is saved."""
