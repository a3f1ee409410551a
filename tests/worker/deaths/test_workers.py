"""Deaths of workers, of what jobs leave, and of those that have not begun."""

import asyncio
import ctypes
import importlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from nodeserver.core.deaths import describe_death
from nodeserver.core.effects import (
    SignalWorker,
)
from nodeserver.core.events import (
    Event,
    JobsReported,
    TemplateReady,
    WorkerEnded,
)
from tests.worker.deaths.watch import (
    alive,
    both,
    first_provisional,
    gone,
    leave_children,
    sleep_and_tell,
)
from tests.worker.rig import COMPUTATION, Bench, Ran, on_bench, run_job


def exit_hard() -> None:
    print('last words')
    sys.stdout.flush()
    os._exit(5)


def crash() -> None:
    print('last words', flush=True)
    ctypes.string_at(0)


def kill_self() -> None:
    print('last words', flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ('way', 'status'),
    [(exit_hard, 5), (crash, -signal.SIGSEGV), (kill_self, -signal.SIGKILL)],
)
@both
def test_death_in_a_job_tells_status_and_last_words(
    tmp_path: Path, isolation: str, way: Any, status: int
) -> None:
    async def play(made: Bench) -> Ran:
        assert isinstance(await made.open(way, isolation), TemplateReady)
        return await made.end_of(await made.start())

    ran = on_bench(tmp_path, play)
    assert not ran.reported
    assert ran.exit_status == status
    assert ran.outcome.stdout == 'last words\n'
    assert ('Segmentation fault' in ran.outcome.stderr) == (way is crash)


def test_lasting_worker_that_dies_has_reported_the_jobs_before(tmp_path: Path) -> None:
    def work(x: int) -> int:
        if x == 3:
            print('dying', flush=True)
            os._exit(9)
        return x

    async def play(made: Bench) -> tuple[list[Event], WorkerEnded]:
        await made.open(work, 'worker')
        worker = await made.worker()
        made.give(worker, *[(x,) for x in range(6)])
        ended = await made.until_type(WorkerEnded)
        return list(made.events), ended

    events, ended = on_bench(tmp_path, play)
    reported = [job for event in events if isinstance(event, JobsReported) for job in event.ids]
    assert reported == [1, 2, 3]
    assert ended.exit_status == 9
    assert b'dying' in ended.outcome


def test_worker_killed_by_pid_ends(tmp_path: Path) -> None:
    def work() -> None:
        dispy_provisional_result(os.getpid())  # type: ignore[name-defined]  # noqa: F821
        time.sleep(60)

    async def play(made: Bench) -> Ran:
        await made.open(work)
        worker = await made.start()
        os.kill(await first_provisional(made), signal.SIGKILL)
        return await made.end_of(worker)

    ran = on_bench(tmp_path, play)
    assert ran.exit_status == -signal.SIGKILL
    assert not ran.reported


@both
def test_interrupt_is_raised_in_the_jobs_code(tmp_path: Path, isolation: str) -> None:
    async def play(made: Bench) -> Any:
        await made.open(sleep_and_tell, isolation)
        worker = await made.start()
        await first_provisional(made)
        made.processes.signal_worker(SignalWorker(COMPUTATION, worker, signal.SIGINT))
        return (await made.reports(worker, 1))[0]

    assert on_bench(tmp_path, play).result == 'interrupted'


def test_worker_that_was_interrupted_in_an_import_leaves(tmp_path: Path) -> None:
    (tmp_path / 'slow_module.py').write_text(
        'import os, time\ndispy_provisional_result(os.getpid())\ntime.sleep(60)\n'
    )

    def work(directory: str) -> None:
        sys.path.insert(0, directory)
        importlib.import_module('slow_module')

    async def play(made: Bench) -> Ran:
        await made.open(work, 'worker')
        worker = await made.start(str(tmp_path))
        await first_provisional(made)
        made.processes.signal_worker(SignalWorker(COMPUTATION, worker, signal.SIGINT))
        return await made.end_of(worker)

    ran = on_bench(tmp_path, play)
    assert ran.raised
    assert 'KeyboardInterrupt' in ran.outcome.exception


