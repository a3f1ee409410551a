"""What a job sees and gives back, in both kinds of isolation."""

import asyncio
import ctypes
import logging
import os
import random
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from nodeserver.core.events import JobsReported, TemplateReady
from nodeserver.io.limits import raise_file_limit
from nodeserver.worker.run import seed_generators
from tests.worker.rig import Bench, Ran, on_bench, run_job

both = pytest.mark.parametrize('isolation', ['job', 'worker'])
counter = [0]
total = 0


def one_after_another(prefix: Path, isolation: str, function: Any, *calls: tuple[Any, ...]) -> Any:
    """Run these calls in order: in a process each, or all in the same one."""

    async def play(bench: Bench) -> list[Ran]:
        assert isinstance(await bench.open(function, isolation), TemplateReady)
        if isolation == 'job':
            return [await bench.run(*call) for call in calls]
        worker = await bench.worker()
        bench.give(worker, *calls)
        return await bench.reports(worker, len(calls))

    return on_bench(prefix, play)


@both
def test_result_and_seconds_come_back(tmp_path: Path, isolation: str) -> None:
    def work(x: int) -> int:
        time.sleep(0.05)
        return x * 2

    ran = run_job(tmp_path, work, 21, isolation=isolation)
    assert ran.result == 42
    assert 0.05 <= ran.seconds < 5


@both
def test_exception_text_has_the_users_frames_only(tmp_path: Path, isolation: str) -> None:
    def inner(x: int) -> float:
        return 1 / x

    def work(x: int) -> float:
        return inner(x)

    ran = run_job(tmp_path, work, 0, isolation=isolation)
    assert ran.raised
    assert 'ZeroDivisionError: division by zero' in ran.outcome.exception
    assert 'return 1 / x' in ran.outcome.exception  # the source line travelled along
    assert ran.outcome.exception.count('File "') == 2
    assert 'nodeserver' not in ran.outcome.exception


@both
def test_output_of_python_c_and_subprocesses_is_the_jobs(tmp_path: Path, isolation: str) -> None:
    def work(name: str) -> None:
        print('python', name)
        ctypes.CDLL(None).puts(f'c {name}'.encode())
        subprocess.run([sys.executable, '-c', f'print("child {name}")'], check=True)
        sys.stderr.write(f'error {name}\n')
        os.write(2, f'raw {name}\n'.encode())

    one, two = one_after_another(tmp_path, isolation, work, ('a',), ('b',))
    for ran, name in ((one, 'a'), (two, 'b')):
        assert sorted(ran.outcome.stdout.split('\n')) == sorted(
            f'python {name}\nc {name}\nchild {name}\n'.split('\n')
        )
        assert ran.outcome.stderr == f'error {name}\nraw {name}\n'


@both
def test_long_output_keeps_its_head_and_tail(tmp_path: Path, isolation: str) -> None:
    def work() -> None:
        print('first')
        for _ in range(8):
            print('x' * (1 << 20))
        print('last')

    text = run_job(tmp_path, work, isolation=isolation).outcome.stdout
    assert text.startswith('first\n')
    assert text.endswith('last\n')
    assert 'bytes are left out here' in text
    assert len(text) < 3 << 20


def test_provisional_results_come_in_order_before_the_outcome(tmp_path: Path) -> None:
    def work() -> list[int]:
        return [dispy_provisional_result(number) for number in range(5)]  # type: ignore[name-defined]  # noqa: F821

    ran = run_job(tmp_path, work)
    assert ran.provisional == [0, 1, 2, 3, 4]
    assert ran.result == [0] * 5


def test_provisional_result_that_cannot_be_pickled_raises_in_the_job(tmp_path: Path) -> None:
    def work() -> str:
        try:
            dispy_provisional_result(threading.Lock())  # type: ignore[name-defined]  # noqa: F821
        except TypeError as error:
            return str(error)
        return 'nothing'

    ran = run_job(tmp_path, work)
    assert 'lock' in ran.result
    assert ran.provisional == []


