"""Who holds a node and what it does, in words for whoever runs it."""

from collections.abc import Collection

from nodeserver.core import levels
from nodeserver.core.effects import Report
from nodeserver.core.events import PeerRefusedUs
from nodeserver.core.hosted import Hosted
from nodeserver.core.nodefacts import Peer


def status_lines(
    cpus: tuple[int, int], hosted: Collection[Hosted], peers: Collection[Peer]
) -> list[str]:
    """Say how many cpus there are and are busy, who holds the node, and what runs and waits."""
    lines = [f'{_count(cpus[0], "cpu")}, {cpus[1]} in use']
    holder = next(iter(hosted), None)
    if holder is None:
        lines.append('held by nobody')
    else:
        lines.append(held_by(holder))
    for each in hosted:
        jobs = f'{_count(each.running, "job")} running, {each.waiting} waiting'
        lines.append(f'computation {each.opened.name} ({each.state}): {jobs}')
    waiting = sum(peer.waits for peer in peers)
    lines.append(f'{_count(len(peers), "program")} connected, {waiting} of them waiting for it')
    return lines


def held_by(holder: Hosted) -> str:
    """Name the client that has the node."""
    gone = ', which is gone: its jobs end first' if holder.orphaned else ''
    return f'held by {holder.opened.owner}{gone}'


def refused(event: PeerRefusedUs) -> Report:
    """Say that a scheduler to which the node connects does not take it."""
    text = f'the scheduler at {event.address} cannot be used: {event.reason}'
    return Report(levels.WARNING, text)


def _count(number: int, thing: str) -> str:
    return f'{number} {thing}' if number == 1 else f'{number} {thing}s'
