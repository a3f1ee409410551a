"""The processes of a node: performs what the core wants of them, and posts what becomes of it.

OpenTemplate ──▶ zygote ─fork─▶ template ──▶ TemplateReady | TemplateFailed
ForkWorkers ──▶ template ─fork─▶ worker ──▶ WorkerForked
GiveJobs ──▶ worker ──▶ ProvisionalReported, JobsReported, at last WorkerEnded
CloseTemplate ──▶ WorkerEnded of each worker ──▶ files removed ──▶ TemplateClosed
"""

import asyncio
import logging
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import count
from pathlib import Path

from nodeserver.core.deaths import describe_death
from nodeserver.core.effects import (
    CloseTemplate,
    ForkWorkers,
    GiveJobs,
    OpenTemplate,
    ReadOutput,
    RecallFromWorker,
    SignalWorker,
)
from nodeserver.core.errors import UsageError
from nodeserver.core.events import Event, TemplateClosed, TemplateFailed
from nodeserver.io.deputy import OWN_USER, Owner
from nodeserver.io.directories import Directories
from nodeserver.io.memorykills import MemoryKills
from nodeserver.io.memorywatch import MemoryWatch, Watched
from nodeserver.io.nodeprocesses import Shared, refuse_file
from nodeserver.io.strays import Strays
from nodeserver.io.templateend import CLEANUP_SECONDS, TemplateEnd
from nodeserver.io.watcher import Watcher
from nodeserver.io.workerend import WorkerEnd
from nodeserver.io.zygote import Zygote
from nodeserver.wire.lane import TemplateSettings

# jobs in each worker's pipe from which on the node looks only now and then, or fewer that take so
# many seconds: each look would take the cpu from a worker, for a single outcome
_MANY_JOBS = 96
_SOME_JOBS, _SOME_SECONDS = 16, 0.002
_REST = 0.001
_LOOK_INTERVAL = 0.5  # seconds between looks at what the jobs print

logger = logging.getLogger(__name__)


def _nothing() -> None:
    pass


