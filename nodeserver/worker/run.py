"""A worker: the process that runs one job, or job after job, and reports each at once.

lane ──▶ arguments ──▶ the user's function ──▶ result or exception, with output ──▶ lane
"""

import atexit
import contextlib
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
from nodeserver.payload import Package, dump_result, load_call
from nodeserver.wire import lane
from nodeserver.wire.outcome import encode_outcome
from nodeserver.worker import ancestry
from nodeserver.worker.lanefile import LaneFile, allow_interrupts, hold_interrupts
from nodeserver.worker.output import LANE, ORDERS, Capture
from nodeserver.worker.surroundings import Surroundings, enter
from nodeserver.worker.tracebacks import describe

# the generator behind the functions of `random`; its own `seed` in C is 2 µs quicker
_shared_random: random.Random = getattr(random.seed, '__self__', random.Random())

_ANY = (0, 0)  # job and attempt


class Worker:
    """Runs jobs of one computation: made in the template, `become` in each of its forks."""

    def __init__(
        self, settings: lane.TemplateSettings, package: Package, file: LaneFile, capture: Capture
    ) -> None:
        self.is_lasting = settings.isolation == 'worker'
        self._directory = settings.directory
        self._computation_id = settings.computation
        self._computation = package.computation
        self._lane, self._capture = file, capture
        self._surroundings = Surroundings(settings.directory, capture, package.computation)
        self._pid = 0
        self._current = _ANY

    def become(self, far: int, files: list[int], parent: int) -> NoReturn:
        """Be a worker in a process just forked; the template's code is never returned to."""
        status = 1
        try:
            ancestry.join_family(parent)
            os.setsid()
            self._pid = os.getpid()
            self._capture.begin(*files[:2])
            os.dup2(far, LANE, False)
            os.close(far)
            self._lane.fd = LANE
            if self.is_lasting:
                self._heed_orders(files[2])
                self._run_all()
            else:
                self._run_one()
            status = 0
        except (BrokenPipeError, ConnectionResetError):  # the node is gone
            status = 0
        except OSError as error:
            if error.errno == errno.EBADF:
                status = UNREPORTABLE
        finally:
            os._exit(status)

    def _run_one(self) -> None:
        """Run one job; what it registered for the end of the process is run too."""
        atexit._clear()  # the template's, which are not this job's
        for order in lane.read_batch(self._lane):
            self._enter_directory()
            ancestry.set_name(f'dispy job {order.job}')
            self._run(order, _at_exit)

    def _run_all(self) -> None:
        """Run job after job until the node closes the lane."""
        ancestry.set_name('dispy worker')
        while batch := lane.read_batch(self._lane):
            self._enter_directory()
            for order in batch:
                if not self._run(order, self._surroundings.sweep):
                    return
                if trouble := self._trouble_in_restoring():
                    self._lane.report(lane.LEAVING, trouble.encode(errors='backslashreplace'))
                    return

    def _enter_directory(self) -> None:
        """Be where jobs begin: another process may have removed it while this one waited."""
        with contextlib.suppress(OSError):  # what cannot be entered, the job will notice
            enter(self._directory)

    def _trouble_in_restoring(self) -> str:
        """Put back what the job changed; a text says why the next job would not find it so."""
        try:
            self._surroundings.restore()
        except Exception as error:  # noqa: BLE001 - whatever the job did to them
            return f'its surroundings could not be restored: {type(error).__name__}: {error}'
        return ''

    def _heed_orders(self, file: int) -> None:
        os.dup2(file, ORDERS, False)
        os.close(file)
        signal.signal(signal.SIGINT, self._interrupted)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        """Interrupt the job that the node means: by now this process may be in the next one."""
        order = os.pread(ORDERS, lane.INTERRUPT_ORDER.size, 0)
        if not order or lane.INTERRUPT_ORDER.unpack(order) in (_ANY, self._current):
            raise KeyboardInterrupt

    def _run(self, order: lane.Order, finish: Callable[[], None]) -> bool:
        """Run one job and report it; False if it could not begin, and this process has to go."""
        self._lane.job, self._current = order.job, (order.job, order.attempt)
        files: list[Any] = self._lane.mapped_files(order.files) if order.files else []
        if len(files) < order.files:
            self._lane.report(lane.LEAVING, b'it has no descriptors left for large arguments')
            return False
        payload = files.pop(0) if order.payload_in_file else order.payload
        seed_generators(self._computation_id, order.job, order.attempt)
        started = perf_counter()
        try:
            try:
                allow_interrupts()
                args, kwargs = load_call(payload, files)
                result = dump_result(self._computation(*args, **kwargs))
            finally:
                hold_interrupts()
            kind, exception = lane.RETURNED, ''
        except BaseException as error:  # noqa: BLE001 - user code: its client is told
            hold_interrupts()
            kind, result, exception = lane.RAISED, b'', describe(error)
        seconds = perf_counter() - started
        if os.getpid() != self._pid:  # the job forked, and the copy came back as well
            os._exit(0)
        _report_trouble_in(finish)
        try:
            stdout, stderr = self._capture.take()
        except OSError:  # the job closed the files
            stdout, stderr = '', ''
        self._lane.report(kind, encode_outcome(result, stdout, stderr, exception), seconds)
        return True


def _report_trouble_in(finish: Callable[[], None]) -> None:
    try:
        finish()
    except BaseException as error:  # noqa: BLE001 - user code: it must not cost the outcome
        sys.stderr.write(f'{describe(error)}\n')


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
