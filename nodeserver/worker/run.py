"""A worker: the process that runs one job, or job after job, and reports each at once.

lane ──▶ arguments ──▶ the user's function ──▶ result or exception, with output ──▶ lane
"""

import _socket
import atexit
import errno
import os
import random
import signal
import sys
from collections.abc import Callable
from time import perf_counter
from types import FrameType
from typing import Any, NoReturn

from nodeserver.core.deaths import UNREPORTABLE
from nodeserver.io.workerpage import PageOfWorker, cells_of
from nodeserver.payload import (
    Package,
    dump_call,
    dump_exception,
    dump_result,
    load_call,
    load_depends,
)
from nodeserver.wire import lane
from nodeserver.wire.lane import read_batch
from nodeserver.wire.outcome import encode_failure, encode_outcome
from nodeserver.wire.packed import Packed
from nodeserver.worker import ancestry
from nodeserver.worker.ancestry import set_name
from nodeserver.worker.chunk import run_chunk
from nodeserver.worker.lanefile import LaneFile, allow_interrupts, hold_interrupts
from nodeserver.worker.needs import Needs, imported_since
from nodeserver.worker.output import LANE, Capture, new_files
from nodeserver.worker.portion import use_gpus
from nodeserver.worker.surroundings import Surroundings, enter
from nodeserver.worker.tracebacks import describe, keep_reserve, make_room

# the generator behind the functions of `random`; its own `seed` in C is 2 µs quicker
_shared_random: random.Random = getattr(random.seed, '__self__', random.Random())

# a job that took less has made no process: the quickest `vfork` takes twice as long
LEAST_FORK_SECONDS = 15e-6

_setsid, _exit = os.setsid, os._exit
_REHEARSALS = 12  # Python 3.11 looks closer at what was called eight times
_NO_ROOM = 'MemoryError: no memory was left to report the result with'


def _nothing() -> None:
    pass


