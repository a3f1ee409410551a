"""`%dispy` and `%%dispy --over`: clusters in the words of a notebook (V01-V06).

line ──▶ words ──▶ the subcommand's parser ──▶ methods of clusters ──▶ tables, displays, values
"""
