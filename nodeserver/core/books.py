"""Whether what is known of jobs that are told of again, and of their outcomes, is consistent."""

from nodeserver.core.computation import Computation
from nodeserver.core.errors import InvariantBroken
from nodeserver.core.takeover import Takeover


def check_books(comp: Computation) -> None:
    """Raise `InvariantBroken` if a job of a computation is entered in two places at once."""
    if comp.jobs.keys() != comp.places.keys():
        raise InvariantBroken(f'{comp.id}: jobs with nodes, and places of others')
    if comp.waiting.keys() & comp.jobs.keys():
        raise InvariantBroken(f'{comp.id}: jobs wait, and are with nodes')
    if comp.takeover is not None:
        _check_takeover(comp, comp.takeover)
    _check_undelivered(comp)


def _check_takeover(comp: Computation, takeover: Takeover) -> None:
    doubts = {job: node for node, jobs in takeover.doubts.items() for job in jobs}
    if doubts != takeover.where or not all(takeover.doubts.values()):
        raise InvariantBroken(f'{comp.id}: in doubt are {doubts}, and {takeover.where}')
    if doubts.keys() & (comp.waiting.keys() | comp.jobs.keys() | takeover.settled):
        raise InvariantBroken(f'{comp.id}: jobs are in doubt, and are not')
    if takeover.missing < 0:
        raise InvariantBroken(f'{comp.id}: {takeover.missing} jobs are yet to be told of')
    takeover.check()


def _check_undelivered(comp: Computation) -> None:
    undelivered = comp.undelivered
    believed: set[int] = set()
    for node, ids, attempts in undelivered.places():
        if not ids or len(ids) != len(attempts):
            raise InvariantBroken(f'{comp.id}: a letter of {node} with {ids}, {attempts}')
        believed.update(ids)
    ended = believed.union(undelivered.ended())
    again = ended & (comp.waiting.keys() | comp.jobs.keys())
    if again:
        raise InvariantBroken(f'{comp.id}: {sorted(again)} have ended, and are to end again')
