"""What a template does ahead of its forks stays unseen by the user's functions."""

import asyncio
import atexit
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nodeserver.core.effects import ForkWorkers
from nodeserver.core.events import JobsReported, TemplateReady, WorkerEnded, WorkerForked
from nodeserver.io import templateend
from nodeserver.io.templateend import TemplateEnd
from tests.worker.rig import COMPUTATION, Bench, on_bench, run_job

both = pytest.mark.parametrize('isolation', ['job', 'worker'])


def with_setup(prefix: Path, setup: Any, function: Any, *args: Any) -> Any:
    async def play(bench: Bench) -> Any:
        opened = await bench.open(function, setup=setup)
        assert isinstance(opened, TemplateReady), opened
        return (await bench.run(*args)).result

    return on_bench(prefix, play)


def test_a_function_runs_in_its_jobs_only(tmp_path: Path) -> None:
    calls = str(tmp_path / 'calls')

    def work() -> str:
        with Path(calls).open('a') as file:
            file.write('called ')
        return Path(calls).read_text()

    assert with_setup(tmp_path / 'node', None, work) == 'called '


def test_exit_functions_of_the_template_run_nowhere(tmp_path: Path) -> None:
    marker = str(tmp_path / 'ended')

    def setup() -> int:
        atexit.register(Path(marker).touch)
        return 0

    assert with_setup(tmp_path / 'node', setup, Path(marker).exists) is False
    assert not Path(marker).exists()


def test_random_numbers_of_the_template_stay_as_setup_left_them(tmp_path: Path) -> None:
    def setup() -> int:
        random.seed(7)
        return 0

    def cleanup() -> None:
        Path(told).write_text(str(random.random()))

    told = str(tmp_path / 'told')

    async def play(bench: Bench) -> None:
        assert isinstance(await bench.open(os.getpid, setup=setup, cleanup=cleanup), TemplateReady)
        await bench.run()
        await bench.processes.aclose()

    on_bench(tmp_path / 'node', play)
    assert Path(told).read_text() == str(random.Random(7).random())


def test_a_job_is_interrupted_by_its_own_handler_whatever_setup_had_set(tmp_path: Path) -> None:
    def setup() -> int:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return 0

    def work() -> str:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            return 'interrupted'
        return 'ignored'

    assert with_setup(tmp_path, setup, work) == 'interrupted'


@both
def test_jobs_do_not_see_how_their_node_binds_libraries(tmp_path: Path, isolation: str) -> None:
    assert (
        'LD_BIND_NOW' not in run_job(tmp_path, lambda: dict(os.environ), isolation=isolation).result
    )


def test_what_the_user_says_of_binding_libraries_reaches_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('LD_BIND_NOW', 'yes')
    assert run_job(tmp_path, os.getenv, 'LD_BIND_NOW').result == 'yes'


def test_forks_of_a_job_draw_other_numbers_than_it(tmp_path: Path) -> None:
    def work() -> tuple[float, float]:
        read, write = os.pipe()
        if os.fork() == 0:
            os.write(write, str(random.random()).encode())
            os._exit(0)
        return float(os.read(read, 100)), random.random()

    forked, own = run_job(tmp_path, work).result
    assert forked != own


_HOOKS = """
import os
from nodeserver.worker import quietforks
quietforks.gather()
import logging
import random
seen = []
os.register_at_fork(after_in_child=lambda: seen.append('of another'))
state = random.getstate()
def kept(fork):
    read, write = os.pipe()
    if fork() == 0:
        logging.getLogger().warning('logging works')
        os.write(write, f'{random.getstate() == state} {seen}'.encode())
        os._exit(0)
    os.wait()
    return os.read(read, 100).decode()
print(kept(quietforks.quietly_fork), kept(os.fork))
"""