def test_interrupt_of_a_job_that_has_ended_leaves_the_next_one_alone(tmp_path: Path) -> None:
    def work() -> str:
        dispy_provisional_result(os.getpid())  # type: ignore[name-defined]  # noqa: F821
        for _ in range(20):
            time.sleep(0.01)
        return 'left alone'

    async def play(made: Bench) -> Any:
        await made.open(work, 'worker')
        worker = await made.start()  # job 1
        await first_provisional(made)
        for number in (7, 2):
            order = SignalWorker(COMPUTATION, worker, signal.SIGINT, number)
            made.processes.signal_worker(order)
            await asyncio.sleep(0.03)
        return (await made.reports(worker, 1))[0]

    assert on_bench(tmp_path, play).result == 'left alone'


def test_interrupt_sent_before_the_job_began_is_not_lost(tmp_path: Path) -> None:
    def work() -> None:
        time.sleep(60)

    async def play(made: Bench) -> Ran:
        await made.open(work)
        worker = await made.start()
        made.processes.signal_worker(SignalWorker(COMPUTATION, worker, signal.SIGINT))
        return await made.end_of(worker)

    ran = on_bench(tmp_path, play)
    assert ran.raised
    assert ran.outcome.exception.endswith('KeyboardInterrupt')


def test_job_that_ignores_interrupts_is_terminated_and_killed(tmp_path: Path) -> None:
    def work(deaf_to: list[int]) -> None:
        for number in deaf_to:
            signal.signal(number, signal.SIG_IGN)
        dispy_provisional_result(os.getpid())  # type: ignore[name-defined]  # noqa: F821
        while True:
            time.sleep(0.01)

    async def play(made: Bench) -> list[int | None]:
        await made.open(work)
        statuses = []
        for last in (signal.SIGTERM, signal.SIGKILL):
            ladder = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
            deaf_to = ladder[: ladder.index(last)]
            worker = await made.start(deaf_to)
            await first_provisional(made)
            for number in [*deaf_to, last]:
                made.processes.signal_worker(SignalWorker(COMPUTATION, worker, number))
            statuses.append((await made.end_of(worker)).exit_status)
        return statuses

    assert on_bench(tmp_path, play) == [-signal.SIGTERM, -signal.SIGKILL]


@both
def test_processes_left_by_a_job_are_gone_after_it(tmp_path: Path, isolation: str) -> None:
    async def play(made: Bench) -> list[bool]:
        await made.open(leave_children, isolation)
        worker = await made.start(False)
        pids = (await made.reports(worker, 1))[0].result
        return [await gone(pid) for pid in pids]

    assert on_bench(tmp_path, play) == [True, True]


def test_kill_takes_the_jobs_whole_tree_and_no_other_job(tmp_path: Path) -> None:
    async def play(made: Bench) -> tuple[list[bool], list[bool]]:
        await made.open(leave_children)
        one = await made.start(True)
        pids = await first_provisional(made)
        two = await made.start(True)
        others = await first_provisional(made)
        made.processes.signal_worker(SignalWorker(COMPUTATION, one, signal.SIGKILL))
        await made.end_of(one)
        dead = [await gone(pid) for pid in pids]
        living = [alive(pid) for pid in others]
        made.processes.signal_worker(SignalWorker(COMPUTATION, two, signal.SIGKILL))
        await made.end_of(two)
        return dead, living

    assert on_bench(tmp_path, play) == ([True, True], [True, True])


def test_worker_ends_by_itself_after_its_job(tmp_path: Path) -> None:
    ran = run_job(tmp_path, abs, -3)
    assert ran.result == 3
    assert ran.exit_status == 0


def test_jobs_for_a_worker_that_has_just_died_are_answered_by_its_end(tmp_path: Path) -> None:
    async def play(made: Bench) -> Ran:
        await made.open(abs)
        worker = await made.worker()
        made.processes.signal_worker(SignalWorker(COMPUTATION, worker, signal.SIGKILL))
        made.give(worker, (-1,))
        return await made.end_of(worker)

    ran = on_bench(tmp_path, play)
    assert not ran.reported
    assert ran.exit_status == -signal.SIGKILL


def count_and_stay(witness: str) -> None:
    with open(witness, 'a') as file:  # noqa: PTH123
        file.write('began\n')
    time.sleep(60)


