"""What the widget of a cluster is told: plain values that JSON can carry, of bounded size.

It is the state of now, never a change: a view that comes late, or again, is right at once.
"""

from math import ceil, isinf
from typing import Any

from dispy_nb.history import Failure
from dispy_nb.monitor.timeline import in_words
from dispy_nb.progress import clock_text, rate_text
from dispy_nb.snapshot import NodeSnapshot, Snapshot

State = dict[str, Any]

NODES_SHOWN = 50  # rows; the busiest ones
JOBS_SHOWN = 50
MOST_TEXT = 300  # characters of what went wrong in one line
MOST_DETAIL = 2000  # of a traceback; its end says most

_UNITS = ((90.0, 1.0, 's'), (90 * 60.0, 60.0, 'min'), (48 * 3600.0, 3600.0, 'h'))
_LONGEST = (86400.0, 'days')


def state_of(snapshot: Snapshot) -> State:
    """Return all that the widget shows of a snapshot, by trait."""
    return {
        'figures': figures(snapshot),
        'nodes': nodes(snapshot),
        'jobs': jobs(snapshot),
        'failures': failures(snapshot),
        'results': results(snapshot),
    }


def figures(snapshot: Snapshot) -> State:
    """How many jobs are where, how fast it goes, and why nothing happens."""
    s = snapshot
    return {
        'name': s.name,
        'created': s.submitted,
        'waiting': s.waiting,
        'running': s.running,
        'finished': s.finished,
        'failed': s.failed,
        'cancelled': s.cancelled,
        'rate': rate_text(s.rate),
        'elapsed': clock_text(s.elapsed),
        'remaining': remaining_text(s.remaining),
        'notice': s.notice if s.pending else '',
        'closed': s.closed,
    }


def nodes(snapshot: Snapshot) -> State:
    """A row for each of the busiest nodes, by name; how many others there are."""
    done = sum(node.jobs_done for node in snapshot.nodes)
    shown = busiest(snapshot, NODES_SHOWN)
    most = max((node.jobs_done for node in shown), default=0)
    there = [node for node in snapshot.nodes if not node.closed]
    return {
        'rows': [_node(node, done, most) for node in shown],
        'count': len(snapshot.nodes),
        'cpus': sum(node.cpus for node in there),
        'busy': sum(node.busy for node in there),
    }


def jobs(snapshot: Snapshot) -> State:
    """The jobs that have not ended and were asked for, those that run first."""
    rows = sorted(snapshot.jobs, key=lambda job: job.status != 'running')
    return {
        'rows': [
            {
                'number': job.number,
                'id': job.id,
                'status': job.status,
                'node': job.node,
                'time': clock_text(job.seconds),
                'arguments': job.arguments,
            }
            for job in rows[:JOBS_SHOWN]
        ]
    }


def failures(snapshot: Snapshot) -> State:
    """The first jobs that went wrong; how many more there are, follows from the figures."""
    return {
        'rows': [
            {
                'id': failure.id,
                'status': failure.status,
                'arguments': failure.arguments,
                'text': failure.text[:MOST_TEXT],
                'detail': failure.detail[-MOST_DETAIL:],
            }
            for failure in gone_wrong(snapshot)
        ]
    }


def results(snapshot: Snapshot) -> State:
    """The latest provisional results, one for each job; when: seconds since the epoch."""
    return {
        'rows': [
            {'id': row.id, 'count': row.count, 'at': int(row.at), 'text': row.text}
            for row in snapshot.provisionals
        ],
        'count': snapshot.provisional,
    }


def busiest(snapshot: Snapshot, most: int) -> list[NodeSnapshot]:
    """Choose the nodes that have done most, those that are there first; in the order of names."""
    order = sorted(
        snapshot.nodes,
        key=lambda node: (node.closed, -node.jobs_done - node.busy, in_words(node.name)),
    )
    return sorted(order[:most], key=lambda node: (in_words(node.name), node.address))


def gone_wrong(snapshot: Snapshot) -> list[Failure]:
    """Those of the first failures that nobody has asked for, as the user does by cancelling."""
    return [
        failure
        for failure in snapshot.failures
        if failure.status != 'cancelled' or not failure.text.startswith('cancelled')
    ]


def more_failures(snapshot: Snapshot, shown: list[Failure]) -> int:
    """How many have failed besides those that are shown."""
    return max(0, snapshot.failed - sum(failure.status != 'cancelled' for failure in shown))


def remaining_text(remaining: tuple[float, float] | None) -> str:
    """Say how long it may take yet: a range as wide as what is known; '' if nothing is."""
    if remaining is None:
        return ''
    least, most = remaining
    low_size, low_unit = _unit(least)
    low = int(least / low_size)
    if isinf(most):
        return f'at least {low} {low_unit} left' if low else ''
    size, unit = _unit(most)
    high = ceil(most / size)
    if unit == low_unit and low == high:
        return f'about {high} {unit} left'
    if not low:
        return f'less than {high} {unit} left'
    return f'{low}{"" if unit == low_unit else f" {low_unit}"} to {high} {unit} left'


def memory_text(node: NodeSnapshot) -> str:
    """Write how much of a node's memory is in use; '' if that is not known."""
    if node.memory_in_use is None:
        return ''
    size, unit = (1e9, 'GB') if node.memory >= 1e9 else (1e6, 'MB')
    return f'{node.memory_in_use / size:.1f} of {node.memory / size:.1f} {unit}'


def mean_text(node: NodeSnapshot) -> str:
    """Write how many seconds a job takes on a node; '' before the first has ended."""
    if not node.jobs_done:
        return ''
    mean = node.cpu_time / node.jobs_done
    return f'{mean:.3f}' if mean < 100 else f'{mean:,.0f}'


def share_text(node: NodeSnapshot, done: int) -> str:
    """Write which part of all ended jobs a node has done; '' before the first has ended."""
    return f'{node.jobs_done / done:.0%}' if done else ''


def _node(node: NodeSnapshot, done: int, most: int) -> State:
    return {
        'id': node.id,
        'name': node.name,
        'address': node.address,
        'cpus': node.cpus,
        'offered': node.offered,
        'busy': node.busy,
        'load': '' if node.cpu_in_use is None else f'{node.cpu_in_use:.0f} %',
        'memory': memory_text(node),
        'jobs': node.jobs_done,
        'mean': mean_text(node),
        'share': share_text(node, done),
        'bar': round(node.jobs_done / most, 3) if most else 0,
        'gone': node.closed,
    }


def _unit(seconds: float) -> tuple[float, str]:
    for until, size, unit in _UNITS:
        if seconds < until:
            return size, unit
    return _LONGEST
