"""What is measured: each workload runs on one system and checks all its results.

A measure gets a `Case`, drives the case's system through the interface of `systems.base`, and
answers figures; the one called `value` is the workload's own.
"""

import gc
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import functions, systems
from benchmarks.systems.base import WORKERS, Session, System

Figures = dict[str, float]

SHORT = 0.005
LONG = 0.5
TINY = 0.001
NAP = 0.05
HANG_SECONDS = 8.0  # past the ideal end; what has not come back by then is taken for lost
MEGABYTES = 10
SHARED_MEGABYTES = 100
SETUP_MEGABYTES = 2000


@dataclass(frozen=True)
class Case:
    """One workload on one system."""

    system: str
    count: int

    def load(self) -> System:
        """Import what drives the system."""
        return systems.load(self.system)

    @contextmanager
    def session(self, function: Callable[..., Any], *warmup: Any) -> Iterator[Session]:
        """Run the system; the block begins when it has run the function once."""
        with self.load() as system, system.open(function) as session:
            session.results([warmup] * WORKERS)
            yield session


@dataclass(frozen=True)
class Workload:
    """A kind of work: who can do it, how much of it there is, and what its figure means."""

    title: str
    unit: str
    measure: Callable[[Case], Figures]
    systems: tuple[str, ...]
    count: int
    counts: dict[str, int] = field(default_factory=dict)  # for systems that are much slower
    least: int = 20
    more_is_better: bool = True
    baseline: str = 'pool'
    rounds: int = 99  # at most; fewer where a round takes long and varies little
    digits: int = 0

    def amount(self, system: str, scale: float) -> int:
        """How many jobs a system gets."""
        full = self.counts.get(system, self.count)
        return max(min(self.least, full), int(full * scale))


def expect(found: Any, wanted: Any) -> None:
    """Stop the measurement on a result that is missing or wrong."""
    if found != wanted:
        raise AssertionError(f'wrong results: {str(found)[:200]} instead of {str(wanted)[:200]}')


# many


def submits(case: Case) -> Figures:
    """Submit jobs that do nothing, one by one; jobs per second until all results are here."""
    rows = [(number,) for number in range(case.count)]
    with case.session(functions.same, 0) as session:
        began = time.perf_counter()
        found = session.results(rows)
        seconds = time.perf_counter() - began
    expect(found, list(range(case.count)))
    return {'value': case.count / seconds}


def bulk(case: Case) -> Figures:
    """Map a function that does nothing; calls per second."""
    values = list(range(case.count))
    with case.session(functions.same, 0) as session:
        session.map(values[:WORKERS])
        began = time.perf_counter()
        found = session.map(values)
        seconds = time.perf_counter() - began
    expect(found, values)
    return {'value': case.count / seconds}


def million(case: Case) -> Figures:
    """Queue a million jobs that do nothing, and have them all done; seconds, and bytes per job."""
    rows = ((number,) for number in range(case.count))
    with case.session(functions.same, 0) as session:
        before = _resident()
        began = time.perf_counter()
        found = session.results(rows)
        seconds = time.perf_counter() - began
        peak = _memory('VmHWM')
    expect(found, list(range(case.count)))
    return {'value': seconds, 'peak bytes/job': (peak - before) / case.count}


# one


def lone(case: Case) -> Figures:
    """Submit a job that does nothing and wait for it, again and again; microseconds for one."""
    times = []
    with case.session(functions.same, 0) as session:
        for number in range(case.count):
            began = time.perf_counter()
            found = session.result(session.submit(number))
            times.append(time.perf_counter() - began)
            expect(found, number)
    times.sort()
    return {
        'value': statistics.median(times) * 1e6,
        'p99 us': times[int(0.99 * len(times))] * 1e6,
    }


# lengths


def beside(case: Case) -> Figures:
    """Run jobs of 5 ms beside a thread that keeps the program's interpreter busy; time : ideal."""
    rows = [(SHORT, number) for number in range(case.count)]
    with case.session(functions.nap, 0.0, 0) as session, _busy_thread():
        began = time.perf_counter()
        found = session.results(rows)
        seconds = time.perf_counter() - began
    expect(found, list(range(case.count)))
    return {'value': seconds / (case.count * SHORT / WORKERS)}


@contextmanager
def _busy_thread() -> Iterator[None]:
    stop = threading.Event()

    def turn() -> None:
        while not stop.is_set():
            for _ in range(1000):
                pass

    thread = threading.Thread(target=turn, name='busy')
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def short(case: Case) -> Figures:
    """Run jobs that compute for 5 ms in pure Python; ideal : time."""
    rows = [(SHORT, number) for number in range(case.count)]
    with case.session(functions.spin, 0.0, 0) as session:
        began = time.perf_counter()
        found = session.results(rows)
        seconds = time.perf_counter() - began
    expect(found, list(range(case.count)))
    return {'value': case.count * SHORT / WORKERS / seconds}