class Worker:
    """Runs jobs of one computation: made in the template, `become` in each of its forks."""

    def __init__(
        self, settings: lane.TemplateSettings, package: Package, file: LaneFile, capture: Capture
    ) -> None:
        self.needs = Needs()
        self.is_lasting = settings.isolation == 'worker'
        self._has_gpus = settings.gpus > 0
        self._directory = settings.directory
        self._computation_id = settings.computation
        self._computation = package.computation
        self._lane, self._capture = file, capture
        self._surroundings = Surroundings(settings.directory, capture, *package.parts)
        self._pid = 0
        self._number = 0  # of the job among those that a lasting worker was given
        self._open_number = 0  # the same while interrupts may end it
        self._broke_import = False
        self._was_interrupted = False  # by the node
        # here, where interrupts are blocked, and not in each fork: `signal` makes much of it
        handler = self._interrupted if self.is_lasting else self._interrupted_alone
        signal.signal(signal.SIGINT, handler)
        keep_reserve()

    def become(self, far: int, files: list[int], parent: int) -> NoReturn:
        """Be a worker in a process just forked; the template's code is never returned to."""
        status = 1
        try:
            if self.is_lasting:
                self._begin(far, files, parent, _setsid)
                self._run_all(PageOfWorker(cells_of(files[2])))
            else:
                self._run_one(far, files, parent)
            status = 0
        except (BrokenPipeError, ConnectionResetError):  # the node is gone
            status = 0
        except OSError as error:
            if error.errno == errno.EBADF:
                status = UNREPORTABLE
        finally:
            _exit(status)

    def rehearse(self) -> None:
        """Go the way of a job that does nothing, in the template, until Python knows it well.

        It writes down in its code what it finds there, and in its caches of attributes: each fork
        would do so anew, and copy 130 pages for it.  A lasting worker learns in its first jobs.
        """
        if self.is_lasting:
            return
        computation, self._computation = self._computation, _nothing
        batch = b''.join(lane.encode_batch([0], [1], [dump_call((), {})]))
        try:
            for _ in range(_REHEARSALS):
                near, far = _socket.socketpair()
                near.send(batch)
                self._run_one(far.detach(), new_files(), os.getppid(), rehearsed=True)
                near.close()
        except OSError:  # no descriptors are left: forks will say so
            pass
        finally:
            self._computation, self._was_interrupted = computation, False

    def _begin(self, far: int, files: list[int], parent: int, setsid: Callable[[], object]) -> None:
        """Become a process of its own, and put its descriptors in their places."""
        ancestry.join_family(parent)
        setsid()
        self._pid = os.getpid()
        self._capture.begin(*files[:2])
        os.dup2(far, LANE, False)
        os.close(far)

    def _run_one(self, far: int, files: list[int], parent: int, rehearsed: bool = False) -> None:
        """Run one job; what it registered for the end of the process is run too."""
        self._begin(far, files, parent, _nothing if rehearsed else _setsid)
        if self._has_gpus and not rehearsed:
            use_gpus(lane.read_gpus(self._lane))
        for order in read_batch(self._lane):
            self._enter_directory()
            set_name(f'dispy job {order.job}')
            if not rehearsed:
                seed_generators(self._computation_id, order.job, order.attempt)
            self._run(order, _nothing if rehearsed else _at_exit)

    def _run_all(self, page: PageOfWorker) -> None:
        """Run job after job until the node closes the lane."""
        self._page = page
        allow_interrupts()
        ancestry.set_name('dispy worker')
        if self._has_gpus:
            use_gpus(lane.read_gpus(self._lane))
            self._surroundings.keep_variables()
        sweep, restore = self._surroundings.sweep, self._surroundings.restore
        while batch := lane.read_batch(self._lane):
            if not self._number:
                seed_generators(self._computation_id, *batch[0][:2])
            self._enter_directory()
            for order in batch:
                self._number += 1
                if not page.begins(self._number):
                    self._lane.job = self._number
                    self._lane.report(lane.SKIPPED, b'')
                    self._lane.drop_files(order.files)
                    continue
                if not self._run(order, sweep):
                    return
                try:
                    restore()
                except Exception as error:  # noqa: BLE001 - whatever the job did to them
                    self._leave(f'its surroundings could not be restored: {_in_words(error)}')
                    return
                if self._broke_import:
                    self._leave('it was interrupted in an import, and modules may be there by half')
                    return
                keep_reserve()

    def _enter_directory(self) -> None:
        """Be where jobs begin: another process may have removed it while this one waited."""
        try:
            enter(self._directory)
        except OSError:  # the job will notice
            pass

    def _leave(self, why: str) -> None:
        """Say why the next job would not find this process as the last one did."""
        self._lane.report(lane.LEAVING, why.encode(errors='backslashreplace'))

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        """Interrupt the job that the node means: by now a lasting worker may be in the next one."""
        if self._open_number and self._page.is_interrupted(self._open_number):
            self._broke_import = self._broke_import or _is_importing(frame)
            self._was_interrupted = True
            raise KeyboardInterrupt

    def _interrupted_alone(self, number: int, frame: FrameType | None) -> None:
        """Interrupt the only job of this process."""
        self._was_interrupted = True
        raise KeyboardInterrupt

    def _let_in_interrupts(self) -> None:
        """Let the job be interrupted, also by what came before it began.

        A lasting worker does without masking signals, which would cost two system calls a job.
        """
        if not self.is_lasting:
            allow_interrupts()
            return
        self._open_number = self._number
        self._was_interrupted = self._page.is_interrupted(self._number)
        if self._was_interrupted:
            raise KeyboardInterrupt

    def _keep_out_interrupts(self) -> None:
        if self.is_lasting:
            self._open_number = 0
        else:
            hold_interrupts()

    def _run(self, order: lane.Order, finish: Callable[[], None]) -> bool:
        """Run one job and report it; False if it could not begin, and this process has to go."""
        self._lane.job = order.job
        files: list[Any] = []
        payload: Any = order.payload
        if order.files:
            files = self._lane.mapped_files(order.files)
            if len(files) < order.files:
                self._leave('it has no descriptors left for large arguments')
                return False
            if order.payload_in_file:
                payload = files.pop(0)
        result: bytes | Packed
        started = perf_counter()
        try:
            try:
                self._let_in_interrupts()
                args, kwargs = self._load_arguments(payload, files)
                if kwargs is None:
                    result = run_chunk(self._computation, args, lambda: self._was_interrupted)
                else:
                    result = dump_result(self._computation(*args, **kwargs))
            finally:
                self._keep_out_interrupts()
            kind, exception = lane.RETURNED, ''
        except BaseException as error:  # noqa: BLE001 - user code: its client is told
            if isinstance(error, MemoryError):
                make_room()
            self._keep_out_interrupts()
            kind, result, exception = lane.RAISED, dump_exception(error), describe(error)
        seconds = perf_counter() - started
        if os.getpid() != self._pid:  # the job forked, and the copy came back as well
            os._exit(0)
        try:
            if seconds > LEAST_FORK_SECONDS or not self.is_lasting:
                finish()
        except BaseException as error:  # noqa: BLE001 - user code: it must not cost the outcome
            sys.stderr.write(f'{describe(error)}\n')
        try:
            outcome = self._outcome(result, exception)
        except MemoryError:
            make_room()
            kind, outcome = lane.RAISED, encode_failure(exception=exception or _NO_ROOM)
        self._lane.report(kind, outcome, seconds)
        return True

    def _load_arguments(
        self, payload: Any, files: list[Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any] | None]:
        modules = len(sys.modules)
        try:
            loaded = load_call(payload, files, self._bring)
        except BaseException as error:
            BaseException.add_note(error, 'its arguments could not be unpickled on the node')
            raise
        if len(sys.modules) > modules and not self.is_lasting:
            self.needs.tell(imported_since(modules))
        return loaded

    def _bring(self, depends: bytes) -> None:
        """Have the dependencies of this one job; `Surroundings` takes them away again."""
        self._surroundings.bring(load_depends(depends))

    def _outcome(self, result: bytes | Packed, exception: str) -> bytes | Packed:
        try:
            stdout, stderr = self._capture.take()
        except OSError:  # the job closed the files
            stdout, stderr = '', ''
        return encode_outcome(result, stdout, stderr, exception)


