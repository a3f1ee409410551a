"""`%%dispy --over`: the body of a cell, run on the nodes once for each value (V06).

cell ──▶ a function ──▶ variables that go along ──▶ a cluster, a job for each value ──▶ results
"""