def test_job_finds_its_names_and_directory(tmp_path: Path) -> None:
    def work() -> tuple[Any, ...]:
        names = (dispy_node_name, dispy_node_ip_addr, dispy_job_path)  # type: ignore[name-defined]  # noqa: F821
        return *names, str(Path.cwd()), os.environ['OMP_NUM_THREADS'], os.environ['MPLBACKEND']

    name, address, path, cwd, threads, backend = run_job(tmp_path, work).result
    assert (name, address, threads, backend) == ('node-a', '10.0.0.1', '1', 'Agg')
    assert path == cwd
    assert Path(path).parent == tmp_path


@both
def test_unpicklable_result_is_the_jobs_exception(tmp_path: Path, isolation: str) -> None:
    def work() -> dict[str, Any]:
        return {'fine': 1, 'bad': [threading.Lock()]}

    ran = run_job(tmp_path, work, isolation=isolation)
    assert ran.raised
    assert "result['bad'][0] of type _thread.lock cannot be pickled" in ran.outcome.exception


@both
def test_sys_exit_is_an_exception_of_the_job(tmp_path: Path, isolation: str) -> None:
    def work() -> None:
        sys.exit(3)

    ran = run_job(tmp_path, work, isolation=isolation)
    assert ran.raised
    assert ran.outcome.exception.endswith('SystemExit: 3')


@both
def test_rebound_globals_are_not_seen_by_later_jobs(tmp_path: Path, isolation: str) -> None:
    program = 'total = 0\ndef work(n):\n    global total\n    total += n\n    return total\n'
    namespace: dict[str, Any] = {'__name__': '__main__'}  # as a notebook's cell has
    exec(compile(program, '<cell>', 'exec'), namespace)
    runs = one_after_another(tmp_path, isolation, namespace['work'], (1,), (2,), (3,))
    assert [ran.result for ran in runs] == [1, 2, 3]


def test_objects_changed_in_place_are_not_seen_by_later_jobs(tmp_path: Path) -> None:
    def work() -> int:
        counter.append(1)
        return len(counter)

    runs = one_after_another(tmp_path, 'job', work, (), (), ())
    assert [ran.result for ran in runs] == [2, 2, 2]


def test_lasting_worker_puts_its_surroundings_back(tmp_path: Path) -> None:
    def work() -> tuple[Any, ...]:
        seen = (str(Path.cwd()), 'ADDED' in os.environ, os.environ['MPLBACKEND'], sys.stdout.name)
        os.chdir('/')
        os.environ['ADDED'] = '1'
        os.environ['MPLBACKEND'] = 'other'
        sys.stdout = open(os.devnull, 'w')  # noqa: PTH123, SIM115
        os.close(1)
        sys.stderr.close()
        return seen

    def check(prefix: Path) -> list[Ran]:
        runs: list[Ran] = one_after_another(prefix, 'worker', work, (), (), ())
        return runs

    seen = [ran.result for ran in check(tmp_path)]
    assert seen[1][:3] == seen[0][:3] == seen[2][:3]
    assert seen[0][1] is False


@both
def test_each_attempt_draws_its_own_random_numbers(tmp_path: Path, isolation: str) -> None:
    def work() -> tuple[float, float]:
        numpy = sys.modules.get('numpy')
        return random.random(), float(numpy.random.random()) if numpy else random.random()

    runs = one_after_another(tmp_path, isolation, work, (), (), ())
    assert len({ran.result for ran in runs}) == 3


def test_only_the_same_attempt_of_the_same_computation_draws_the_same_numbers() -> None:
    drawn = []
    for computation, job, attempt in ((9, 5, 1), (9, 5, 2), (8, 5, 1), (9, 5, 1)):
        seed_generators(computation, job, attempt)
        drawn.append((random.random(), random.gauss()))
    random.seed()
    assert drawn[0] == drawn[3]
    assert len(set(drawn)) == 3


@both
def test_job_may_log_fork_and_start_threads(tmp_path: Path, isolation: str) -> None:
    def log_and_fork() -> None:
        logging.getLogger().error('from a thread')
        pid = os.fork()
        if pid == 0:
            logging.getLogger().error('from its fork')
            os._exit(threading.active_count())
        dispy_provisional_result(os.waitpid(pid, 0)[1])  # type: ignore[name-defined]  # noqa: F821

    def work() -> int:
        thread = threading.Thread(target=log_and_fork)
        thread.start()
        thread.join(10)
        return threading.active_count()

    ran = run_job(tmp_path, work, isolation=isolation)
    assert ran.result == 1
    assert ran.outcome.stderr == 'from a thread\nfrom its fork\n'
    assert isolation == 'worker' or ran.provisional == [1 << 8]  # one thread in the fork


