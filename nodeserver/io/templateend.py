"""The node's end of a template: workers come from it, and it tells how they ended.

ordered ──▶ forked by the zygote ──▶ setup ──▶ READY ──▶ workers ──▶ cleanup ──▶ reaped
                      └─▶ FAILED, or killed: workers die with it ──▶ reaped
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

from nodeserver.core import levels
from nodeserver.core.deaths import GARBLED
from nodeserver.core.events import (
    JobsPrinted,
    TemplateNoted,
    TemplateReady,
    WorkerEnded,
    WorkerForked,
)
from nodeserver.core.outputmessages import STDERR, STDOUT
from nodeserver.io import memfile
from nodeserver.io.control import Control
from nodeserver.io.nodeprocesses import Shared
from nodeserver.io.printed import LEAST_OF_A_STREAM, MOST_AT_A_TIME, MOST_OF_A_STREAM
from nodeserver.io.workerend import WorkerEnd
from nodeserver.wire import lane

# how long a `cleanup` function may take; less than its client waits, who is told of more
CLEANUP_SECONDS = 9.0
_RETRY_SECONDS = 1.0  # after a fork that the system refused
_REAPS_A_MESSAGE = 1000
_REAP_SECONDS = 0.005  # how long a worker that has done its job may stay unreaped
_FORK_SECONDS = 0.004  # how long a fork waits for that, while others are ready
_LAST_MESSAGES = 10000  # whatever is still in the socket
_LAST_PRINTED = 4000  # characters that are shown of what a template printed before its death

logger = logging.getLogger(__name__)


class TemplateEnd:
    """One computation's template and its workers; `on_exit` is told when all are gone."""

    def __init__(
        self,
        computation: int,
        directory: Path,
        cleanup: bool,
        shared: Shared,
        on_exit: Callable[['TemplateEnd'], None],
    ) -> None:
        self.computation = computation
        self.directory, self.cleanup = directory, cleanup
        self.reason = ''  # why it could not unpack the computation
        self.memory = 0  # bytes that each job has asked for; 0: any number
        self.closing = False
        self.keeps_files = False
        self.gone = False
        self.doing = ''  # what it has begun to do last
        self.pid = 0
        self.workers: dict[int, WorkerEnd] = {}
        self._shared = shared
        self._on_exit = on_exit
        self._control: Control | None = None
        self._pidfd = -1
        self._ready = False
        self._exited = False
        self._by_pid: dict[int, WorkerEnd] = {}
        self._forks = 0
        self._refused = 0  # forks that are to be tried again
        self._reaps: list[int] = []
        self._work_timer: asyncio.TimerHandle | None = None
        self._work_due = False
        self._may_tell = True  # what jobs print
        self._told_rows = 0  # so far: where there are very many, they take turns
        self._fork_timer: asyncio.TimerHandle | None = None
        self._kill_timer: asyncio.TimerHandle | None = None
        self._files: list[int] = []  # that it prints to
        self._told_to_close = False
        self._overran = False
        self._messages: dict[bytes, Callable[[bytes, list[int]], None]] = {
            lane.BEGINS: self._begins,
            lane.NOTE: self._noted,
            lane.READY: self._is_ready,
            lane.FAILED: self._failed,
            lane.FORKED: self._forked,
            lane.FORK_FAILED: self._fork_failed,
            lane.ENDED: self._ended,
        }

    # what the node wants

    def started(self, pid: int, control: int) -> None:
        """The zygote has forked it."""
        self.pid = pid
        self._control = Control(control, self._shared.watcher, self._message)
        self._pidfd = os.pidfd_open(pid)
        self._shared.watcher.watch(self._pidfd, self._process_exited)
        if self.closing:
            self._kill()

    def fork(self, count: int) -> None:
        """Have so many workers forked.

        While one is ready they are not urgent: a fork takes the cpu and the memory's locks from
        the job that was just given out.  They come with the next reaping, as a rule.
        """
        self._forks += count
        if any(not worker.given for worker in self.workers.values()):
            self._work_later(_FORK_SECONDS)
        else:
            self._work()

    def close(self) -> None:
        """End the workers, then the template, in order."""
        if self.closing:
            return
        self.closing = True
        for worker in self.workers.values():
            worker.signal(signal.SIGKILL)
        if not self._ready:
            self._kill()
        else:
            self._send_signal(signal.SIGCONT)  # a stopped one could not reap them
            self._kill_later()
        self._go_on_closing()

    def abandon(self) -> None:
        """Close every descriptor at once; the processes are being ended by others."""
        self._cancel_timers()
        for worker in self.workers.values():
            worker.signal(signal.SIGKILL)
            worker.close()
        if self._control is not None:
            self._control.close()
        self._close_pidfd()
        self.close_files()

    # what the template tells

    def _message(self, message: bytes, fds: list[int]) -> None:
        self._messages[message[:1]](message, fds)

    def _begins(self, message: bytes, fds: list[int]) -> None:
        self.doing = message[1:].decode()
        if fds:
            self.close_files()
            self._files = fds

    def _noted(self, message: bytes, fds: list[int]) -> None:
        self._shared.post(TemplateNoted(self.computation, *lane.decode_note(message)))

    def _is_ready(self, message: bytes, fds: list[int]) -> None:
        self._ready = True
        if not self.closing:
            self._shared.post(TemplateReady(self.computation, lane.decode_ready(message)))

    def _failed(self, message: bytes, fds: list[int]) -> None:
        self.reason = message[1:].decode()

    def _forked(self, message: bytes, fds: list[int]) -> None:
        pid = lane.decode_forked(message)
        try:
            if len(fds) < 3:
                raise OSError('this process has no descriptors left')
            worker = WorkerEnd(self.computation, pid, fds, self._shared, self._worker_exited)
        except OSError as error:
            for fd in fds:
                os.close(fd)
            self._forked_in_vain(pid, error)
            return
        self.workers[worker.id] = self._by_pid[pid] = worker
        if self.closing:
            worker.signal(signal.SIGKILL)
        else:
            self._shared.post(WorkerForked(self.computation, worker.id))

    def _ended(self, message: bytes, fds: list[int]) -> None:
        for ended in lane.decode_ended(message):
            worker = self._by_pid.get(ended.pid)
            if worker is not None:
                self._worker_gone(worker, ended.status, ended.peak_memory)
        self._go_on_closing()

    # workers

    def _worker_exited(self, worker: WorkerEnd) -> None:
        if self._exited:
            self._worker_gone(worker, None, 0)
            self._report_if_gone()
        else:
            self._reaps.append(worker.pid)
            if worker.unreported or self.closing or self._forks:
                self._work()
            else:
                # nobody waits for it: it goes along with the next order to fork, as a rule
                self._work_later(_REAP_SECONDS)

    def _work_later(self, seconds: float) -> None:
        if self._work_timer is None:
            self._work_timer = self._shared.loop.call_later(seconds, self._work)

    def _worker_gone(self, worker: WorkerEnd, status: int | None, peak_memory: int) -> None:
        del self.workers[worker.id], self._by_pid[worker.pid]
        worker.read_rest()
        outcome, begun = worker.leftover(), worker.has_begun
        garbled = worker.is_garbled
        worker.close()
        self._shared.post(
            WorkerEnded(
                self.computation,
                worker.id,
                GARBLED if garbled else status,
                outcome,
                peak_memory,
                begun,
                worker.leaving,
                self._shared.memory_kill(status),
            )
        )

    def _forked_in_vain(self, pid: int, error: OSError) -> None:
        """A worker came that cannot be held: without its lane it ends, and another is asked for."""
        logger.warning('%s: cannot take a new process: %s', self.directory.name, error)
        self._reaps.append(pid)
        self._work()
        self._fork_later()

    def _fork_failed(self, message: bytes, fds: list[int]) -> None:
        logger.warning('%s: cannot fork: %s', self.directory.name, message[1:].decode())
        self._fork_later()

    def _fork_later(self) -> None:
        self._refused += 1
        if self._fork_timer is None and not self._exited:
            self._fork_timer = self._shared.loop.call_later(_RETRY_SECONDS, self._fork_again)

    def _fork_again(self) -> None:
        self._fork_timer = None
        count, self._refused = self._refused, 0
        self.fork(count)

    # what running jobs print

    def read_output(self) -> None:
        """What was told was taken: the next look may tell more."""
        self._may_tell = True

    def look(self) -> None:
        """See what the workers print: keep it from filling the memory, and tell of it."""
        news = []
        for worker in self.workers.values():
            if worker.unreported:
                places = worker.printed.look(worker.running)
                news += [(worker, place) for place in places]
        if news and self._may_tell and not self.closing:
            rows = MOST_AT_A_TIME // LEAST_OF_A_STREAM
            self._told_rows %= len(news)
            turn = (news[self._told_rows :] + news[: self._told_rows])[:rows]
            self._told_rows += rows
            self._tell(turn, min(MOST_OF_A_STREAM, MOST_AT_A_TIME // len(turn)))

    def _tell(self, news: list[tuple[WorkerEnd, int]], most: int) -> None:
        """Post what is new, unless its worker is by now in another job, which may have printed it.

        A worker says which job it begins before it does, and empties its files before that.
        """
        printed = JobsPrinted(self.computation, [], [], [], [], [])
        for worker, place in news:
            number = worker.running
            start, text = worker.printed.read(place, most)
            if not text or not number or worker.running != number:
                continue
            worker.printed.told(place, start + len(text))
            printed.workers.append(worker.id)
            printed.numbers.append(number)
            printed.streams.append((STDOUT, STDERR)[place])
            printed.starts.append(start)
            printed.texts.append(text)
        if printed.texts:
            self._may_tell = False
            self._shared.post(printed)

    # orders, gathered for one turn of the loop

    def _work(self) -> None:
        if not self._work_due:
            self._work_due = True
            self._shared.loop.call_soon(self._send_work)

    def _send_work(self) -> None:
        self._work_due = False
        if self._work_timer is not None:
            self._work_timer.cancel()
            self._work_timer = None
        if self._control is None or self._exited:
            return
        while self._forks or self._reaps:
            reaps, self._reaps = self._reaps[:_REAPS_A_MESSAGE], self._reaps[_REAPS_A_MESSAGE:]
            self._control.send(lane.encode_work(self._forks, reaps))
            self._forks = 0

    # its end

    def _go_on_closing(self) -> None:
        """Once the workers are gone, let the template run its cleanup and end."""
        ready = self.closing and self._ready and not self._told_to_close
        if ready and not self.workers and self._control is not None:
            self._told_to_close = True
            self._control.send(lane.CLOSE)
            self._kill_later()

    def _kill_later(self) -> None:
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self._kill_timer = self._shared.loop.call_later(CLEANUP_SECONDS, self._overrun)

    def _overrun(self) -> None:
        self._overran = True
        self._kill()

    def _kill(self) -> None:
        self._send_signal(signal.SIGKILL)

    def _send_signal(self, number: int) -> None:
        if self._pidfd >= 0:
            self._shared.signals.to_process(self._pidfd, number)

    def _process_exited(self, mask: int) -> None:
        self._exited = True
        self._cancel_timers()
        if self._control is not None:
            self._control.receive(_LAST_MESSAGES)
            self._control.close()
        self._close_pidfd()
        for worker in list(self.workers.values()):
            if worker.exited:  # its status died with the template
                self._worker_gone(worker, None, 0)
            else:
                worker.signal(signal.SIGKILL)
        self._report_if_gone()

    def last_words(self, died: str) -> str:
        """Say how it died, in what, and what it had printed."""
        if self.doing in (lane.SETTING_UP, lane.CLEANING_UP):
            died = f'{died}, while it ran {self.doing}'
        texts = [memfile.read_text(file, os.fstat(file).st_size) for file in self._files]
        printed = '\n'.join(text.rstrip() for text in texts if text)[-_LAST_PRINTED:]
        return died + (f'\nIt printed:\n{printed}' if printed else '')

    def tell_of_cleanup(self, status: int, died: str) -> None:
        """Tell the user of a cleanup that came to no good end; an exception was told before."""
        if self.doing != lane.CLEANING_UP or not (status or self._overran):
            return
        if self._overran:
            died = f'cleanup was ended, as it took longer than {CLEANUP_SECONDS:g} s'
            self.doing = ''
        text = self.last_words(died)
        self._shared.post(TemplateNoted(self.computation, levels.WARNING, text))

    def close_files(self) -> None:
        """Give back what it printed to."""
        for file in self._files:
            os.close(file)
        self._files = []

    def _report_if_gone(self) -> None:
        if not self.workers:
            self._on_exit(self)

    def _close_pidfd(self) -> None:
        if self._pidfd >= 0:
            self._shared.watcher.close_fd(self._pidfd)
            self._pidfd = -1

    def _cancel_timers(self) -> None:
        for timer in (self._fork_timer, self._kill_timer, self._work_timer):
            if timer is not None:
                timer.cancel()
