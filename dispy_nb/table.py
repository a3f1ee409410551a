"""The table that `print_status` prints."""

from dispy_nb.snapshot import NodeSnapshot, Snapshot

_HEAD = f'{"Node":32} | {"CPUs":>4} | {"Jobs":>8} | {"Sec/Job":>9} | {"Node Time Sec":>13}'


def status_table(snapshot: Snapshot, wall_time: float | None = None) -> str:
    """Lay out what each node has done, and what it came to (C23)."""
    wall = wall_time or snapshot.elapsed
    spent = sum(node.cpu_time for node in snapshot.nodes)
    lines = ['', _HEAD, '-' * len(_HEAD), *map(_line, snapshot.nodes), '']
    speedup = f', speedup: {spent / wall:.2f}' if wall else ''
    lines.append(f'Total job time: {spent:.3f} sec, wall time: {wall:.3f} sec{speedup}')
    if snapshot.failed or snapshot.cancelled:
        were = 'was' if snapshot.cancelled == 1 else 'were'
        lines.append(f'{_jobs(snapshot.failed)} failed, {snapshot.cancelled} {were} cancelled')
    if snapshot.pending:
        lines.append(f'{_jobs(snapshot.pending)} pending')
    return '\n'.join(lines)


def _jobs(count: int) -> str:
    return '1 job' if count == 1 else f'{count} jobs'


def _line(node: NodeSnapshot) -> str:
    title = f'{node.name} ({node.address})' if node.name else node.address
    mean = node.cpu_time / node.jobs_done if node.jobs_done else 0.0
    gone = ' (gone)' if node.closed else ''
    return (
        f'{title[:32]:32} | {node.cpus:4} | {node.jobs_done:8} | {mean:9.3f} | '
        f'{node.cpu_time:13.3f}{gone}'
    )
