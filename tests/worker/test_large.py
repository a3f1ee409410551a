"""Large payloads between a node and its jobs: in files, or over the socket if need be."""

import contextlib
import fcntl
import gc
import os
import signal
from pathlib import Path
from typing import Any

import numpy
import pytest

from nodeserver.core.effects import GiveJobs
from nodeserver.core.events import JobsReported, TemplateReady, WorkerEnded
from nodeserver.io import sealedfile
from nodeserver.io.sealedfile import SealedFile
from nodeserver.payload import dump_call, load_result
from nodeserver.wire.outcome import decode_outcome
from tests.support.scarcity import descriptors_below
from tests.worker.rig import COMPUTATION, Bench, Ran, on_bench

both = pytest.mark.parametrize('isolation', ['job', 'worker'])
COUNT = 500_000
SIZE = 8 * COUNT


def shared_file(array: Any) -> SealedFile:
    return sealedfile.sealed([memoryview(array).cast('B')], 'test')


def open_files() -> int:
    return len(list(Path('/proc/self/fd').iterdir()))


def call_with(array: Any) -> bytes:
    """The payload of a call whose argument is the job's first shared data."""

    def divert(buffer: memoryview, named: list[int]) -> int:
        named[:] = [1]
        return 1

    return dump_call((array,), {}, (), divert, [])


async def ended(bench: Bench, worker: int, isolation: str) -> Ran:
    return (
        (await bench.reports(worker, 1))[0]
        if isolation == 'worker'
        else (await bench.end_of(worker))
    )


def run_shared(prefix: Path, isolation: str, function: Any, *shared: Any) -> list[Ran]:
    """Run a job for each file, one after the other, each on the same array."""
    payload = call_with(numpy.zeros(COUNT))

    async def play(bench: Bench) -> list[Ran]:
        assert isinstance(await bench.open(function, isolation), TemplateReady)
        rans, worker = [], 0
        for number, data in enumerate(shared, 1):
            if not worker or isolation == 'job':
                worker = await bench.worker()
            effect = GiveJobs(COMPUTATION, worker, [number], [1], [payload], [[data]])
            bench.processes.give_jobs(effect)
            rans.append(await ended(bench, worker, isolation))
        return rans

    found: list[Ran] = on_bench(prefix, play)
    return found


def add_one(array: Any) -> Any:
    array += 1
    return array


@both
def test_each_job_may_write_to_its_own_and_others_see_nothing_of_it(
    tmp_path: Path, isolation: str
) -> None:
    file = shared_file(numpy.arange(COUNT, dtype=float))
    for ran in run_shared(tmp_path, isolation, add_one, file, file, file):
        result = ran.result
        assert (result[0], result[-1]) == (1, COUNT)
    assert numpy.frombuffer(file.mapped(), float)[0] == 0


@both
def test_small_shared_data_need_no_file(tmp_path: Path, isolation: str) -> None:
    array = numpy.arange(COUNT, dtype=float)
    (ran,) = run_shared(tmp_path, isolation, add_one, array.tobytes())
    assert ran.result[-1] == COUNT


def test_a_large_result_comes_as_a_sealed_file_and_leaves_no_descriptor(tmp_path: Path) -> None:
    def make(size: int) -> bytes:
        return bytes(size)

    async def play(bench: Bench) -> int:
        await bench.open(make, 'worker')
        worker = await bench.worker()
        before = open_files()
        for _ in range(20):
            bench.give(worker, (SIZE,))
            (ran,) = await bench.reports(worker, 1)
            assert not isinstance(ran.pickled, bytes)
            assert ran.result == bytes(SIZE)
            del ran
        gc.collect()
        return open_files() - before

    assert on_bench(tmp_path, play) <= 1


@both
def test_results_are_writable_arrays(tmp_path: Path, isolation: str) -> None:
    async def play(bench: Bench) -> Ran:
        await bench.open(lambda n: (numpy.ones(n), b'x' * n), isolation)
        return await ended(bench, await bench.start(COUNT), isolation)

    array, text = on_bench(tmp_path, play).result
    array += 1
    assert array.sum() == 2 * COUNT
    assert text == b'x' * COUNT


def test_a_job_without_free_descriptors_reports_over_the_socket(tmp_path: Path) -> None:
    def greedy(size: int) -> bytes:
        while True:
            try:
                os.open('/dev/null', os.O_RDONLY)
            except OSError:
                return b'x' * size

    async def play(bench: Bench) -> Ran:
        await bench.open(greedy)
        return await bench.run(SIZE)

    assert on_bench(tmp_path, play).result == b'x' * SIZE


