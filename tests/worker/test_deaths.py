"""Ways to die: of jobs, of what they leave, of templates and of the zygote."""

import asyncio
import ctypes
import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from nodeserver.core.deaths import describe_death
from nodeserver.core.effects import (
    CloseTemplate,
    ForkWorkers,
    OpenTemplate,
    SignalWorker,
)
from nodeserver.core.events import (
    Event,
    JobsReported,
    ProvisionalReported,
    TemplateClosed,
    TemplateFailed,
    TemplateReady,
    WorkerEnded,
    WorkerForked,
)
from nodeserver.payload import dump_package, load_result
from tests.worker.rig import COMPUTATION, PATIENCE, Bench, Ran, bench, on_bench, run_job

both = pytest.mark.parametrize('isolation', ['job', 'worker'])


def alive(pid: int) -> bool:
    try:
        # one that we have adopted from a killed node stays a zombie until the test's end
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def gone(pid: int) -> bool:
    """Wait for a process to be gone."""
    async with asyncio.timeout(PATIENCE):
        while alive(pid):  # noqa: ASYNC110 - nobody tells us of others' children
            await asyncio.sleep(0.01)
    return True


async def first_provisional(made: Bench) -> Any:
    event = await made.until_type(ProvisionalReported)
    return load_result(event.result)


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


def sleep_and_tell() -> str:
    try:
        dispy_provisional_result(os.getpid())  # type: ignore[name-defined]  # noqa: F821
        time.sleep(60)
    except KeyboardInterrupt:
        return 'interrupted'
    return 'slept'


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
        for job, attempt in ((7, 1), (1, 7)):
            order = SignalWorker(COMPUTATION, worker, signal.SIGINT, job, attempt)
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


def leave_children(stay: bool) -> list[int]:
    """Leave a child in the group, and a daemon that escaped it by a double fork."""
    child = subprocess.Popen(['sleep', '60'])
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        daemon = os.fork()
        if daemon == 0:
            time.sleep(60)
            os._exit(0)
        os.write(write, str(daemon).encode())
        os._exit(0)
    pids = [child.pid, int(os.read(read, 100))]
    dispy_provisional_result(pids)  # type: ignore[name-defined]  # noqa: F821
    if stay:
        time.sleep(60)
    child.returncode = 0  # else its destructor warns
    return pids


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


# templates


def test_template_killed_ends_its_workers_and_then_fails(tmp_path: Path) -> None:
    async def play(made: Bench) -> list[Event]:
        await made.open(sleep_and_tell)
        for _ in range(2):
            await made.start()
        await first_provisional(made)
        worker = psutil.Process(await first_provisional(made))
        os.kill(worker.ppid(), signal.SIGKILL)
        failed = await made.until_type(TemplateFailed)
        assert 'SIGKILL' in failed.reason
        assert await gone(worker.pid)
        return list(made.events)

    ended = [event for event in on_bench(tmp_path, play) if isinstance(event, WorkerEnded)]
    assert [event.exit_status for event in ended] == [-9, -9]


@pytest.mark.parametrize(
    ('package', 'text'),
    [
        (b'garbage', 'UnpicklingError'),
        (dump_package(abs, setup=lambda: 3), 'setup returned 3 instead of 0'),
        (dump_package(abs, setup=lambda: 1 / 0), 'ZeroDivisionError'),
        (dump_package(abs, setup=lambda: os._exit(4)), 'exit status 4'),
    ],
)
def test_package_that_does_not_load_fails_with_its_reason(
    tmp_path: Path, package: bytes, text: str
) -> None:
    async def play(made: Bench) -> str:
        made.open_bytes(package)
        reason: str = (await made.until_type(TemplateFailed)).reason
        await made.close()
        await made.until_type(TemplateClosed)
        return reason

    assert text in on_bench(tmp_path, play)
    assert list(tmp_path.iterdir()) == []


def test_setup_prints_are_in_the_reason_of_its_failure(tmp_path: Path) -> None:
    def setup() -> int:
        print('no such data')
        return 1

    async def play(made: Bench) -> str:
        reason: str = (await made.open(abs, setup=setup)).reason
        return reason

    assert 'no such data' in on_bench(tmp_path, play)


def test_zygote_killed_fails_its_templates_and_another_serves(tmp_path: Path) -> None:
    async def play(made: Bench) -> Any:
        await made.open(sleep_and_tell)
        await made.start()
        template = psutil.Process(await first_provisional(made)).parent()
        assert template is not None
        os.kill(template.ppid(), signal.SIGKILL)
        assert isinstance(await made.until_type(TemplateFailed), TemplateFailed)
        await made.close()
        await made.until_type(TemplateClosed)
        await made.open(abs)
        return (await made.run(-4)).result

    assert on_bench(tmp_path, play) == 4


def test_template_is_closed_while_it_is_still_unpacking(tmp_path: Path) -> None:
    def setup() -> int:
        time.sleep(60)
        return 0

    async def play(made: Bench) -> None:
        made.open_bytes(dump_package(abs, setup=setup))
        await made.close()
        await made.until_type(TemplateClosed)

    on_bench(tmp_path, play)


