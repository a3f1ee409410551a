"""The node's end of a worker: its lane, its printed output, its life and death."""

import asyncio
import errno
import fcntl
import os
import signal
import socket
import termios
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from nodeserver.core.events import JobsRecalled, JobsReported, ProvisionalReported
from nodeserver.io.nodeprocesses import Shared
from nodeserver.io.printed import Printed
from nodeserver.io.sealedfile import SealedFile, content_of, file_with, taken_over
from nodeserver.io.watcher import FAILED, READABLE, WRITABLE
from nodeserver.io.workerpage import PageOfNode, cells_of
from nodeserver.wire import lane
from nodeserver.wire.outcome import encode_failure
from nodeserver.wire.packed import filled_in

_READ = 65536
_READ_BIG = 1 << 20
_READS_A_TURN, _LAST_READS = 16, 1000  # the last ones: a bound, should a child of the job write on
_RECALL_LOOK, _MOST_RECALL_LOOK = 0.001, 0.064  # seconds until a recalled worker is looked at


_ROOM = socket.CMSG_SPACE(4 * 8)  # a worker passes one file with each report
_LOST = -1  # in place of a file that could not be taken


class WorkerEnd:
    """A forked process, seen from the node; never blocks, whatever the sizes."""

    __slots__ = (
        '_answered',
        '_arrived',
        '_backlog',
        '_computation',
        '_lane',
        '_on_exit',
        '_page',
        '_pidfd',
        '_reader',
        '_recall_timer',
        '_shared',
        '_socket',
        '_unread',
        '_watcher',
        'exited',
        'given',
        'id',
        'latest_seconds',
        'leaving',
        'pid',
        'printed',
    )

    def __init__(
        self,
        computation: int,
        pid: int,
        fds: Sequence[int],
        shared: Shared,
        on_exit: Callable[['WorkerEnd'], None],
    ) -> None:
        self.id, self.pid = next(shared.worker_ids), pid
        self.exited = False
        self.latest_seconds = 0.0  # what its latest job took
        self.leaving = ''  # why it ends by itself before its next job
        self._computation = computation
        self.given = self._answered = 0  # jobs, counted over its whole life
        self._unread = False  # the worker was gone before it had read what it was given
        self._lane = fds[0]
        self.printed = Printed(fds[1:3])
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, self._lane)
        self._arrived: deque[int] = deque()  # files beside reports that are to be read yet
        self._recall_timer: asyncio.TimerHandle | None = None
        self._page = PageOfNode(cells_of(fds[3])) if len(fds) > 3 else None  # a lasting worker's
        self._shared, self._watcher = shared, shared.watcher
        self._on_exit = on_exit
        self._reader = lane.ReportReader()
        self._backlog: deque[tuple[memoryview, list[SealedFile]]] = deque()
        self._pidfd = os.pidfd_open(pid)  # not reaped before we ask: it is this very process
        os.set_blocking(self._lane, False)
        self._watcher.watch(self._lane, self._lane_ready)
        self._watcher.watch(self._pidfd, self._process_exited)
        for page in fds[3:]:
            os.close(page)

    # jobs and reports

    def assign(self, gpus: Sequence[str]) -> None:
        """Write which gpus it has from now on, before its first job."""
        if self._lane >= 0:
            self._write([lane.encode_gpus(gpus)], [])

    def give(self, ids: Sequence[int], attempts: Sequence[int], payloads: Sequence[bytes]) -> None:
        """Write jobs to the worker; one that has died answers by its exit."""
        self.given += len(ids)
        if self._lane < 0:
            self._unread = True
        else:
            self._write(lane.encode_batch(ids, attempts, payloads), [])

    def give_large(self, id: int, attempt: int, payload: Any, shared: Sequence[Any]) -> None:
        """Write a job whose payload, or some of it, goes to the worker in files."""
        self.given += 1
        if self._lane < 0:
            self._unread = True
            return
        try:
            files = [file_with(data) for data in shared]
        except OSError:  # too many open files, or a system that has none of this kind
            payload = filled_in(content_of(payload), [content_of(data) for data in shared]).join()
            files = []
        in_file = isinstance(payload, SealedFile)
        if in_file:
            files.insert(0, payload)
        order = lane.Order(id, attempt, b'' if in_file else payload, len(files), in_file)
        self._write(lane.encode_order(order), files)

    def _write(self, pieces: Sequence[bytes], files: list[SealedFile]) -> None:
        waiting = bool(self._backlog)
        for piece in pieces:
            self._backlog.append((memoryview(piece), files))
            files = []
        if not waiting:
            self._flush()

    def _flush(self) -> None:
        while self._backlog:
            piece, files = self._backlog[0]
            try:
                sent = self._send(piece[:_READ_BIG], files)
            except BlockingIOError:
                self._watcher.watch_writing(self._lane, True)
                return
            except OSError as error:
                self._unread = True
                self._backlog.clear()
                if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                    self.signal(signal.SIGKILL)  # the system passes no more files: it begins anew
                return
            if sent < len(piece):
                self._backlog[0] = piece[sent:], []
            else:
                self._backlog.popleft()

    def _send(self, piece: memoryview, files: list[SealedFile]) -> int:
        if not files:
            return os.write(self._lane, piece)
        passed = array('i', [file.fd for file in files])
        return self._socket.sendmsg([piece], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])

    def _lane_ready(self, mask: int) -> None:
        if mask & WRITABLE:
            self._flush()
            if not self._backlog:
                self._watcher.watch_writing(self._lane, False)
        if mask & (READABLE | FAILED):
            self._read(_READS_A_TURN)

    def _read(self, turns: int) -> None:
        for _ in range(turns):
            if self._read_once() < _READ:
                return

    def _read_once(self) -> int:
        """Take one piece and hand on what it completes; 0 when there is nothing now."""
        try:
            size = _READ_BIG if self._reader.missing else _READ
            data, passed, flags, _ = self._socket.recvmsg(size, _ROOM)
        except BlockingIOError:
            return 0
        except ConnectionResetError:  # it died with jobs unread
            self._unread = True
            data, passed, flags = b'', [], 0
        if passed or flags & socket.MSG_CTRUNC:
            self._take_files(passed)
        if not data:
            self._close_lane()
            return 0
        reports = self._reader.feed(data)
        if self._arrived:
            reports = [self._with_file(report) for report in reports]
        if reports:
            self._take(reports)
        if self._reader.is_garbled:
            self.signal(signal.SIGKILL)
            self._close_lane()
            return 0
        return len(data)

    def _take(self, reports: list[lane.Report]) -> None:
        """Hand on what a worker says, in its order: words of one kind together."""
        columns = list(map(list, zip(*reports, strict=True)))
        if max(columns[0]) <= lane.RAISED:
            self._take_outcomes(*columns)
            return
        for kind, group in groupby(reports, lambda report: max(report[0], lane.RAISED)):
            columns = list(map(list, zip(*group, strict=True)))
            _, numbers, _, bodies = columns
            if kind == lane.RAISED:
                self._take_outcomes(*columns)
            elif kind == lane.SKIPPED:
                self._take_skipped(numbers[0], numbers[-1])
            elif kind == lane.LEAVING:
                self.leaving = bodies[0].decode(errors='replace')
            elif kind == lane.FILE:
                self._take_offers(len(bodies))
            else:
                for number, body in zip(numbers, bodies, strict=True):
                    event = ProvisionalReported(self._computation, self.id, number, body)
                    self._shared.post(event)

    def _take_outcomes(self, kinds: Any, ids: Any, seconds: Any, bodies: Any) -> None:
        self._answered += len(kinds)
        self.latest_seconds = seconds[-1]
        if self._page is None and self._lane >= 0:
            self._watcher.forget(self._lane)  # its end follows, and is told by the process's own
        raised = [kind == lane.RAISED for kind in kinds]
        self._shared.post(JobsReported(self._computation, self.id, ids, raised, bodies, seconds))

    def _take_skipped(self, first: int, last: int) -> None:
        """Tell of jobs that were skipped, unless they were taken back before."""
        self._answered += last - first + 1
        page = self._page
        new = [n for n in range(first, last + 1) if page is not None and not page.was_taken(n)]
        if new:
            self._shared.post(JobsRecalled(self._computation, self.id, new[0], new[-1]))

    @property
    def unreported(self) -> int:
        """Jobs given that have not been answered for."""
        return self.given - self._answered

    @property
    def has_taken_job(self) -> bool:
        """Whether it is in a job by now; one that comes from a nursery has to be made first."""
        if self._page is not None:
            return self._page.begun > self._answered
        if not self.unreported or self._lane < 0:
            return False
        unread = fcntl.ioctl(self._lane, termios.TIOCOUTQ, bytes(4))
        return not self._backlog and not any(unread)

    @property
    def running(self) -> int:
        """Number of the job that it is in now, if it has reported all before that; else 0."""
        number = self._page.begun if self._page is not None else self.given
        return number if number == self._answered + 1 else 0

    def recall(self, delay: float) -> None:
        """Have a lasting worker skip what it has not begun after `delay` seconds."""
        if delay:
            self._wake_later(delay, self.recall, 0.0)
        elif self._page is not None and self._page.recall(self.given, self._answered):
            self._wake_later(_RECALL_LOOK, self._look_at_recall, _RECALL_LOOK)

    def _wake_later(self, seconds: float, call: Callable[[float], None], waited: float) -> None:
        if self._recall_timer is not None:
            self._recall_timer.cancel()
        self._recall_timer = self._shared.loop.call_later(seconds, call, waited)

    def _look_at_recall(self, waited: float) -> None:
        """Take back what waits behind a long job; a worker that moves on tells by itself."""
        self._recall_timer = None
        if self._page is None or self.exited:
            return
        back = self._page.take_back(self._answered)
        if back is None:
            pause = min(2 * waited, _MOST_RECALL_LOOK)
            self._wake_later(pause, self._look_at_recall, pause)
        elif back[0] <= back[1]:
            self._shared.post(JobsRecalled(self._computation, self.id, *back))

    def _take_offers(self, count: int) -> None:
        """Hand on the sockets in which jobs wait for a file to be sent."""
        for _ in range(count):
            fd = self._arrived.popleft() if self._arrived else _LOST
            if fd != _LOST:  # else the job sees the end of its socket
                self._shared.offer_file(self._computation, self.id, fd)

    def _take_files(self, passed: Sequence[tuple[int, int, bytes]]) -> None:
        """Keep the file beside this piece; none came if this process has no room for it."""
        fds = [fd for _, _, data in passed for fd in array('i', data)]
        self._arrived.extend(fds or [_LOST])

    def _with_file(self, report: lane.Report) -> lane.Report:
        """Put the file that came beside a report into it."""
        kind, job, seconds, _ = report
        if not kind & lane.IN_FILE:
            return report
        kind = kind & ~lane.IN_FILE
        fd = self._arrived.popleft() if self._arrived else _LOST  # a job wrote into the lane
        try:
            if fd == _LOST:
                raise OSError('the node has no descriptors left')
            return kind, job, seconds, taken_over(fd)
        except OSError as error:
            text = f'its large result could not be taken: {error}'
            return lane.RAISED, job, seconds, encode_failure(exception=text)

    # death

    @property
    def has_begun(self) -> bool:
        """Whether a worker that is gone may have begun one of the jobs it did not report.

        A lasting one said so in its page.  Another reads its job whole before that begins, and
        the system tells of one that was not read.
        """
        if self._page is not None:
            return self._page.begun > self._answered and not self.leaving
        return not (self._unread or self.leaving)

    @property
    def is_garbled(self) -> bool:
        """Whether a job wrote something of its own into the lane."""
        return self._reader.is_garbled

    def signal(self, number: int) -> None:
        """Send a signal to the process and its group, and wake them if they were stopped."""
        if self.exited:
            return
        for each in (number, signal.SIGCONT):
            self._shared.signals.to_group(self.pid, self._pidfd, each)

    def interrupt(self, number: int) -> None:
        """Interrupt one job; a lasting worker that is in the next one by now goes on."""
        if self._page is None:
            self.signal(signal.SIGINT)
        elif not self.exited:
            self._page.interrupt(number)
            for each in (signal.SIGINT, signal.SIGCONT):  # it may be stopped
                self._shared.signals.to_process(self._pidfd, each)

    def leftover(self) -> bytes:
        """Make an outcome of what the process printed in a job that it did not end."""
        return self.printed.leftover() if self.unreported else b''

    def close(self) -> None:
        """Give back all descriptors."""
        self._close_lane()
        for fd in (self._pidfd, *self.printed.files):
            if fd >= 0:
                self._watcher.close_fd(fd)
        self._pidfd = -1
        self.printed.files.clear()
        if self._page is not None:
            self._page.close()
            self._page = None
        if self._recall_timer is not None:
            self._recall_timer.cancel()

    def read_rest(self) -> None:
        """Read all that the socket holds; once the process was reaped, that tells its end too.

        Until then its template, that had just forked it, may have held the other end as well.
        """
        for _ in range(_LAST_READS):
            if self._lane < 0 or not self._read_once():
                break

    def _process_exited(self, mask: int) -> None:
        self.exited = True
        self.read_rest()
        self._watcher.close_fd(self._pidfd)
        self._pidfd = -1
        self._on_exit(self)

    def _close_lane(self) -> None:
        if self._lane >= 0:
            self._unread = self._unread or bool(self._backlog)
            self._backlog.clear()
            self._watcher.close_fd(self._socket.detach())
            self._lane = -1
            for fd in self._arrived:
                if fd != _LOST:
                    os.close(fd)
            self._arrived.clear()
