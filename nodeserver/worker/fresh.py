"""Jobs whose processes are not forks of the template, where a fork of it would not be safe (D5).

    template, after `setup` ── starts ──▶ nursery: an interpreter without any of the user's code
             └─ package and globals ──▶ nursery ─fork─▶ worker: unpacks, takes the globals, serves

Where a process that has unpacked them is safe to fork, the nursery does so itself, once.  The
template goes on for `cleanup`.  Its control socket is the nursery's from then on.
"""

import os
import socket
import sys
import threading
from pathlib import Path
from typing import NoReturn

from nodeserver.core.deaths import describe_death
from nodeserver.handover import dump_globals, load_globals
from nodeserver.io import sealedfile
from nodeserver.wire import lane
from nodeserver.worker import ancestry
from nodeserver.worker.lanefile import LaneFile
from nodeserver.worker.needs import Needs
from nodeserver.worker.output import Capture
from nodeserver.worker.run import Worker
from nodeserver.worker.serving import Forked, freeze, serve_forks
from nodeserver.worker.tracebacks import describe
from nodeserver.worker.unpacking import Unpacked, unpack

START = 'DISPY_NB_START'  # variable of the node: 'fresh' has all jobs start so
NURSERY = 'nursery'
TOLD = 'jobs get copies of what setup made global, and may start slowly, as they are no forks here'
_NAME = 'dispy nursery'
_NAMES_SHOWN = 5
_FIT, _UNFIT = 'fit', 'unfit'  # to be forked


def reason_not_to_fork() -> str:
    """Say why forks of this process could hang or crash; '' if they are safe."""
    if os.environ.get(START) == 'fresh':
        return f'the node was started with {START}=fresh'
    if os.uname().sysname == 'Darwin':
        return 'the libraries of macOS do not outlive a fork'
    if _has_gpu():
        return 'a GPU is in use since setup, or since an import'
    main = threading.main_thread()
    names = [thread.name for thread in threading.enumerate() if thread is not main]
    if names:
        shown = ', '.join(names[:_NAMES_SHOWN]) + (', ...' if len(names) > _NAMES_SHOWN else '')
        return f'threads run since setup, or since an import: {shown}'
    others = len(list(Path('/proc/self/task').iterdir())) - 1
    return f'{others} threads of libraries run since setup, or since an import' if others else ''


def _has_gpu() -> bool:
    """Whether a library has opened the driver of one; torch says so itself."""
    torch = sys.modules.get('torch')
    if torch is not None and torch.cuda.is_initialized():
        return True
    for file in Path('/proc/self/fd').iterdir():
        try:
            if str(file.readlink()).startswith(('/dev/nvidia', '/dev/kfd')):
                return True
        except OSError:  # the one that lists them
            continue
    return False


def start_nursery(
    control: socket.socket, settings: lane.TemplateSettings, package_file: int, unpacked: Unpacked
) -> int:
    """Hand over what `setup` has made and the control socket; answer the nursery's pid.

    Raises
    ------
    PicklingFailed
        A global variable cannot be handed over.
    """
    packed = dump_globals(unpacked.spaces, unpacked.before)
    made = sealedfile.sealed(packed.pieces, 'globals')
    files = (control.fileno(), package_file, made.fd)
    for file in files:
        os.set_inheritable(file, True)
    arguments = [
        str(os.getpid()),
        *map(str, files),
        str(made.size),
        lane.encode_open(settings).hex(),
    ]
    before = os.environ.get('PYTHONPATH')
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environ = {**os.environ, 'PYTHONPATH': path, **({lane.PYTHONPATH: before} if before else {})}
    command = [sys.executable, '-P', '-m', 'nodeserver.worker', NURSERY, *arguments]
    try:
        return os.posix_spawn(sys.executable, command, environ)
    finally:
        for file in files:
            os.set_inheritable(file, False)


def serve(arguments: list[str]) -> NoReturn:
    """Be the nursery: check that a process can be made, then fork them as the node says."""
    status = 1
    try:
        control_fd, package_file, made_file, size = map(int, arguments[:4])
        settings = lane.decode_open(bytes.fromhex(arguments[4]))
        ancestry.set_name(_NAME)
        control = socket.socket(fileno=control_fd)
        made = sealedfile.SealedFile(made_file, size)
        capture = Capture()
        seed = Seed(settings, package_file, made, capture)
        failure, can_be_forked = seed.try_once()
        if failure:
            control.send(lane.FAILED + failure.encode()[-lane.MAX_MESSAGE // 2 :])
        else:
            forked: Forked = seed
            if can_be_forked:
                forked = worker = seed.grow()
                worker.rehearse()
                ancestry.set_name(_NAME)
            freeze()
            control.send(lane.READY)
            serve_forks(control, forked, capture)
            status = 0
    finally:
        os._exit(status)


class Seed:
    """What workers grow from: stands for a `Worker` where each makes its own."""

    def __init__(
        self,
        settings: lane.TemplateSettings,
        package_file: int,
        made: sealedfile.SealedFile,
        capture: Capture,
    ) -> None:
        self.needs = Needs()  # nobody tells any: nothing is imported ahead of the forks
        self.is_lasting = settings.isolation == 'worker'
        self._settings, self._package_file = settings, package_file
        self._made, self._capture = made, capture
        self._file = LaneFile()

    def become(self, far: int, files: list[int], parent: int) -> NoReturn:
        """Be a worker in a process just forked."""
        try:
            ancestry.join_family(parent)
            worker = self.grow()
        except BaseException as error:  # noqa: BLE001 - user code, which went well the first time
            sys.stderr.write(f'{describe(error)}\n')
            os._exit(1)
        worker.become(far, files, parent)

    def try_once(self) -> tuple[str, bool]:
        """See in a process of its own whether one can be made: why not, or whether it can fork."""
        read, write = os.pipe()
        me = os.getpid()
        pid = os.fork()
        if pid == 0:
            ancestry.join_family(me)
            try:
                self.grow()
                text = _UNFIT if reason_not_to_fork() else _FIT
            except BaseException as error:  # noqa: BLE001 - user code: the node is told
                text = describe(error)
            os.write(write, text.encode()[-4096:])
            os._exit(0)
        os.close(write)
        with os.fdopen(read, 'rb') as file:
            text = file.read().decode(errors='replace')
        (ended,) = ancestry.reap([pid], {pid}, 0)
        if text in (_FIT, _UNFIT) and not ended.status:
            return '', text == _FIT
        failure = text or describe_death(ended.status, subject='it')
        return f'the first process for jobs could not be made: {failure}', False

    def grow(self) -> Worker:
        """Unpack the package here, and take the globals."""
        data = os.pread(self._package_file, os.fstat(self._package_file).st_size, 0)
        unpacked = unpack(self._settings, data, self._file)
        load_globals(self._made.mapped(), unpacked.spaces)
        return Worker(self._settings, unpacked.package, self._file, self._capture)
