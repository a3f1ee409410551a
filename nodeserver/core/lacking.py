"""What a client that is back lacks, and what it does not want any more."""

from itertools import chain

from nodeserver.core.computation import Computation
from nodeserver.core.fleet import UseState
from nodeserver.core.jobrecord import JobRecord
from nodeserver.core.messages import DropData, ResendLetters
from nodeserver.core.parts import Parts
from nodeserver.core.takeover import Takeover

_NOTHING_THERE = (UseState.ASKING, UseState.UNWANTED, UseState.DISMISSED, UseState.CLOSING)


def drop_data(parts: Parts, comp: Computation, takeover: Takeover) -> None:
    """Forget shared data that the client, while it was away, has found to be of no use."""
    if comp.data is None:
        return
    doubted = (entry for jobs in takeover.doubts.values() for entry in jobs.values())
    entries = chain(comp.waiting.values(), comp.jobs.values(), doubted)
    named = {data for e in entries if isinstance(e, JobRecord) for data in e.shared}
    gone = comp.data.take_doubted(named)
    if gone:
        parts.dispatch.drop(comp, DropData(comp.id, gone))


def have_resent(parts: Parts, comp: Computation) -> None:
    """Nodes are to send again what the client has not acknowledged; later letters as ever."""
    numbers = comp.undelivered.numbers_of()
    for node in parts.fleet.nodes.values():
        use = node.uses.get(comp.id)
        if use is not None and use.state not in _NOTHING_THERE:
            parts.send(node.id, ResendLetters(comp.id, numbers.get(node.id, [])))
