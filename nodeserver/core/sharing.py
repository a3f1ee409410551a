"""How the clients of one scheduler share its nodes, and in words who goes before whom (D12)."""

from collections.abc import Callable
from hashlib import blake2b
from math import ceil

from nodeserver.core.account import Client
from nodeserver.core.admission import REUNION_SECONDS, Admission
from nodeserver.core.computation import Computation
from nodeserver.core.fairness import Ring, Shares
from nodeserver.core.recruiting import Recruiting
from nodeserver.core.wording import harmless_name

MOST_NAMES = 10  # of clients, or of computations of one


class Sharing:
    """Who may start, who goes first, and what is said of it."""

    def __init__(
        self,
        fleet: Recruiting,
        order: Ring | Shares,
        enlist: Callable[[Computation], None],
        is_away: Callable[[str], bool],
    ) -> None:
        self._order, self._is_away = order, is_away
        self._admission = Admission(fleet, isinstance(order, Shares), enlist, is_away)
        self.declare = self._admission.declare
        self.run = self._admission.run
        self.is_held_back = self._admission.is_held_back
        self.expect = self._admission.expect
        self.expect_no_more = self._admission.expect_no_more
        if isinstance(order, Shares):
            fleet.number_of = _number_of

    def faults(self, comp: Computation) -> list[str]:
        """Say what does not come right by itself."""
        order, needed = self._order, comp.declared.resources.cpus
        if isinstance(order, Shares) and needed > order.most_cpus > 0:
            return self.lines(comp)[:1]
        return []

    def lines(self, comp: Computation) -> list[str]:
        """Say for whom the jobs of a computation wait; none where nobody else is there."""
        if self.is_held_back(comp):
            return _held_back_lines(self._admission, comp, self._is_away)
        return _share_lines(self._order, comp) if isinstance(self._order, Shares) else []


def _number_of(client: str) -> int:
    """By what number nodes know a client, whose peer id is nobody's business."""
    return int.from_bytes(blake2b(client.encode(), digest_size=7).digest()) | 1


def _held_back_lines(
    admission: Admission, comp: Computation, is_away: Callable[[str], bool]
) -> list[str]:
    """Say for whom a computation has to wait before it may use any node."""
    blockers = admission.blockers(comp)
    if comp.declared.exclusive and blockers:
        why = 'it is exclusive, and starts when these are closed'
    elif any(not admission.is_held_back(other) for other in blockers):
        why = 'all nodes are for another cluster, which is exclusive; it starts when that is closed'
    elif blockers:
        why = 'it starts after others, which are exclusive and were made before it'
    else:
        why = (
            'the scheduler was started again, and clusters of before have '
            f'{REUNION_SECONDS:g} s to come back, as all nodes are for one of them or for this one'
        )
    own = [other for other in blockers if other.client == comp.client]
    lines = [f'{comp.declared.name} waits for its turn: {why}']
    for other in blockers[:MOST_NAMES]:
        ends = '; its program is gone: it is over once these jobs have ended'
        lines.append(_line_of_computation(other, comp) + (ends if is_away(other.client) else ''))
    if len(blockers) > MOST_NAMES:
        lines.append(f'and {len(blockers) - MOST_NAMES} more clusters')
    if own and len(own) == len(blockers):
        lines.append('nobody else is in the way: close these clusters, or make one of them do')
    return lines


def _share_lines(shares: Shares, comp: Computation) -> list[str]:
    """Say who shares the cpus with a computation whose jobs wait, and who goes before it."""
    own = shares.clients.get(comp.client)
    if own is None or not comp.waiting:
        return []
    for client in shares.clients.values():
        client.weigh()
    lines = []
    most = _count(shares.most_cpus, 'cpu')
    if comp.declared.resources.cpus > shares.most_cpus > 0:
        lines.append(
            f'it needs {_count(comp.declared.resources.cpus, "cpu")} per job, and this scheduler '
            f'gives a client at most {most}: its jobs cannot run here'
        )
    elif not shares.may_have(own, comp):
        lines.append(
            f'this scheduler gives a client at most {most} at a time: '
            f'jobs of this one have {own.cpus}'
        )
    others = [c for c in shares.clients.values() if c is not own and (c.waiting or c.cpus)]
    if not others:
        return lines
    ahead = sorted((c for c in others if c.waiting and c.rank < own.rank), key=lambda c: c.rank)
    behind = sorted((c for c in others if c not in ahead), key=lambda c: -c.held)
    place = f'{_count(len(ahead), "client")} before this one' if ahead else 'this one is next'
    lines.append(
        f'the cpus are shared with {_count(len(others), "other client")}; a free one goes to the '
        f'client that has the fewest: {place}'
    )
    lines.append(f'this client: {_use(own)}')
    told = [f'before it: {_line(c)}' for c in ahead] + [f'beside it: {_line(c)}' for c in behind]
    lines += told[:MOST_NAMES]
    if len(told) > MOST_NAMES:
        lines.append(f'and {_count(len(told) - MOST_NAMES, "more client")}')
    return lines


def _line(client: Client) -> str:
    """Whose jobs these are, how many, and what they have used."""
    computations = list(client.computations.values())
    names = [_clean(comp.declared.name) for comp in computations[:MOST_NAMES]]
    more = len(computations) - len(names)
    if more:
        names.append(f'{more} more')
    owner = _clean(computations[0].declared.owner)
    waiting = sum(len(comp.waiting) for comp in computations)
    return f'{owner}, {", ".join(names)}: {_use(client)}, {_count(waiting, "job")} waiting'


def _use(client: Client) -> str:
    computations = client.computations.values()
    jobs = sum(len(comp.jobs) for comp in computations)
    return (
        f'{_count(jobs, "job")} on nodes, with {_count(ceil(client.held), "cpu")}, '
        f'{_time(client.seconds)} of cpu time in ended jobs'
    )


def _line_of_computation(other: Computation, comp: Computation) -> str:
    whose = 'this program' if other.client == comp.client else _clean(other.declared.owner)
    seconds = other.pace.used_seconds * other.declared.resources.cpus
    return (
        f'{_clean(other.declared.name)} of {whose}: {_count(len(other.jobs), "job")} on nodes, '
        f'{len(other.waiting):,} waiting, {_time(seconds)} of cpu time in ended jobs'
    )


def _clean(text: str) -> str:
    """What another client calls itself, so that it can do no harm on a terminal."""
    return harmless_name(text) or 'somebody'


def _time(seconds: float) -> str:
    if seconds < 120:
        return f'{seconds:.3g} s'
    return f'{seconds / 60:.3g} min' if seconds < 7200 else f'{seconds / 3600:,.1f} h'


def _count(number: int, thing: str) -> str:
    return f'{number:,} {thing}' if number == 1 else f'{number:,} {thing}s'
