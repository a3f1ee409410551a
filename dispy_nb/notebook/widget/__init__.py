"""The widget of a cluster: a state goes in, a user's wish comes out, and a page is kept."""
