"""What the jobs do: plain functions of an importable module, so that every system can send them."""

import os
import signal
import time
from importlib import import_module
from pathlib import Path
from typing import Any

table: Any = None


def same(value: Any) -> Any:
    """Return what was given."""
    return value


def spin(seconds: float, value: int) -> int:
    """Keep a cpu busy, in pure Python."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return value


def nap(seconds: float, value: int) -> int:
    """Take time without a cpu."""
    time.sleep(seconds)
    return value


def held(gate: str, value: int) -> int:
    """Wait until the file is there; an empty name waits for nothing."""
    while gate and not Path(gate).exists():
        time.sleep(0.01)
    return value


def pick(array: Any, index: int) -> float:
    """Read one element of a large array."""
    return float(array[index])


def fill(megabytes: int) -> int:
    """Make a large array that all jobs share."""
    global table
    table = import_module('numpy').ones(megabytes * 125_000)
    return 0


def look(index: int) -> tuple[float, int, float]:
    """Say when this began, how much memory is this process's own, and what is in the array."""
    began = time.time()
    element = float(table[index])
    own = 0
    for line in Path('/proc/self/smaps_rollup').read_text().splitlines():
        if line.startswith(('Private_Clean:', 'Private_Dirty:')):
            own += int(line.split()[1]) * 1024
    return began, own, element


def nap_or_die(seconds: float, number: int, marker: str) -> int:
    """Nap; the one job with a marker kills its own process, the first time it runs."""
    time.sleep(seconds)
    if marker and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number