@both
def test_job_may_close_the_descriptors_it_sees(tmp_path: Path, isolation: str) -> None:
    def work() -> str:
        print('before')
        os.closerange(0, 100)
        return 'closed'

    ran = run_job(tmp_path, work, isolation=isolation)
    assert ran.result == 'closed'
    assert ran.outcome.stdout == 'before\n'


@both
def test_large_argument_and_result_travel(tmp_path: Path, isolation: str) -> None:
    def work(data: bytes) -> bytes:
        return data[:1000] * 50_000

    data = os.urandom(5 << 20)
    result = run_job(tmp_path, work, data, isolation=isolation).result
    assert result == data[:1000] * 50_000


def test_exit_functions_of_a_job_run_before_its_outcome(tmp_path: Path) -> None:
    def work() -> int:
        import atexit

        atexit.register(print, 'at exit')
        return 1

    ran = run_job(tmp_path, work)
    assert ran.result == 1
    assert ran.outcome.stdout == 'at exit\n'


def test_job_that_forks_and_returns_in_the_copy_reports_once(tmp_path: Path) -> None:
    def work() -> int:
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
        return os.getpid()

    ran = run_job(tmp_path, work)
    assert ran.reported
    assert ran.exit_status == 0


def test_setup_makes_globals_that_jobs_see(tmp_path: Path) -> None:
    program = (
        'def setup():\n    global data\n    data = 5\n    return 0\n'
        'def work(n):\n    return n * data + extra(n)\n'
        'def extra(n):\n    return helper()\n'
        'def helper():\n    return 1000\n'
    )
    namespace: dict[str, Any] = {'__name__': '__main__'}
    exec(compile(program, '<cell>', 'exec'), namespace)

    async def play(bench: Bench) -> Any:
        opened = await bench.open(namespace['work'], setup=namespace['setup'])
        assert isinstance(opened, TemplateReady), opened
        return (await bench.run(2)).result

    assert on_bench(tmp_path, play) == 1010


@pytest.mark.slow
@both
def test_many_jobs_all_come_back(tmp_path: Path, isolation: str) -> None:
    def work(x: int) -> int:
        return x + 1

    async def play(bench: Bench) -> list[int]:
        await bench.open(work, isolation)
        if isolation == 'worker':
            workers = [await bench.worker(), await bench.worker()]
            for start in range(0, 500, 50):
                bench.give(workers[start // 50 % 2], *[(x,) for x in range(start, start + 50)])
            runs = [ran for worker in workers for ran in await bench.reports(worker, 250)]
        else:
            runs = []
            for start in range(0, 500, 4):
                started = [await bench.start(x) for x in range(start, start + 4)]
                runs += [await bench.end_of(worker) for worker in started]
        return sorted(ran.result for ran in runs)

    assert on_bench(tmp_path, play) == list(range(1, 501))


def test_worker_imports_neither_asyncio_nor_ssl_nor_zmq() -> None:
    program = 'import sys, nodeserver.worker.main; print(*sys.modules)'
    done = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True, check=True, timeout=30
    )
    assert not {'asyncio', 'ssl', 'zmq', 'nodeserver.io.procs'} & set(done.stdout.split())


def test_jobs_do_not_see_the_secret_of_their_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('DISPY_SECRET', 'a secret of the node')

    def work() -> list[str]:
        return [name for name, value in os.environ.items() if 'secret of the node' in value]

    assert run_job(tmp_path, work).result == []


def test_jobs_have_the_limit_of_descriptors_that_the_node_was_started_with(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_file_limit()
    try:
        assert (
            run_job(tmp_path, lambda: resource.getrlimit(resource.RLIMIT_NOFILE)).result == before
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_job_sees_no_arguments_of_the_program_it_runs_in(tmp_path: Path) -> None:
    def work() -> list[str]:
        return list(sys.argv)

    assert run_job(tmp_path, work).result == ['']


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
