"""What the machine is and what it has to spare."""

import os
import platform
import sys
from pathlib import Path

import psutil

from nodeserver.core.messages import Availability
from nodeserver.io.controlgroups import memory_limit


def measure(path: Path) -> Availability:
    """Measure what can be used now; `cpu` is meant since the last call (E09-E11)."""
    return Availability(
        cpu=round(100.0 - psutil.cpu_percent(), 1),
        memory=psutil.virtual_memory().available,
        disk=psutil.disk_usage(str(path)).free,
        swap=psutil.swap_memory().percent,
    )


def processor_count() -> int:
    """Count the processing units that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_size() -> int:
    """Count the bytes of this machine's memory, or of what our control group may have of it."""
    present: int = psutil.virtual_memory().total
    return min(present, memory_limit() or present)


def platform_name() -> str:
    """Return `platform.platform()`, which `allocate` is given (E04)."""
    return platform.platform()


def python_version() -> str:
    """Return the version that functions' bytecode depends on, such as '3.11'."""
    return f'{sys.version_info.major}.{sys.version_info.minor}'
