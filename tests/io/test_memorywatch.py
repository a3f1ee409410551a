"""The memory of jobs: what they have in common with their template is not theirs."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from nodeserver.core.events import Event, MemoryExceeded
from nodeserver.io.controlgroups import memory_limit
from nodeserver.io.memorywatch import MemoryWatch, Watched, find_excess
from nodeserver.io.sysinfo import memory_size
from tests.io.test_memorykills import Machine

MIB = 1 << 20
PLAIN = 'import sys; block = b"x" * (40 << 20); print(flush=True); sys.stdin.read()'
FORKED = (
    'import os, sys; block = b"x" * (40 << 20); parent = os.getpid(); pid = os.fork()\n'
    'print(os.getpid(), flush=True) if not pid else None\n'
    'sys.stdin.read() if not pid else os.wait()'
)
BELOW = f'import subprocess, sys; subprocess.run([sys.executable, "-c", {PLAIN!r}])'


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Ends what a test started."""
    with ExitStack() as stack:
        yield stack


def started(stack: ExitStack, code: str) -> tuple[int, str]:
    """Start a program and wait for its first line."""
    command = [sys.executable, '-c', code]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    stack.enter_context(process)
    assert process.stdin is not None and process.stdout is not None
    stack.callback(process.stdin.close)
    return process.pid, process.stdout.readline()


def excess(pid: int, asked: int, template: int = 0) -> list[MemoryExceeded]:
    return find_excess([Watched(7, 1, pid, template, asked)])


@pytest.mark.parametrize('code', [PLAIN, BELOW])
def test_what_a_process_and_those_below_it_have_is_measured(stack: ExitStack, code: str) -> None:
    pid, _ = started(stack, code)
    (found,) = excess(pid, 30 * MIB)
    assert (found.computation, found.worker) == (7, 1)
    assert 40 * MIB <= found.used < 80 * MIB
    assert excess(pid, 90 * MIB) == []


def test_what_a_template_has_loaded_is_not_its_jobs(stack: ExitStack) -> None:
    pid, line = started(stack, FORKED)
    assert excess(int(line), 15 * MIB, template=pid) == []


def test_a_process_that_is_gone_has_nothing() -> None:
    process = subprocess.Popen([sys.executable, '-c', ''])
    process.wait()
    assert excess(process.pid, 1) == []


def test_a_kernel_that_tells_no_shares_is_believed_for_the_whole(tmp_path: Path) -> None:
    for pid, size in ((5, 1000), (6, 300)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / 'status').write_text(f'Name:\tx\nVmRSS:\t  {size} kB\n')
    watched = [Watched(7, 1, 5, 6, 600 * 1024), Watched(7, 2, 5, 6, 800 * 1024)]
    assert find_excess(watched, tmp_path) == [MemoryExceeded(7, 1, 700 * 1024)]


def test_a_look_posts_what_it_finds_and_none_after_the_end() -> None:
    posted: list[Event] = []

    async def look() -> None:
        come = asyncio.Event()
        watch = MemoryWatch(asyncio.get_running_loop(), lambda e: (posted.append(e), come.set()))
        watch.look([Watched(7, 1, os.getpid(), 0, 1)])
        watch.look([Watched(7, 2, os.getpid(), 0, 1)])  # one at a time
        async with asyncio.timeout(10):
            await come.wait()
        watch.look([Watched(7, 3, os.getpid(), 0, 1)])
        watch.close()

    asyncio.run(look())
    assert [event.worker for event in posted if isinstance(event, MemoryExceeded)] == [1]


# how much there is


@pytest.mark.parametrize(
    ('file', 'text', 'limit'),
    [
        ('cgroup/two/user/node/memory.max', '4096\n', 4096),
        ('cgroup/two/user/memory.max', '8192\n', 8192),  # of a group above
        ('cgroup/two/user/node/memory.max', 'max\n', None),
        ('cgroup/one/user/memory.limit_in_bytes', '1000\n', 1000),
        ('cgroup/memory.max', '10\n', None),  # not below the mount
    ],
)
def test_limits_of_control_groups_hold(
    tmp_path: Path, file: str, text: str, limit: int | None
) -> None:
    machine = Machine(tmp_path)
    machine.groups('/user/node')
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert memory_limit(machine.proc) == limit


def test_the_smallest_limit_counts(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.groups('/a/b')
    for name, limit in (('a', 500), ('a/b', 900)):
        directory = tmp_path / 'cgroup/two' / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / 'memory.max').write_text(str(limit))
    assert memory_limit(machine.proc) == 500


def test_this_machine_has_some_memory() -> None:
    assert 64 * MIB < memory_size() < 1 << 50