def mixed(case: Case) -> Figures:
    """Run jobs of 1 ms and of 500 ms in random order; time : greedy placement in that order."""
    lengths = [TINY] * (case.count - case.count // 10) + [LONG] * (case.count // 10)
    random.Random(1).shuffle(lengths)
    rows = [(length, number) for number, length in enumerate(lengths)]
    with case.session(functions.nap, 0.0, 0) as session:
        began = time.perf_counter()
        found = session.results(rows)
        seconds = time.perf_counter() - began
    expect(found, list(range(case.count)))
    return {'value': seconds / greedy(lengths)}


def greedy(lengths: Sequence[float]) -> float:
    """When the last job ends if each goes to the worker that is free first."""
    ends = [0.0] * WORKERS
    for length in lengths:
        ends[ends.index(min(ends))] += length
    return max(ends)


# large values


def arrays(case: Case) -> Figures:
    """Send arrays of 10 MB and get them back; megabytes per second, both ways counted."""
    numpy = _numpy()
    size = MEGABYTES * 125_000
    given = [numpy.full(size, number, dtype='f8') for number in range(case.count)]
    with case.session(functions.same, given[0][:10]) as session:
        session.large([(given[0][:10],)] * WORKERS)
        began = time.perf_counter()
        found = session.large([(array,) for array in given])
        seconds = time.perf_counter() - began
        for number, array in enumerate(found):
            expect((array.shape, array.min(), array.max()), ((size,), number, number))
    return {'value': 2 * MEGABYTES * case.count / seconds}


def shared(case: Case) -> Figures:
    """Place one array of 100 MB for many jobs, by the system's own means; seconds in all."""
    return _with_large_array(case, lambda session, array: session.share(array))


def repeated(case: Case) -> Figures:
    """Pass one array of 100 MB to each of many jobs; seconds in all."""
    return _with_large_array(case, lambda session, array: array)


def _with_large_array(case: Case, place: Callable[[Session, Any], Any]) -> Figures:
    array = _numpy().arange(SHARED_MEGABYTES * 125_000, dtype='f8')
    indexes = [number * 1000 for number in range(case.count)]
    with case.session(functions.pick, array[:10], 0) as session:
        session.large([(array[:10], 0)] * WORKERS)
        began = time.perf_counter()
        placed = place(session, array)
        found = session.large([(placed, index) for index in indexes])
        seconds = time.perf_counter() - began
    expect(found, indexes)
    return {'value': seconds}


def _numpy() -> Any:
    return import_module('numpy')  # only here: it would slow the start of all others


def in_memory(case: Case) -> Figures:
    """Run jobs one by one beside an array that `setup` loaded; milliseconds until one begins."""
    size = min(SETUP_MEGABYTES, case.count * 50)
    waits: list[float] = []
    own: list[int] = []
    system: Any = case.load()
    with system, system.open(functions.look, setup=partial(functions.fill, size)) as session:
        session.results([(0,)] * WORKERS)
        for number in range(case.count):
            submitted = time.time()
            began, memory, element = session.result(session.submit(number * 1000))
            expect(element, 1.0)
            waits.append(began - submitted)
            own.append(memory)
            time.sleep(NAP)  # so that the next process is ready, as it is between longer jobs
    return {
        'value': max(waits) * 1e3,
        'median ms': statistics.median(waits) * 1e3,
        'own MB': max(own) / 1e6,
    }


# starting


def start(case: Case) -> Figures:
    """Start everything and get a first result; seconds after the import."""
    began = time.perf_counter()
    system = case.load()
    imported = time.perf_counter()
    with system, system.open(functions.same) as session:
        (found,) = session.results([(7,)])
        ended = time.perf_counter()
    expect(found, 7)
    return {'value': ended - imported, 'import s': imported - began}


def program(case: Case) -> Figures:
    """Run a new program beside a node that runs already; seconds from import to first result."""
    system: Any = case.load()
    with system:
        ((address, port),) = system.nodes
        command = [sys.executable, '-m', 'benchmarks.newcomer', case.system, address, str(port)]
        ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return {'value': float(ended.stdout)}


# memory


def queued(case: Case) -> Figures:
    """Queue jobs while all workers are busy; bytes of the program's memory for each."""
    with tempfile.TemporaryDirectory() as directory:
        gate = Path(directory, 'gate')
        with case.session(functions.held, '', 0) as session:
            handles = [session.submit(str(gate), number) for number in range(WORKERS)]
            try:
                gc.collect()
                before = _resident()
                for number in range(case.count):
                    handles.append(session.submit('', number))
                after = _settled_memory()
            finally:
                gate.touch()
            found = [session.result(handle) for handle in handles]
    expect(found, [*range(WORKERS), *range(case.count)])
    return {'value': (after - before) / case.count}


def _memory(name: str) -> int:
    """Bytes of this process under that name of the kernel's."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(f'{name}:'):
            return int(line.split()[1]) * 1024
    raise LookupError(f'the kernel does not tell {name}')


def _resident() -> int:
    return _memory('VmRSS')


def _settled_memory() -> int:
    """What the process uses once its threads have taken over what was queued."""
    before, now = 0, _resident()
    while now > before + 100_000:
        time.sleep(0.2)
        before, now = now, _resident()
    return now


# death


def killed(case: Case) -> Figures:
    """Run jobs of 50 ms, one of which kills its worker; how many come back, and seconds lost."""
    ideal = case.count * NAP / WORKERS
    found: list[int] = []
    with tempfile.TemporaryDirectory() as directory:
        marker = Path(directory, 'died')
        with case.session(functions.nap_or_die, 0.0, 0, '') as session:
            began = time.perf_counter()
            handles = [
                session.submit(NAP, number, str(marker) if number == case.count // 4 else '')
                for number in range(case.count)
            ]
            end = began + ideal + HANG_SECONDS
            for handle in handles:
                found += _result_in_time(session, handle, end)
            seconds = time.perf_counter() - began
            if not marker.exists():
                raise AssertionError('no worker was killed')
    if not set(found) <= set(range(case.count)) or len(set(found)) != len(found):
        raise AssertionError(f'results that nobody asked for: {found}')
    return {'value': float(len(found)), 'seconds lost': seconds - ideal}


def _result_in_time(session: Session, handle: Any, end: float) -> list[int]:
    """A result, or nothing where the system has none: broken, or not there in time."""
    try:
        return [session.result(handle, max(0.01, end - time.perf_counter()))]
    except Exception:  # noqa: BLE001 - each system has errors of its own
        return []
