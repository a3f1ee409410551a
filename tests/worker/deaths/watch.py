"""What the tests of deaths have in common: looking whether processes live, and jobs for it."""

import asyncio
import os
import subprocess
import time
from typing import Any

import psutil
import pytest

from nodeserver.core.events import (
    ProvisionalReported,
)
from nodeserver.payload import load_result
from tests.worker.rig import PATIENCE, Bench

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


def sleep_and_tell() -> str:
    try:
        dispy_provisional_result(os.getpid())  # type: ignore[name-defined]  # noqa: F821
        time.sleep(60)
    except KeyboardInterrupt:
        return 'interrupted'
    return 'slept'


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
