"""A worker: the process that runs one job, or job after job, and reports each at once.

lane ──▶ arguments ──▶ the user's function ──▶ result or exception, with output ──▶ lane
"""

import atexit
import io
import os
import random
import signal
import socket
import sys
from collections.abc import Callable
from time import perf_counter
from typing import NoReturn

from nodeserver.payload import Package, dump_result, load_call
from nodeserver.wire import lane
from nodeserver.wire.outcome import encode_outcome
from nodeserver.worker import ancestry, helpers
from nodeserver.worker.output import Capture, out_of_the_way
from nodeserver.worker.reporter import INTERRUPT, Reporter
from nodeserver.worker.surroundings import Surroundings
from nodeserver.worker.tracebacks import describe

_READ_BUFFER = 65536


def become(
    far: socket.socket,
    files: list[int],
    settings: lane.TemplateSettings,
    package: Package,
    parent: int,
) -> NoReturn:
    """Be a worker in a process just forked; the template's code is never returned to."""
    status = 1
    try:
        ancestry.join_family(parent)
        os.setsid()
        capture = Capture(*files)
        worker = Worker(socket.socket(fileno=out_of_the_way(far.detach())), package, capture)
        if settings.isolation == 'worker':
            ancestry.set_name('dispy worker')
            worker.run_all(Surroundings(settings.directory, capture))
        else:
            worker.run_one()
        status = 0
    except (BrokenPipeError, ConnectionResetError):  # the node is gone
        status = 0
    finally:
        os._exit(status)


class Worker:
    """Runs jobs of one computation in this process."""

    def __init__(self, far: socket.socket, package: Package, capture: Capture) -> None:
        self._stream = io.BufferedReader(socket.SocketIO(far, 'rb'), _READ_BUFFER)
        self._reporter = Reporter(far)
        self._computation = package.computation
        self._capture = capture
        self._pid = os.getpid()
        helpers.install_for_jobs(self._reporter)

    def run_one(self) -> None:
        """Run one job; what it registered for the end of the process is run too."""
        atexit._clear()  # the template's, which are not this job's
        for job, attempt, payload in lane.read_batch(self._stream):
            ancestry.set_name(f'dispy job {job}')
            self._run(job, attempt, payload, _at_exit)

    def run_all(self, surroundings: Surroundings) -> None:
        """Run job after job until the node closes the lane."""
        while batch := lane.read_batch(self._stream):
            for job, attempt, payload in batch:
                self._run(job, attempt, payload, surroundings.sweep)
                surroundings.restore()

    def _run(self, job: int, attempt: int, payload: bytes, finish: Callable[[], None]) -> None:
        self._reporter.job = job
        seed_generators(job, attempt)
        started = perf_counter()
        try:
            try:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPT)
                args, kwargs = load_call(payload)
                result = dump_result(self._computation(*args, **kwargs))
            finally:
                signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPT)
            kind, exception = lane.RETURNED, ''
        except BaseException as error:  # noqa: BLE001 - user code: its client is told
            signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPT)
            kind, result, exception = lane.RAISED, b'', describe(error)
        seconds = perf_counter() - started
        if os.getpid() != self._pid:  # the job forked, and the copy came back as well
            os._exit(0)
        finish()
        stdout, stderr = self._capture.take()
        self._reporter.report(kind, encode_outcome(result, stdout, stderr, exception), seconds)


def _at_exit() -> None:
    """Do what Python does at its end, while its output still belongs to the job."""
    atexit._run_exitfuncs()
    ending = getattr(sys.modules.get('multiprocessing.util'), '_exit_function', None)
    if ending is not None:
        ending()


def seed_generators(job: int, attempt: int) -> None:
    """Give each attempt random numbers of its own: forks would all draw the same ones."""
    random.seed(job << 32 | attempt)
    numpy_random = sys.modules.get('numpy.random')
    if numpy_random is not None:
        numpy_random.seed([job & 0xFFFFFFFF, job >> 32, attempt])
    torch = sys.modules.get('torch')
    if torch is not None:
        torch.manual_seed((job << 32 | attempt) & 0x7FFFFFFFFFFFFFFF)
