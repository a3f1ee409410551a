"""A computation's template: unpacks it once, then forks a process per job or per cpu (D5)."""

import ctypes
import operator
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from nodeserver.core import levels
from nodeserver.core.deaths import describe_death
from nodeserver.core.errors import PicklingFailed
from nodeserver.payload import load_call
from nodeserver.wire import lane
from nodeserver.wire.lane import TemplateSettings
from nodeserver.worker import ancestry, fresh
from nodeserver.worker.lanefile import LaneFile
from nodeserver.worker.output import Capture, new_files
from nodeserver.worker.program import Program
from nodeserver.worker.run import Worker
from nodeserver.worker.serving import freeze, serve_forks
from nodeserver.worker.surroundings import begin
from nodeserver.worker.tracebacks import describe
from nodeserver.worker.unpacking import Unpacked, unpack
from nodeserver.worker.versions import remarks_on

_BIG = 256 << 20  # bytes above which collapsing pages pays for itself with the first forks
_HUGE_PAGE = 2 << 20
_MADV_COLLAPSE = 25
_LAST_PRINTED = 4000  # characters of what a function printed that are shown with its failure
# all the same here, as jobs are forks: upstream has them choose how globals reach the jobs
_WELL = (0, 1, 2)


def become(
    control: socket.socket, settings: TemplateSettings, files: list[int], parent: int
) -> NoReturn:
    """Be the template in a process just forked; the zygote's code is never returned to."""
    status = 1
    try:
        ancestry.join_family(parent)
        ancestry.set_name('dispy template')
        ancestry.offer_to_memory_killer()
        status = _Template(control, settings, files).run()
    finally:
        os._exit(status)


class SetupRefusedError(Exception):
    """`setup` says that this node is not to be used."""


class _Template:
    def __init__(
        self, control: socket.socket, settings: TemplateSettings, files: list[int]
    ) -> None:
        self._control, self._settings = control, settings
        self._package_file = files[0]
        self._doing = lane.UNPACKING
        self._args: tuple[Any, ...] = ()  # of `setup` and `cleanup`
        self._args_file = files[1] if len(files) > 1 else -1
        self._capture, self._lane_file = Capture(), LaneFile()

    def run(self) -> int:
        """Unpack, serve, clean up; answer the exit status."""
        self._print_to_new_files(lane.UNPACKING)
        try:
            unpacked = self._unpack()
            why = fresh.reason_not_to_fork()
            if why:
                return self._serve_fresh(unpacked, why)
        except BaseException as error:  # noqa: BLE001 - user code: the node is told
            reason = self._failure(error).encode()[-lane.MAX_MESSAGE // 2 :]
            self._control.send(lane.FAILED + reason)
            return 1
        self._serve_forks(unpacked)
        self._clean_up(unpacked.package.cleanup)
        return 0

    def _print_to_new_files(self, what: str) -> None:
        """Begin something with nothing printed yet, where the node can read it."""
        self._doing = what
        files = new_files()
        socket.send_fds(self._control, [lane.BEGINS + what.encode()], files)
        self._capture.begin(*files)

    def _begin(self, what: str) -> None:
        self._doing = what
        self._control.send(lane.BEGINS + what.encode())

    def _unpack(self) -> Unpacked:
        """Load the package, and let `setup` prepare it."""
        unpacked = unpack(self._settings, _content(self._package_file), self._lane_file)
        package = unpacked.package
        if isinstance(package.computation, Program):
            package.computation.install()
        if self._args_file >= 0:
            self._args, _ = load_call(_content(self._args_file))
        if package.setup is not None or package.depends:
            self._begin(lane.SETTING_UP)
            begin(package.depends)
            if package.setup is not None:
                _set_up(package.setup, self._args)
        return unpacked

    def _serve_forks(self, unpacked: Unpacked) -> None:
        if ancestry.resident_size() > _BIG:
            _collapse_pages()
        worker = Worker(self._settings, unpacked.package, self._lane_file, self._capture)
        worker.rehearse()
        ancestry.set_name('dispy template')
        freeze()
        self._begin(lane.SERVING)
        self._control.send(lane.encode_ready(remarks_on(unpacked.package.requires)))
        serve_forks(self._control, worker, self._capture)

    def _serve_fresh(self, unpacked: Unpacked, why: str) -> int:
        """Have a nursery serve, and wait for its end."""
        try:
            pid = fresh.start_nursery(self._control, self._settings, self._package_file, unpacked)
        except PicklingFailed as error:
            raise SetupRefusedError(
                f'{error}; it has to be, as jobs cannot be forks of the process that setup ran in: '
                f'{why}'
            ) from error
        self._begin(lane.SERVING)
        self._control.send(lane.encode_note(levels.WARNING, f'{fresh.TOLD}: {why}'))
        for remark in remarks_on(unpacked.package.requires).splitlines():
            self._control.send(lane.encode_note(levels.WARNING, remark))
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code:
            if code < 0:
                text = describe_death(code, subject='the process that its jobs come from')
                self._control.send(lane.FAILED + text.encode())
            return 1
        self._clean_up(unpacked.package.cleanup)
        return 0

    def _clean_up(self, cleanup: Callable[..., object] | None) -> None:
        """Run the user's function; the node sees what it dies of, and is told what it raises."""
        if cleanup is None:
            return
        self._capture.flush()
        self._print_to_new_files(lane.CLEANING_UP)
        try:
            cleanup(*self._args)
        except BaseException as error:  # noqa: BLE001 - user code: the user is told
            self._control.send(lane.encode_note(levels.WARNING, self._failure(error)))

    def _failure(self, error: BaseException) -> str:
        stdout, stderr = self._capture.take()
        printed = '\n'.join(text.rstrip() for text in (stdout, stderr) if text)[-_LAST_PRINTED:]
        refused = isinstance(error, SetupRefusedError)
        text = str(error) if refused else describe(error)
        if self._doing != lane.UNPACKING and not refused:
            text = f'{self._doing} failed: {text}'
        return text + (f'\nIt printed:\n{printed}' if printed else '')


def _set_up(setup: Callable[..., object], args: tuple[Any, ...]) -> None:
    answer = setup(*args)
    try:
        good = not isinstance(answer, bool) and operator.index(answer) in _WELL  # type: ignore[arg-type]
    except TypeError:
        good = False
    if not good:
        hint = ': end it with "return 0"' if answer is None or isinstance(answer, bool) else ''
        raise SetupRefusedError(f'setup returned {answer!r} instead of 0{hint}')


def _content(file: int) -> bytes:
    return os.pread(file, os.fstat(file).st_size, 0)


def _collapse_pages() -> None:
    """Have the kernel make huge pages of what was loaded: a fork copies 512 times fewer entries."""
    for line in Path('/proc/self/maps').read_text().splitlines():
        addresses, access, _, device, *_ = line.split()
        if access != 'rw-p' or device != '00:00':
            continue
        first, last = (int(part, 16) for part in addresses.split('-'))
        start, end = -(-first // _HUGE_PAGE) * _HUGE_PAGE, last // _HUGE_PAGE * _HUGE_PAGE
        if start < end:
            # fails for regions never touched and for old kernels: forks then stay as they are
            ancestry.libc.madvise(
                ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_COLLAPSE
            )