def _in_words(error: Exception) -> str:
    return f'{type(error).__name__}: {error}'


def _is_importing(frame: FrameType | None) -> bool:
    """Say whether a module is being imported by what runs."""
    while frame is not None:
        if frame.f_code.co_filename.startswith('<frozen importlib'):
            return True
        frame = frame.f_back
    return False


def _at_exit() -> None:
    """Do what Python does at its end, while its output still belongs to the job."""
    atexit._run_exitfuncs()
    ending = getattr(sys.modules.get('multiprocessing.util'), '_exit_function', None)
    if ending is not None:
        ending()


def seed_generators(computation: int, job: int, attempt: int) -> None:
    """Give each attempt random numbers of its own: forks would all draw the same ones.

    The computation's id is random, so that the next run draws others.
    """
    seed = computation << 64 | job << 16 | attempt
    super(random.Random, _shared_random).seed(seed)
    _shared_random.gauss_next = None  # type: ignore[attr-defined]
    numpy_random = sys.modules.get('numpy.random')
    if numpy_random is not None:
        numpy_random.seed([seed >> shift & 0xFFFFFFFF for shift in range(0, 128, 32)])
    torch = sys.modules.get('torch')
    if torch is not None:
        torch.manual_seed((seed ^ seed >> 64) & 0x7FFFFFFFFFFFFFFF)