class Processes:
    """Templates and workers of one node, in its asyncio loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        post: Callable[[Event], None],
        directories: Directories,
        names: tuple[str, str],  # of the node, and its address
        posted: Callable[[], None] = _nothing,
        owner: Owner = OWN_USER,
    ) -> None:
        self._loop, self._post, self._posted = loop, post, posted
        self._directories, self._owner = directories, owner
        self._names = names
        self._watcher = Watcher(loop, self._after_look)
        self.offer_file = refuse_file  # called with the socket of a job that sends a file
        self._shared = Shared(
            loop,
            self._watcher,
            post,
            count(1),
            MemoryKills(),
            lambda *file: self.offer_file(*file),
            owner.signals,
        )
        self._strays = Strays(owner.signals, self._ours)
        self._templates: dict[int, TemplateEnd] = {}
        self._to_remove: set[Path] = set()  # once nobody uses them any more
        self._zygote: Zygote | None = None
        self._memory_watch = MemoryWatch(loop, post)
        self._look_timer: asyncio.TimerHandle | None = None
        self._all_closed = asyncio.Event()
        self._closed = False

    def start(self) -> None:
        """Start the interpreter that templates come from, so that it is warm when one is wanted."""
        self._living_zygote()
        self._look()

    # what the core wants

    def open_template(self, effect: OpenTemplate) -> None:
        """Make a directory and a template in it; `TemplateReady` or `TemplateFailed` follows."""
        computation = effect.computation
        try:
            directory = self._directories.make(computation, effect.name, effect.dest_path)
        except (OSError, UsageError) as error:
            self._post(TemplateFailed(computation, f'no directory for it: {error}'))
            return
        template = TemplateEnd(
            computation, directory, effect.cleanup, self._shared, self._template_exited
        )
        self._templates[computation] = template
        needs = effect.resources
        template.memory = needs.memory
        place = computation, str(directory), effect.isolation, *self._names
        settings = TemplateSettings(*place, needs.cpus, needs.gpus)

        def forked(pid: int, control: int) -> None:
            if pid:
                template.started(pid, control)
            else:
                template.reason = 'the node could not start a process for it'
                self._template_gone(template, 0)

        try:
            self._living_zygote().fork(settings, effect.package, effect.setup_args, forked)
        except OSError as error:
            template.reason = f'the node could not start a process for it: {error}'
            self._template_gone(template, 0)

    def close_template(self, effect: CloseTemplate) -> None:
        """End everything of a computation; `TemplateClosed` follows."""
        template = self._templates.get(effect.computation)
        if template is None:  # its directory could not be made
            self._post(TemplateClosed(effect.computation))
        elif not template.gone:
            template.keeps_files = effect.keeps_files
            template.close()
        elif not template.closing:
            template.closing, template.keeps_files = True, effect.keeps_files
            self._remove(template)

    def fork_workers(self, effect: ForkWorkers) -> None:
        """Fork fresh workers; a `WorkerForked` follows for each."""
        template = self._templates.get(effect.computation)
        if template is not None:
            template.fork(effect.count)

    def give_jobs(self, effect: GiveJobs) -> None:
        """Hand jobs to a worker; one that died meanwhile answers by its `WorkerEnded`."""
        worker = self._worker(effect.computation, effect.worker)
        if worker is None:
            return
        if effect.gpus:
            worker.assign(effect.gpus)
        if not effect.shared and all(type(payload) is bytes for payload in effect.payloads):
            worker.give(effect.ids, effect.attempts, effect.payloads)
        else:
            shared = effect.shared or [[]] * len(effect.ids)
            for row in zip(effect.ids, effect.attempts, effect.payloads, shared, strict=True):
                worker.give_large(*row)
        if not _has_enough(worker):
            self._watcher.wake()

    def recall_from_worker(self, effect: RecallFromWorker) -> None:
        """Take back what a lasting worker has not begun; `JobsRecalled` tells what that is."""
        worker = self._worker(effect.computation, effect.worker)
        if worker is not None:
            worker.recall(effect.delay)

    def read_output(self, effect: ReadOutput) -> None:
        """Tell what the running jobs print, once more; `JobsPrinted` follows when they do."""
        template = self._templates.get(effect.computation)
        if template is not None:
            template.read_output()

    def signal_worker(self, effect: SignalWorker) -> None:
        """Send a signal to the worker and the group of processes that it leads."""
        worker = self._worker(effect.computation, effect.worker)
        if worker is not None:
            if effect.signal == signal.SIGINT:
                worker.interrupt(effect.number)
            else:
                worker.signal(effect.signal)

    # the end

    async def aclose(self) -> None:
        """Close each computation in order, so that its cleanup function is run; then `close`."""
        for computation in list(self._templates):
            self.close_template(CloseTemplate(computation))
        self._look_for_end()
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * CLEANUP_SECONDS):
                await self._all_closed.wait()
        self.close()

    def close(self) -> None:
        """End every process and remove every file, at once; nothing is posted any more."""
        if self._closed:
            return
        self._closed = True
        if self._look_timer is not None:
            self._look_timer.cancel()
        self._memory_watch.close()
        for template in self._templates.values():
            template.abandon()
        if self._zygote is not None:
            self._zygote.close()
        self._watcher.close()
        self._to_remove |= {end.directory for end in self._templates.values() if end.cleanup}
        if self._owner.adopts_orphans:
            self._strays.end()
        try:
            self._directories.remove(self._to_remove)
        except OSError as error:
            logger.warning('not all that computations have left was removed: %s', error)
        for computation in self._templates:
            self._directories.leave(computation)
        self._templates.clear()

    # inside

    def _worker(self, computation: int, worker: int) -> WorkerEnd | None:
        template = self._templates.get(computation)
        return template.workers.get(worker) if template is not None else None

    def _living_zygote(self) -> Zygote:
        if self._zygote is None or not self._zygote.alive:
            prefix = self._directories.prefix
            prefix.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._zygote = Zygote(prefix, self._watcher, self._zygote_exited, self._owner)
        return self._zygote

    def _zygote_exited(self) -> None:
        logger.warning('the process that starts the jobs was ended; another is started when needed')

    def _template_exited(self, template: TemplateEnd) -> None:
        """A template's process has ended and so have its workers: reap it."""
        if self._zygote is not None and self._zygote.alive:
            self._zygote.reap(template.pid, lambda status: self._template_gone(template, status))
        else:
            self._template_gone(template, 0)

    def _template_gone(self, template: TemplateEnd, status: int) -> None:
        template.gone = True
        self._sweep()
        died = describe_death(status, self._shared.memory_kill(status), 'its template')
        if template.closing:
            template.tell_of_cleanup(status, died)
            self._remove(template)
        else:
            reason = template.reason or template.last_words(died)
            self._post(TemplateFailed(template.computation, reason))
        template.close_files()

    def _remove(self, template: TemplateEnd) -> None:
        """Remove a computation's files, away from the loop as they may be many.

        Where others use the directory too (`dest_path`), it goes with the last of them, unless
        that one's files are to stay.
        """
        if template.keeps_files:
            self._removed(template, None)
            return
        ours = template.directory
        if template.cleanup:
            self._to_remove.add(ours)
        else:
            self._to_remove = {
                path for path in self._to_remove if not _is_at_or_above(path, [ours])
            }
        used = [other.directory for other in self._templates.values() if other is not template]
        free = [path for path in self._to_remove if not _is_at_or_above(path, used)]
        self._to_remove.difference_update(free)
        if free:
            removal = self._loop.run_in_executor(None, self._directories.remove, free)
            removal.add_done_callback(lambda done: self._removed(template, done.exception()))
        else:
            self._removed(template, None)

    def _removed(self, template: TemplateEnd, error: BaseException | None) -> None:
        if error is not None:
            logger.warning('%s was not removed: %s', template.directory, error)
        self._templates.pop(template.computation, None)
        self._directories.leave(template.computation)
        if not self._closed:
            self._post(TemplateClosed(template.computation))
            self._look_for_end()

    def _look_for_end(self) -> None:
        if not self._templates:
            self._all_closed.set()

    def _after_look(self) -> None:
        """Rest if every busy worker has enough to do: what comes meanwhile is one turn's work."""
        workers = (w for template in self._templates.values() for w in template.workers.values())
        busy = [worker for worker in workers if worker.unreported]
        if busy and all(map(_has_enough, busy)):
            self._watcher.rest(_REST)
        self._posted()

    def _look(self) -> None:
        """See what the jobs print, and what fills the memory."""
        self._shared.memory_kills.look(self._loop.time())
        for template in self._templates.values():
            template.look()
        self._memory_watch.look(self._demanding())
        self._sweep()
        self._look_timer = self._loop.call_later(_LOOK_INTERVAL, self._look)

    def _sweep(self) -> None:
        """End what has lost its parents; the zygote sees to that as long as it lives."""
        if self._owner.adopts_orphans:
            self._strays.sweep()

    def _ours(self) -> set[int]:
        """Say which children of this process it has started itself."""
        deputy, zygote = self._owner.deputy, self._zygote
        return {deputy.pid if deputy is not None else 0, zygote.pid if zygote is not None else 0}

    def _demanding(self) -> list[Watched]:
        """Workers whose jobs have asked for so much memory and no more."""
        return [
            Watched(template.computation, worker.id, worker.pid, template.pid, template.memory)
            for template in self._templates.values()
            if template.memory
            for worker in template.workers.values()
            if worker.has_taken_job
        ]


def _has_enough(worker: WorkerEnd) -> bool:
    """Whether a worker will not wait for the node while that rests."""
    jobs = worker.unreported
    return jobs >= _MANY_JOBS or (
        jobs >= _SOME_JOBS and jobs * worker.latest_seconds >= _SOME_SECONDS
    )


def _is_at_or_above(path: Path, others: Iterable[Path]) -> bool:
    return any(path == other or path in other.parents for other in others)
