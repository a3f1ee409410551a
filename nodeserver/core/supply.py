"""What a node has to give to jobs (cpus, memory, gpus), and who has it (A04, Z12).

Cpus and memory belong to a job while it runs. Gpus belong to a process as long as it lives, as it
has opened them: a lasting worker keeps its own from job to job, another until it is gone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from nodeserver.core.demands import capacity
from nodeserver.core.errors import InvariantBroken
from nodeserver.core.hosted import Hosted, Worker
from nodeserver.core.nodefacts import NodeFacts
from nodeserver.core.turns import Turns
from nodeserver.core.values import Resources

_NO_GPUS: list[str] = []


class Lack(NamedTuple):
    """How much must become free before a job can start."""

    cpus: int
    memory: int
    gpus: int

    def concerns(self, needs: Resources) -> bool:
        """Whether a job with these needs would use what is lacked."""
        memory, gpus = self.memory and needs.memory, self.gpus and needs.gpus
        return bool(self.cpus or memory or gpus)


_NOTHING = Lack(0, 0, 0)


class Supply:
    """Counts exactly, at the start of each job, over all computations."""

    def __init__(self, facts: NodeFacts, hosted: dict[int, Hosted]) -> None:
        self._facts = facts
        self._hosted = hosted
        self._most_busy = facts.cpus
        self._free_gpus = list(facts.gpus)
        self._gpus: dict[tuple[int, int], list[str]] = {}  # of living workers of computations

    @property
    def busy_cpus(self) -> int:
        """Cpus that have a job."""
        return sum(hosted.busy for hosted in self._hosted.values())

    @property
    def free_cpus(self) -> int:
        """Cpus that have none."""
        return self._facts.cpus - self.busy_cpus

    def resize(self, cpus: int) -> None:
        """Have so many cpus from now on; what runs may end."""
        self._most_busy = max(cpus, self.busy_cpus)
        self._facts = replace(self._facts, cpus=cpus)

    def most_jobs(self, hosted: Hosted) -> int:
        """How many jobs of a computation may run here at a time."""
        facts, opened = self._facts, hosted.opened
        cpus = min(facts.cpus, opened.cpus)
        if not hosted.needs_more:
            return cpus
        return capacity(opened.resources, cpus, facts.memory, len(facts.gpus))

    def _lack(self, hosted: Hosted) -> Lack:
        """What the next job of a computation has to wait for."""
        needs = hosted.opened.resources
        cpus = needs.cpus - self.free_cpus
        memory = needs.memory - self._free_memory() if needs.memory else 0
        gpus = needs.gpus - len(self._free_gpus) if needs.gpus else 0
        if gpus > 0 and hosted.lasting and any(self._has_gpus(hosted, w) for w in hosted.idle):
            gpus = 0
        return Lack(max(0, cpus), max(0, memory), max(0, gpus))

    def _free_memory(self) -> int:
        hosted = self._hosted.values()
        return self._facts.memory - sum(h.opened.resources.memory * h.occupied for h in hosted)

    def sort_out(
        self, hungry: Sequence[Hosted], turns: Turns, now: float
    ) -> tuple[list[Hosted], list[Hosted]]:
        """Who of those with a job to give out may do so, and who must wait for more to be free.

        One that waits and whose turn it is has what becomes free kept for it: others would use
        each bit of it as it comes, for ever.
        """
        lacks = {hosted.id: self._lack(hosted) for hosted in hungry}
        kept = [hosted for hosted in hungry if lacks[hosted.id] != _NOTHING]
        for hosted in kept:
            hosted.denied_at = min(hosted.denied_at, now)
        fitting = [
            hosted
            for hosted in hungry
            if lacks[hosted.id] == _NOTHING
            and not any(
                lacks[other.id].concerns(hosted.opened.resources)
                and turns.goes_before(other, hosted, now)
                for other in kept
            )
        ]
        return fitting, kept

    def rivals(self, hosted: Hosted, kept: Iterable[Hosted]) -> list[Hosted]:
        """Those who wait for what a computation uses."""
        needs = hosted.opened.resources
        return [other for other in kept if self._lack(other).concerns(needs)]

    # gpus

    def _has_gpus(self, hosted: Hosted, worker: int) -> bool:
        return (hosted.id, worker) in self._gpus

    def choose(self, hosted: Hosted) -> int:
        """Which idle worker gets the next job: one that has its gpus already goes first."""
        oldest = next(iter(hosted.idle))
        if not hosted.opened.resources.gpus:
            return oldest
        return next((w for w in hosted.idle if self._has_gpus(hosted, w)), oldest)

    def assign(self, hosted: Hosted, worker: Worker) -> list[str]:
        """Give a worker gpus with its first job; later it has them."""
        count = hosted.opened.resources.gpus
        if not count or self._has_gpus(hosted, worker.id):
            return _NO_GPUS
        given = self._gpus[hosted.id, worker.id] = self._free_gpus[:count]
        del self._free_gpus[:count]
        return given

    def ended(self, computation: int, worker: int) -> None:
        """A process is gone: nobody has its gpus."""
        back = self._gpus.pop((computation, worker), None)
        if back:
            order = self._facts.gpus.index
            self._free_gpus = sorted([*self._free_gpus, *back], key=order)

    def spare_workers(self, waiting: Iterable[Hosted]) -> list[tuple[Hosted, Worker]]:
        """Idle workers whose gpus others wait for: they are to end."""
        missing = max((self._lack(hosted).gpus for hosted in waiting), default=0)
        missing -= sum(
            len(gpus) for (c, w), gpus in self._gpus.items() if w not in self._hosted[c].workers
        )
        spare = []
        for (computation, worker), gpus in self._gpus.items():
            hosted = self._hosted[computation]
            if missing > 0 and worker in hosted.idle:
                spare.append((hosted, hosted.workers[worker]))
                missing -= len(gpus)
        return spare

    def check(self) -> None:
        """Raise `InvariantBroken` if more was given away than there is, or one thing twice."""
        facts = self._facts
        if self.busy_cpus > self._most_busy:
            raise InvariantBroken(f'{self.busy_cpus} busy cpus of {self._most_busy}')
        if self._free_memory() < 0:
            raise InvariantBroken(f'jobs have {-self._free_memory()} bytes that are not there')
        gpus = [*self._free_gpus, *(gpu for given in self._gpus.values() for gpu in given)]
        if sorted(gpus) != sorted(facts.gpus):
            raise InvariantBroken(f'gpus {gpus} are free or given, of {facts.gpus}')
        for hosted in self._hosted.values():
            needs = hosted.opened.resources
            for worker in hosted.workers.values() if needs.gpus else ():
                if worker.held and len(self._gpus.get((hosted.id, worker.id), ())) != needs.gpus:
                    raise InvariantBroken(f'worker {worker.id} has a job without its gpus')
        for computation, worker_id in self._gpus:
            if computation not in self._hosted:
                raise InvariantBroken(f'worker {worker_id} of no computation has gpus')
