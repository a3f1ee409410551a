"""The node's end of a worker: its lane, its printed output, its life and death."""

import errno
import os
import signal
import socket
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from nodeserver.io import memfile
from nodeserver.io.sealedfile import SealedFile, sealed, taken_over
from nodeserver.io.watcher import FAILED, READABLE, WRITABLE, Watcher
from nodeserver.wire import lane
from nodeserver.wire.outcome import encode_failure
from nodeserver.wire.packed import filled_in

_READ = 65536
_READ_BIG = 1 << 20
_READS_A_TURN = 16
_LAST_READS = 1000  # a bound, should a child of the job write on
_ROOM = socket.CMSG_SPACE(4 * 8)  # a worker passes one file with each report
_LOST = -1  # in place of a file that could not be taken


class WorkerEnd:
    """A forked process, seen from the node; never blocks, whatever the sizes."""

    __slots__ = (
        '_arrived',
        '_backlog',
        '_files',
        '_lane',
        '_last_given',
        '_on_exit',
        '_on_reports',
        '_orders',
        '_pidfd',
        '_reader',
        '_socket',
        '_unread',
        '_watcher',
        'exited',
        'id',
        'leaving',
        'pid',
        'unreported',
    )

    def __init__(
        self,
        id: int,
        pid: int,
        fds: Sequence[int],
        watcher: Watcher,
        on_reports: Callable[['WorkerEnd', list[lane.Report]], None],
        on_exit: Callable[['WorkerEnd'], None],
    ) -> None:
        self.id, self.pid = id, pid
        self.exited = False
        self.unreported = 0  # jobs given that no outcome has come of
        self.leaving = ''  # why it ends by itself before its next job
        self._last_given = 0  # jobs in the latest batch
        self._unread = False  # the worker was gone before it had read that batch
        self._lane, *self._files = fds[:3]
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, self._lane)
        self._arrived: deque[int] = deque()  # files beside reports that are to be read yet
        self._orders = fds[3] if len(fds) > 3 else -1  # a lasting worker's
        self._watcher = watcher
        self._on_reports, self._on_exit = on_reports, on_exit
        self._reader = lane.ReportReader()
        self._backlog: deque[tuple[memoryview, list[SealedFile]]] = deque()
        self._pidfd = os.pidfd_open(pid)  # not reaped before we ask: it is this very process
        os.set_blocking(self._lane, False)
        watcher.watch(self._lane, self._lane_ready)
        watcher.watch(self._pidfd, self._process_exited)

    # jobs and reports

    def give(self, ids: Sequence[int], attempts: Sequence[int], payloads: Sequence[bytes]) -> None:
        """Write jobs to the worker; one that has died answers by its exit."""
        self.unreported += len(ids)
        self._last_given = len(ids)
        if self._lane < 0:
            self._unread = True
        else:
            self._write(lane.encode_batch(ids, attempts, payloads), [])

    def give_large(self, id: int, attempt: int, payload: Any, shared: Sequence[Any]) -> None:
        """Write a job whose payload, or some of it, goes to the worker in files."""
        self.unreported += 1
        self._last_given = 1
        if self._lane < 0:
            self._unread = True
            return
        try:
            files = [_file(data) for data in shared]
        except OSError:  # too many open files, or a system that has none of this kind
            content = payload.mapped() if isinstance(payload, SealedFile) else payload
            payload = filled_in(content, [_content(data) for data in shared]).join()
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
            self.unreported -= sum(report.kind in lane.OUTCOMES for report in reports)
            if reports[-1].kind == lane.LEAVING:
                self.leaving = reports.pop().body.decode()
            self._on_reports(self, reports)
        return len(data)

    def _take_files(self, passed: Sequence[tuple[int, int, bytes]]) -> None:
        """Keep the file beside this piece; none came if this process has no room for it."""
        fds = [fd for _, _, data in passed for fd in array('i', data)]
        self._arrived.extend(fds or [_LOST])

    def _with_file(self, report: lane.Report) -> lane.Report:
        """Put the file that came beside a report into it."""
        if not report.kind & lane.IN_FILE:
            return report
        kind, fd = report.kind & ~lane.IN_FILE, self._arrived.popleft()
        try:
            if fd == _LOST:
                raise OSError('the node has no descriptors left')
            return report._replace(kind=kind, body=taken_over(fd))
        except OSError as error:
            text = f'its large result could not be taken: {error}'
            return report._replace(kind=lane.RAISED, body=encode_failure(exception=text))

    # death

    @property
    def has_begun(self) -> bool:
        """Whether a worker that is gone may have begun one of the jobs it did not report.

        A batch is read whole before its first job begins, and the system tells of one that was
        not; of jobs in front of the latest batch it says nothing: they count as begun.
        """
        return not (self.leaving or (self._unread and self.unreported == self._last_given))

    def signal(self, number: int) -> None:
        """Send a signal to the process and its group."""
        if self.exited:
            return
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:  # not a group of its own yet
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def interrupt(self, job: int, attempt: int) -> None:
        """Interrupt one job; a lasting worker that is in the next one by now goes on."""
        if self._orders < 0:
            self.signal(signal.SIGINT)
        elif not self.exited:
            os.pwrite(self._orders, lane.INTERRUPT_ORDER.pack(job, attempt), 0)
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGINT)

    def spare_memory(self) -> None:
        """Free the middle of an output that has become very long."""
        for file in self._files:
            memfile.give_back_middle(file, os.fstat(file).st_size)

    def leftover(self) -> bytes:
        """Make an outcome of what the process printed in a job that it did not end."""
        if not self.unreported:
            return b''
        texts = [memfile.read_text(file, os.fstat(file).st_size) for file in self._files]
        return encode_failure(*texts) if any(texts) else b''

    def close(self) -> None:
        """Give back all descriptors."""
        self._close_lane()
        for fd in (self._pidfd, self._orders, *self._files):
            if fd >= 0:
                self._watcher.close_fd(fd)
        self._pidfd, self._orders, self._files = -1, -1, []

    def _process_exited(self, mask: int) -> None:
        self.exited = True
        for _ in range(_LAST_READS):  # all of what the socket holds
            if self._lane < 0 or not self._read_once():
                break
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


def _file(data: Any) -> SealedFile:
    """Have shared data as a file; what is small comes without one."""
    if isinstance(data, SealedFile):
        return data
    return sealed([memoryview(data)], 'shared')


def _content(data: Any) -> Any:
    return data.mapped() if isinstance(data, SealedFile) else data