@both
def test_jobs_that_were_never_read_are_told_from_one_that_began(
    tmp_path: Path, isolation: str
) -> None:
    async def play(made: Bench) -> list[bool]:
        await made.open(count_and_stay, isolation)
        begun = []
        for killed_when in ('dead', 'stopped', 'running'):
            worker = await made.worker()
            end_of_it = next(iter(made.processes._templates.values())).workers[worker]
            witness = tmp_path / killed_when
            if killed_when == 'dead':
                os.kill(end_of_it.pid, signal.SIGKILL)
                while alive(end_of_it.pid):
                    time.sleep(0.001)  # noqa: ASYNC251 - the node shall not hear of it yet
            elif killed_when == 'stopped':
                os.kill(end_of_it.pid, signal.SIGSTOP)
            made.give(worker, *[(str(witness),)] * (1 if isolation == 'job' else 2))
            if killed_when == 'running':
                while not witness.exists():  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
            if killed_when != 'dead':
                os.kill(end_of_it.pid, signal.SIGKILL)
            begun.append((await made.until_type(WorkerEnded)).begun)
            assert witness.exists() is begun[-1]
        return begun

    assert on_bench(tmp_path / 'prefix', play) == [False, False, True]


def test_a_worker_that_dies_in_a_job_with_others_unread_behind_it_had_begun(
    tmp_path: Path,
) -> None:
    def work(witness: str) -> None:
        Path(witness).touch()
        time.sleep(60)

    async def play(made: Bench) -> bool:
        await made.open(work, 'worker')
        worker = await made.start(str(tmp_path / 'began'))
        while not (tmp_path / 'began').exists():  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        made.give(worker, ('never',))
        made.processes.signal_worker(SignalWorker(COMPUTATION, worker, signal.SIGKILL))
        begun: bool = (await made.until_type(WorkerEnded)).begun
        return begun

    assert on_bench(tmp_path / 'prefix', play)


@both
def test_a_job_that_closes_every_descriptor_is_told_so(tmp_path: Path, isolation: str) -> None:
    def work() -> None:
        os.closerange(0, 65536)

    async def play(made: Bench) -> Ran:
        assert isinstance(await made.open(work, isolation), TemplateReady)
        return await made.end_of(await made.start())

    ran = on_bench(tmp_path, play)
    assert not ran.reported
    assert ran.exit_status is not None
    assert describe_death(ran.exit_status) == (
        'its result could not be reported: it closed the channel to its node'
    )


def remove_own_directory(number: int) -> str:
    here = str(Path.cwd())
    if number == 0:
        shutil.rmtree(here)
    else:
        Path('file').write_text('mine')
    return here


@both
def test_the_directory_removed_by_a_job_is_there_for_the_next_one(
    tmp_path: Path, isolation: str
) -> None:
    async def play(made: Bench) -> list[Any]:
        await made.open(remove_own_directory, isolation)
        workers = [await made.worker() for _ in range(3)]  # of which two wait in it meanwhile
        return [await run_on(made, worker, number) for number, worker in enumerate(workers)]

    async def run_on(made: Bench, worker: int, number: int) -> Ran:
        made.give(worker, (number,))
        return (await made.reports(worker, 1))[0]

    first, second, third = on_bench(tmp_path, play)
    assert first.result == second.result == third.result


def test_a_lasting_worker_makes_its_removed_directory_again(tmp_path: Path) -> None:
    async def play(made: Bench) -> list[Ran]:
        await made.open(remove_own_directory, 'worker')
        worker = await made.worker()
        made.give(worker, (0,), (1,), (2,))
        return await made.reports(worker, 3)

    first, second, third = on_bench(tmp_path, play)
    assert first.result == second.result == third.result


def test_a_worker_that_cannot_restore_its_surroundings_leaves_with_its_jobs_unbegun(
    tmp_path: Path,
) -> None:
    def work() -> None:
        here = Path.cwd()
        here.rename(here.with_name('moved'))
        here.write_text('in the way')

    async def play(made: Bench) -> tuple[list[Ran], WorkerEnded]:
        await made.open(work, 'worker')
        worker = await made.worker()
        made.give(worker, (), (), ())
        return await made.reports(worker, 1), await made.until_type(WorkerEnded)

    reports, ended = on_bench(tmp_path, play)
    assert reports[0].result is None
    assert not ended.begun
    assert 'NotADirectoryError' in ended.reason


def test_peak_memory_is_what_the_job_took_itself(tmp_path: Path) -> None:
    def work(size: int) -> int:
        return len(b'x' * size)

    async def play(made: Bench) -> list[int]:
        await made.open(work)
        peaks = []
        for size in (1000, 64 << 20):
            made.give(await made.worker(), (size,))
            peaks.append((await made.until_type(WorkerEnded)).peak_memory)
        return peaks

    small, big = on_bench(tmp_path, play)
    assert small < 20 << 20
    assert 60 << 20 < big < 90 << 20
