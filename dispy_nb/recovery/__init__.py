"""What is kept of a cluster, so that another program can go on where one was killed (D8).

Journal ── rows of a file ──▶ `read` ──▶ Recorded ──▶ recover_jobs, attach
"""