def test_only_a_quiet_fork_leaves_out_the_hooks_of_the_library() -> None:
    command = [sys.executable, '-I', '-c', _HOOKS.lstrip().replace('import os\n', _PATH, 1)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert ran.stdout == "True ['of another'] False ['of another']\n"


_PATH = f'import os, sys\nsys.path[:0] = {[str(Path(__file__).parents[2])]!r}\n'


def test_a_fork_waits_for_the_end_of_a_job_while_a_process_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templateend, '_FORK_SECONDS', 60.0)

    async def play(bench: Bench) -> list[str]:
        assert isinstance(await bench.open(os.getpid), TemplateReady)
        first = await bench.worker()
        bench.processes.fork_workers(ForkWorkers(COMPUTATION, 1))  # waits: one is ready
        bench.give(first, ())
        await bench.until_type(JobsReported)
        assert not any(isinstance(event, WorkerForked) for event in bench.events)
        return [type(await bench.until_type(kind)).__name__ for kind in (WorkerForked, WorkerEnded)]

    assert on_bench(tmp_path, play) == ['WorkerForked', 'WorkerEnded']


def test_a_fork_waits_no_longer_than_a_moment_for_a_long_job(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        assert isinstance(await bench.open(time.sleep), TemplateReady)
        bench.processes.fork_workers(ForkWorkers(COMPUTATION, 2))
        first, _ = [(await bench.until_type(WorkerForked)).worker for _ in range(2)]
        bench.give(first, (60,))
        await bench.worker()

    on_bench(tmp_path, play)


def test_a_fork_is_not_put_off_where_no_process_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templateend, '_FORK_SECONDS', 60.0)

    async def play(bench: Bench) -> None:
        assert isinstance(await bench.open(time.sleep), TemplateReady)
        await bench.start(60)
        await bench.worker()

    on_bench(tmp_path, play)


def descriptors(template: TemplateEnd) -> set[int]:
    return {int(path.name) for path in Path(f'/proc/{template.pid}/fd').iterdir()}


@contextmanager
def starved(template: TemplateEnd, most: int = 0) -> Iterator[None]:
    """Let a template have descriptors below this number only, as long as the block lasts."""
    before = resource.prlimit(template.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(template.pid, resource.RLIMIT_NOFILE, (most, before[1]))
    yield
    resource.prlimit(template.pid, resource.RLIMIT_NOFILE, before)


async def opened(bench: Bench, isolation: str = 'job') -> TemplateEnd:
    """Open a template that waits for orders: it has forked before."""
    assert isinstance(await bench.open(os.getpid, isolation), TemplateReady)
    await bench.worker()
    return bench.processes._templates[COMPUTATION]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - a log, another process
            await asyncio.sleep(0.01)


async def refused(bench: Bench, count: int, caplog: pytest.LogCaptureFixture) -> None:
    """Have so many workers forked that cannot be."""
    caplog.clear()
    bench.processes.fork_workers(ForkWorkers(COMPUTATION, count))
    await until(lambda: caplog.text.count('cannot fork: [Errno 24]') >= count)


@pytest.mark.parametrize(('isolation', 'needed'), [('job', 4), ('worker', 5)])
def test_a_template_without_descriptors_forks_later(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    isolation: str,
    needed: int,
) -> None:
    monkeypatch.setattr(templateend, '_RETRY_SECONDS', 0.2)

    async def play(bench: Bench) -> None:
        template = await opened(bench, isolation)
        with starved(template):
            await refused(bench, 1, caplog)
            before = descriptors(template)
        await bench.until_type(WorkerForked)
        unused = [number for number in range(1000) if number not in before]
        for free in range(1, needed):
            with starved(template, unused[free]):
                await refused(bench, 1, caplog)
                await until(lambda: descriptors(template) == before)
            await bench.until_type(WorkerForked)

    on_bench(tmp_path, play)


def test_no_refused_fork_is_tried_again_after_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def play(bench: Bench) -> None:
        with starved(await opened(bench)):
            await refused(bench, 3, caplog)
        bench.processes.close()
        left = [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]
        assert not [timer for timer in left if 'TemplateEnd' in repr(timer)]

    on_bench(tmp_path, play)


def test_all_refused_forks_are_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templateend, '_RETRY_SECONDS', 0.2)

    async def play(bench: Bench) -> None:
        with starved(await opened(bench)):
            await refused(bench, 3, caplog)
        assert len({(await bench.until_type(WorkerForked)).worker for _ in range(3)}) == 3

    on_bench(tmp_path, play)
