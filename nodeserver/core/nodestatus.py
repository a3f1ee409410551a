"""Who holds a node and what it does, in words for whoever runs it."""

from collections.abc import Collection
from dataclasses import dataclass

from nodeserver.core import levels
from nodeserver.core.effects import Report
from nodeserver.core.events import PeerRefusedUs
from nodeserver.core.hosted import Hosted
from nodeserver.core.nodefacts import Peer
from nodeserver.core.wording import harmless_name


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
        lines.append(f'computation {harmless_name(each.opened.name)} ({each.state}): {jobs}')
    waiting = sum(peer.waits for peer in peers)
    lines.append(f'{_count(len(peers), "program")} connected, {waiting} of them waiting for it')
    return lines


@dataclass(frozen=True, slots=True)
class NodeFigures:
    """What a node does, for those who watch it."""

    cpus: int
    busy: int  # of these
    running: int  # jobs
    waiting: int
    programs: int  # that are connected
    kept: int  # computations whose outcomes nobody has fetched
    ending: str  # why it takes no more jobs for good


def count_figures(
    cpus: tuple[int, int],
    hosted: Collection[Hosted],
    peers: Collection[Peer],
    kept: int,
    ending: str,
) -> NodeFigures:
    """Count what there is."""
    running, waiting = sum(each.running for each in hosted), sum(each.waiting for each in hosted)
    return NodeFigures(*cpus, running, waiting, len(peers), kept, ending)


def held_by(holder: Hosted) -> str:
    """Name the client that has the node."""
    gone = ', which is gone: its jobs end first' if holder.orphaned else ''
    return f'held by {harmless_name(holder.opened.owner)}{gone}'


def refused(event: PeerRefusedUs) -> Report:
    """Say that a scheduler to which the node connects does not take it."""
    text = f'the scheduler at {event.address} cannot be used: {event.reason}'
    return Report(levels.WARNING, text)


def _count(number: int, thing: str) -> str:
    return f'{number} {thing}' if number == 1 else f'{number} {thing}s'
