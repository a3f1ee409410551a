"""Live charts of clusters and of provisional results: Bokeh, and a picture that is kept."""
