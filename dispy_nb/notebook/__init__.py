"""Clusters in notebooks: what cells show while jobs run, what is saved, and what magics do.

refresher    the thread that keeps all displays up to date
livedisplay  what all displays have in common: shown, refreshed, paced, and kept as a picture
widget/      a cluster: its figures, its jobs, and what a user may wish of it
charts/      live charts of nodes and jobs, and of provisional results
pages        a cluster as HTML and as text; tables
magics/      `%dispy`; over/ has `%%dispy --over`
"""
