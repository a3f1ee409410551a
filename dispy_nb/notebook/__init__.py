"""Displays in Jupyter; the only part that imports Jupyter packages."""
