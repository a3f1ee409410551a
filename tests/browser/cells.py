"""Cells that several tests begin with; GATES is where the jobs of a test look for theirs."""

JOBS = """
    import dispy_nb as dispy

    def pass_gate(name):
        import pathlib, time
        folder, end = pathlib.Path(GATES), time.monotonic() + 30
        while not any((folder / gate).exists() for gate in (str(name), 'all')):
            assert time.monotonic() < end, f'{name} was never opened'
            time.sleep(0.02)

    def hold(name, fail=False):
        pass_gate(name)
        assert not fail, 'on purpose'

    def count(name):
        for value in range(100):
            dispy_provisional_result((value, value * value))
            pass_gate(f'{name}-{value}')
"""
NODES = """
    nodes = dispy.LocalNodes(2, cpus=1)
    options = {'nodes': nodes.nodes, 'ip_addr': '127.0.0.1', 'port': 0}
"""
START = f"""{JOBS}{NODES}
    cluster = dispy.JobCluster(hold, **options)
"""
# a cell that leaves the kernel's main thread no time for anything else
BUSY = """
    import time
    for _ in range(1000):
        time.sleep(0.02)
        if {until}:
            break
"""
STATUSES = 'print(*[job.status.name for job in jobs])'