def test_a_job_that_took_all_descriptors_costs_the_next_one_nothing(tmp_path: Path) -> None:
    """A lasting worker that cannot take a large argument any more leaves it to another one."""

    def work(array: Any) -> float:
        last = float(array[-1])
        with contextlib.suppress(OSError):
            while True:
                os.open('/dev/null', os.O_RDONLY)
        return last

    payload = call_with(numpy.zeros(COUNT))
    file = shared_file(numpy.ones(COUNT))

    async def play(bench: Bench) -> tuple[Ran, WorkerEnded]:
        await bench.open(work, 'worker')
        worker = await bench.worker()
        for number in (1, 2):
            effect = GiveJobs(COMPUTATION, worker, [number], [1], [payload], [[file]])
            bench.processes.give_jobs(effect)
        (ran,) = await bench.reports(worker, 1)
        return ran, await bench.until_type(WorkerEnded)

    ran, end = on_bench(tmp_path, play)
    assert ran.result == 1
    assert not end.begun
    assert 'descriptors' in end.reason


def test_a_node_without_free_descriptors_says_so_of_the_result(tmp_path: Path) -> None:
    async def play(bench: Bench) -> Ran:
        await bench.open(lambda n: b'x' * n)
        worker = await bench.worker()
        bench.give(worker, (SIZE,))
        with descriptors_below(1):
            event = await bench.until_type(JobsReported)
        outcome, _ = decode_outcome(event.outcomes[0])
        return Ran(outcome, b'', event.raised[0], True)

    ran = on_bench(tmp_path, play)
    assert ran.raised
    assert 'large result could not be taken: the node has no descriptors' in ran.outcome.exception


def test_a_file_that_is_not_sealed_is_refused() -> None:
    fd = os.memfd_create('x', 3)
    os.write(fd, b'abc')
    with pytest.raises(OSError, match='not sealed'):
        sealedfile.taken_over(fd)


def test_nobody_can_change_what_a_job_was_given() -> None:
    file = shared_file(numpy.zeros(COUNT))
    with pytest.raises(PermissionError):
        os.write(file.fd, b'x')
    with pytest.raises(PermissionError):
        os.ftruncate(file.fd, 10)
    with pytest.raises(PermissionError):
        fcntl.fcntl(file.fd, 1033, 0)


@pytest.mark.parametrize('how', ['kill', 'close'])
def test_a_worker_that_dies_with_large_payloads_under_way_leaves_nothing(
    tmp_path: Path, how: str
) -> None:
    def die(array: Any, how: str) -> Any:
        if how == 'kill':
            os.kill(os.getpid(), signal.SIGKILL)
        os.closerange(3, 4096)
        return array

    def divert(buffer: memoryview, named: list[int]) -> int:
        return 1

    payload = dump_call((numpy.zeros(COUNT), how), {}, (), divert, [])
    file = shared_file(numpy.zeros(COUNT))

    async def play(bench: Bench) -> WorkerEnded:
        await bench.open(die)
        worker = await bench.worker()
        effect = GiveJobs(COMPUTATION, worker, [1], [1], [payload], [[file]])
        bench.processes.give_jobs(effect)
        end: WorkerEnded = await bench.until_type(WorkerEnded)
        return end

    end = on_bench(tmp_path, play)
    assert end.begun
    assert end.exit_status == (-signal.SIGKILL if how == 'kill' else 0) or how == 'close'


def test_large_payloads_of_a_worker_that_never_reads_are_let_go(tmp_path: Path) -> None:
    file = shared_file(numpy.zeros(COUNT))
    payload = call_with(numpy.zeros(COUNT))

    async def play(bench: Bench) -> WorkerEnded:
        await bench.open(lambda array: 0)
        worker = await bench.worker()
        pid = bench.processes._worker(COMPUTATION, worker).pid  # type: ignore[union-attr]
        os.kill(pid, signal.SIGSTOP)
        effect = GiveJobs(COMPUTATION, worker, [1], [1], [payload], [[file]])
        bench.processes.give_jobs(effect)
        os.kill(pid, signal.SIGKILL)
        end: WorkerEnded = await bench.until_type(WorkerEnded)
        return end

    assert not on_bench(tmp_path, play).begun


def test_load_of_what_cannot_be_written_is_a_copy() -> None:
    from nodeserver.payload import dump_result

    packed = dump_result(numpy.ones(10_000))
    assert not isinstance(packed, bytes)
    array = load_result(packed.join())
    array += 1
    assert array[0] == 2