def test_cleanup_runs_in_the_template_before_the_files_go(tmp_path: Path) -> None:
    witness = tmp_path / 'witness'

    def setup() -> int:
        global prepared
        prepared = 17  # type: ignore[name-defined]
        return 0

    def cleanup() -> None:
        witness.write_text(f'{prepared} {len(os.listdir())}')  # type: ignore[name-defined]  # noqa: PTH208

    def work() -> None:
        Path('made-by-job').touch()

    async def play(made: Bench) -> None:
        await made.open(work, setup=setup, cleanup=cleanup)
        await made.run()
        await made.close()
        await made.until_type(TemplateClosed)

    on_bench(tmp_path / 'prefix', play)
    assert witness.read_text() == '17 1'
    assert list((tmp_path / 'prefix').iterdir()) == []


def test_files_stay_without_cleanup(tmp_path: Path) -> None:
    def work() -> None:
        Path('made-by-job').touch()

    async def play(made: Bench) -> None:
        made.open_bytes(dump_package(work), cleanup=False, dest_path='mine')
        await made.until_type(TemplateReady)
        await made.run()

    on_bench(tmp_path, play)
    assert (tmp_path / 'mine' / 'made-by-job').exists()


def test_dest_path_outside_the_prefix_is_refused(tmp_path: Path) -> None:
    async def play(made: Bench) -> str:
        made.open_bytes(dump_package(abs), dest_path='../out')
        reason: str = (await made.until_type(TemplateFailed)).reason
        await made.close()
        await made.until_type(TemplateClosed)
        return reason

    assert 'dest_path' in on_bench(tmp_path, play)


def test_a_shared_directory_goes_with_the_last_that_uses_it(tmp_path: Path) -> None:
    async def play(made: Bench) -> None:
        for number, dest_path in ((1, 'shared'), (2, 'shared/below'), (3, 'shared')):
            made.processes.open_template(
                OpenTemplate(number, 'test', dump_package(abs), 'job', dest_path, True)
            )
            await made.until_type(TemplateReady)
        (tmp_path / 'shared' / 'file').touch()
        for number, left in ((1, {'below', 'file'}), (3, {'below', 'file'}), (2, None)):
            made.processes.close_template(CloseTemplate(number))
            await made.until_type(TemplateClosed)
            shared = tmp_path / 'shared'
            assert (set(os.listdir(shared)) if shared.exists() else None) == left  # noqa: PTH208

    on_bench(tmp_path, play)


def test_what_is_to_stay_is_not_removed_by_another_that_used_it(tmp_path: Path) -> None:
    async def play(made: Bench) -> None:
        for number, cleanup in ((1, True), (2, False)):
            made.processes.open_template(
                OpenTemplate(number, 'test', dump_package(abs), 'job', 'shared', cleanup)
            )
            await made.until_type(TemplateReady)
        (tmp_path / 'shared' / 'file').touch()
        for number in (1, 2):
            made.processes.close_template(CloseTemplate(number))
            await made.until_type(TemplateClosed)

    on_bench(tmp_path, play)
    assert (tmp_path / 'shared' / 'file').exists()


# nothing stays


def test_nothing_is_left_after_an_abrupt_close(tmp_path: Path) -> None:
    before = set(os.listdir('/proc/self/fd'))  # noqa: PTH208

    async def main() -> list[int]:
        async with bench(tmp_path) as made:
            await made.open(leave_children)
            await made.start(True)
            pids: list[int] = await first_provisional(made)
            made.processes.fork_workers(ForkWorkers(COMPUTATION, 3))
            await made.until_type(WorkerForked)
            made.processes.close()
        assert [await gone(pid) for pid in pids] == [True, True]
        return pids

    asyncio.run(main())
    assert psutil.Process().children(recursive=True) == []
    assert set(os.listdir('/proc/self/fd')) == before  # noqa: PTH208
    assert list(tmp_path.iterdir()) == []


def test_processes_end_with_the_node(tmp_path: Path) -> None:
    program = (
        'import asyncio, os, sys\nfrom pathlib import Path\n'
        'sys.path.insert(0, sys.argv[2])\n'
        'from tests.worker import test_deaths, rig\n'
        'async def main():\n'
        '    async with rig.bench(Path(sys.argv[1])) as made:\n'
        '        await made.open(test_deaths.sleep_and_tell)\n'
        '        await made.start()\n'
        '        print(await test_deaths.first_provisional(made), flush=True)\n'
        '        await asyncio.sleep(60)\n'
        'asyncio.run(main())\n'
    )
    root = str(Path(__file__).parent.parent.parent)
    with subprocess.Popen(
        [sys.executable, '-c', program, str(tmp_path), root], stdout=subprocess.PIPE, text=True
    ) as node:
        assert node.stdout is not None
        worker = int(node.stdout.readline())
        node.kill()
    assert asyncio.run(gone(worker))


def test_large_payloads_do_not_hold_up_the_loop(tmp_path: Path) -> None:
    def work(data: bytes) -> bytes:
        return data

    async def play(made: Bench) -> float:
        await made.open(work)
        longest, last, running = 0.0, time.perf_counter(), True

        async def tick() -> None:
            nonlocal longest, last
            while running:
                await asyncio.sleep(0.001)
                now = time.perf_counter()
                longest, last = max(longest, now - last), now

        worker = await made.worker()
        data = bytes(200 << 20)
        made.give(worker, (data,))
        last = time.perf_counter()
        ticking = asyncio.create_task(tick())
        reported = await made.until_type(JobsReported)
        running = False
        await ticking
        assert len(reported.outcomes[0]) > len(data)
        return longest

    held_up = on_bench(tmp_path, play)
    assert held_up < 0.5, held_up
