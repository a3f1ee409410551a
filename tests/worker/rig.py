"""A node's processes with nothing else around: jobs given as the core would, events kept."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nodeserver.core.effects import CloseTemplate, ForkWorkers, GiveJobs, OpenTemplate
from nodeserver.core.events import (
    Event,
    JobsReported,
    ProvisionalReported,
    TemplateFailed,
    TemplateReady,
    WorkerEnded,
    WorkerForked,
)
from nodeserver.io.directories import Directories
from nodeserver.io.procs import Processes
from nodeserver.io.sealedfile import SealedFile
from nodeserver.payload import dump_call, dump_package, load_result
from nodeserver.wire.outcome import Outcome, decode_outcome

PATIENCE = 20.0
COMPUTATION = 7


def as_bytes(payload: Any) -> Any:
    """Have a payload as its client gets it."""
    return payload.mapped() if isinstance(payload, SealedFile) else payload


@dataclass
class Ran:
    """What became of one job."""

    outcome: Outcome
    pickled: Any = b''
    raised: bool = False
    reported: bool = False
    exit_status: int | None = None
    provisional: list[Any] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def result(self) -> Any:
        assert self.reported and not self.raised, self
        return load_result(self.pickled)


class Bench:
    """Drives `Processes` in the test's own loop."""

    def __init__(self, prefix: Path) -> None:
        self.events: list[Event] = []
        self._changed = asyncio.Event()
        self.prefix = prefix
        self.isolation = 'job'
        self.processes = Processes(
            asyncio.get_running_loop(), self._post, Directories(prefix), ('node-a', '10.0.0.1')
        )
        self._next_job = 0

    def _post(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, wanted: Callable[[Event], bool]) -> Any:
        """Wait for the first such event of all that have come, and take it out."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for event in self.events:
                    if wanted(event):
                        self.events.remove(event)
                        return event
                self._changed.clear()
                await self._changed.wait()

    async def until_type(self, kind: type[Any]) -> Any:
        return await self.until(lambda event: isinstance(event, kind))

    async def open(self, function: Any, isolation: str = 'job', **companions: Any) -> Any:
        """Open a computation; answers TemplateReady or TemplateFailed."""
        self.isolation = isolation
        self.open_bytes(dump_package(function, **companions))
        return await self.until(lambda event: isinstance(event, TemplateReady | TemplateFailed))

    def open_bytes(self, package: bytes, cleanup: bool = True, dest_path: str = '') -> None:
        self.processes.open_template(
            OpenTemplate(COMPUTATION, 'test', package, self.isolation, dest_path, cleanup)
        )

    async def worker(self) -> int:
        self.processes.fork_workers(ForkWorkers(COMPUTATION, 1))
        worker: int = (await self.until_type(WorkerForked)).worker
        return worker

    def give(self, worker: int, *calls: tuple[Any, ...]) -> list[int]:
        """Hand over one job per tuple of arguments; answers the jobs' ids."""
        ids = [self._next_job + number for number in range(1, len(calls) + 1)]
        self._next_job += len(calls)
        payloads = [dump_call(call, {}) for call in calls]
        self.processes.give_jobs(GiveJobs(COMPUTATION, worker, ids, [1] * len(ids), payloads))
        return ids

    async def start(self, *args: Any) -> int:
        """Start one job on a fresh worker."""
        worker = await self.worker()
        self.give(worker, args)
        return worker

    async def run(self, *args: Any) -> Ran:
        """Run one job on a fresh worker, to the end of its process."""
        return await self.end_of(await self.start(*args))

    async def end_of(self, worker: int) -> Ran:
        """Gather what a worker with one job told, until it ended."""
        ran = Ran(Outcome())
        while True:
            event = await self.until(lambda event: getattr(event, 'worker', None) == worker)
            if isinstance(event, ProvisionalReported):
                assert not ran.reported
                ran.provisional.append(load_result(as_bytes(event.result)))
            elif isinstance(event, JobsReported):
                ran.outcome, ran.pickled = decode_outcome(as_bytes(event.outcomes[0]))
                ran.raised = event.raised[0]
                ran.reported, ran.seconds = True, event.seconds[0]
            elif isinstance(event, WorkerEnded):
                ran.exit_status = event.exit_status
                if not ran.reported:
                    ran.outcome, ran.pickled = decode_outcome(event.outcome)
                return ran

    async def reports(self, worker: int, count: int) -> list[Ran]:
        """Wait for so many outcomes of a lasting worker."""
        found: list[Ran] = []
        while len(found) < count:
            event = await self.until(
                lambda event: isinstance(event, JobsReported) and event.worker == worker
            )
            found += [
                Ran(*decode_outcome(as_bytes(outcome)), raised, True, seconds=seconds)
                for outcome, raised, seconds in zip(
                    event.outcomes, event.raised, event.seconds, strict=True
                )
            ]
        return found

    async def close(self) -> None:
        self.processes.close_template(CloseTemplate(COMPUTATION))


@asynccontextmanager
async def bench(prefix: Path) -> AsyncIterator[Bench]:
    """Have processes that are gone afterwards."""
    made = Bench(prefix)
    made.processes.start()
    try:
        yield made
    finally:
        await made.processes.aclose()


def on_bench(prefix: Path, play: Callable[[Bench], Coroutine[Any, Any, Any]]) -> Any:
    """Run a test's coroutine with a bench."""

    async def main() -> Any:
        async with bench(prefix) as made:
            return await play(made)

    return asyncio.run(main())


def run_job(prefix: Path, function: Any, *args: Any, isolation: str = 'job') -> Ran:
    """Run one job of a function, from the package to the end of its process."""

    async def play(made: Bench) -> Ran:
        opened = await made.open(function, isolation)
        assert isinstance(opened, TemplateReady), opened
        if isolation == 'job':
            return await made.run(*args)
        worker = await made.start(*args)
        return (await made.reports(worker, 1))[0]

    ran: Ran = on_bench(prefix, play)
    return ran
