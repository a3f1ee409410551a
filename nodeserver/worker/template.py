"""A computation's template: unpacks it once, then forks a process per job or per cpu (D5)."""

import _socket
import atexit
import ctypes
import gc
import os
import socket
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from nodeserver.io.workerpage import new_page
from nodeserver.payload import Package, load_package
from nodeserver.wire import lane
from nodeserver.wire.lane import TemplateSettings
from nodeserver.worker import ancestry, helpers, quietforks
from nodeserver.worker.lanefile import LaneFile
from nodeserver.worker.needs import import_all
from nodeserver.worker.output import Capture, new_files
from nodeserver.worker.portion import use_cpus
from nodeserver.worker.run import Worker
from nodeserver.worker.tracebacks import describe
from nodeserver.worker.versions import remarks_on

_BIG = 256 << 20  # bytes above which collapsing pages pays for itself with the first forks
_HUGE_PAGE = 2 << 20
_MADV_COLLAPSE = 25


def become(
    control: socket.socket, settings: TemplateSettings, package: int, parent: int
) -> NoReturn:
    """Be the template in a process just forked; the zygote's code is never returned to."""
    status = 1
    try:
        ancestry.join_family(parent)
        ancestry.set_name('dispy template')
        ancestry.offer_to_memory_killer()
        status = _unpack_and_serve(control, settings, package)
    finally:
        os._exit(status)


def _unpack_and_serve(control: socket.socket, settings: TemplateSettings, package_file: int) -> int:
    with open(package_file, 'rb') as file:
        file.seek(0)
        data = file.read()
    capture, lane_file = Capture(), LaneFile()
    capture.begin(*new_files())
    try:
        package, remarks = _unpack(settings, data, lane_file)
    except BaseException as error:  # noqa: BLE001 - user code: the node is told
        control.send(lane.FAILED + _failure(error, capture).encode()[-lane.MAX_MESSAGE // 2 :])
        return 1
    worker = Worker(settings, package, lane_file, capture)
    if not worker.is_lasting:
        worker.rehearse()
        ancestry.set_name('dispy template')
    _freeze()
    control.send(lane.encode_ready(remarks))
    _serve(control, worker, capture)
    return _clean_up(package.cleanup)


def _freeze() -> None:
    """Keep the garbage collector of forks from copying what is here.

    What is registered for the end of this process is not for theirs, and it has none itself.
    """
    atexit._clear()
    gc.collect()
    gc.freeze()


def _unpack(settings: TemplateSettings, data: bytes, file: LaneFile) -> tuple[Package, str]:
    """Load the package into a fresh `__main__`, and let `setup` prepare it; remark on versions."""
    use_cpus(settings.cpus)
    os.chdir(settings.directory)
    sys.path.insert(0, settings.directory)
    main = sys.modules['__main__'] = types.ModuleType('__main__')
    helpers.install(settings, file)
    package = load_package(data)
    remarks = remarks_on(package.requires)
    for companion in package.depends:
        name = getattr(companion, '__name__', None)
        if name is not None:
            setattr(main, name, companion)
    if package.setup is not None:
        _set_up(package.setup)
    if ancestry.resident_size() > _BIG:
        _collapse_pages()
    return package, remarks


def _set_up(setup: Callable[[], object]) -> None:
    answer = setup()
    if answer != 0:
        raise RuntimeError(f'setup returned {answer!r} instead of 0')


def _failure(error: BaseException, capture: Capture) -> str:
    stdout, stderr = capture.take()
    printed = ''.join(f'\n{text.rstrip()}' for text in (stdout, stderr) if text)
    return describe(error) + (f'\nIt printed:{printed}' if printed else '')


def _clean_up(cleanup: Callable[[], object] | None) -> int:
    if cleanup is None:
        return 0
    try:
        cleanup()
    except BaseException:  # noqa: BLE001 - user code: the node sees the exit status
        return 1
    return 0


def _serve(control: socket.socket, worker: Worker, capture: Capture) -> None:
    """Fork workers and reap them as the node says, until it closes the control socket."""
    size = ancestry.resident_size()
    children: set[int] = set()
    fork = quietforks.quietly_fork if threading.active_count() == 1 else os.fork
    try:
        while command := control.recv(lane.MAX_MESSAGE):
            forks, reaps = lane.decode_work(command)
            if forks and (names := worker.needs.take()):
                import_all(names)
                _freeze()
                size = ancestry.resident_size()
            for _ in range(forks):
                capture.flush()  # else every child would print the template's text again
                _fork_worker(control, worker, children, fork)
            if reaps:
                control.send(lane.encode_ended(ancestry.reap(reaps, children, size)))
    except (BrokenPipeError, ConnectionResetError):  # closed while we were answering
        pass
    finally:
        ancestry.kill_all(children)


def _fork_worker(
    control: socket.socket, worker: Worker, children: set[int], fork: Callable[[], int]
) -> None:
    me, control_fd = os.getpid(), control.fileno()
    become = worker.become
    ends: tuple[_socket.socket, ...] = ()
    files: list[int] = []
    try:
        # without what `socket` makes of it: two system calls less
        near, far = ends = _socket.socketpair()
        files += new_files()
        if worker.is_lasting:
            files.append(new_page())
        pid = fork()
        if pid == 0:
            os.close(control_fd)  # its own `close` would copy ten pages
            near.close()
            become(far.detach(), files, me)
        children.add(pid)
        socket.send_fds(control, [lane.encode_forked(pid)], [near.fileno(), *files])
    except OSError as error:
        control.send(lane.FORK_FAILED + str(error).encode())
    finally:
        # before the next fork: a sibling with this end would keep the lane from ending
        for end in ends:
            end.close()
        for file in files:
            os.close(file)


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
