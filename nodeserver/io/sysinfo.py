"""What the machine is and what it has to spare."""

import os
import platform
import sys
from pathlib import Path

from nodeserver.core.messages import Availability
from nodeserver.io.controlgroups import memory_left, memory_limit

try:
    import psutil as psutil  # others have it from here
except ImportError:  # jobs run all the same, and nobody is told what the machine has to spare (E05)
    psutil = None


def measure(path: Path) -> Availability | None:
    """Measure what can be used now, `cpu` since the last call (E09-E11); None without psutil."""
    if psutil is None:
        return None
    memory, limit = psutil.virtual_memory().available, memory_left()
    return Availability(
        cpu=round(max(0.0, 100.0 - _busy_per_cent()), 1),
        memory=memory if limit is None else min(memory, limit),
        disk=psutil.disk_usage(str(path)).free,
        swap=psutil.swap_memory().percent,
    )


def _busy_per_cent() -> float:
    """How busy those processors were that this process may use."""
    each = psutil.cpu_percent(percpu=True)
    ours = os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity') else range(len(each))
    used = [each[cpu] for cpu in ours if cpu < len(each)] or each
    return float(sum(used) / len(used))


def processor_count() -> int:
    """Count the processing units that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_size() -> int:
    """Count the bytes of this machine's memory, or of what our control group may have of it."""
    present = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    return min(present, memory_limit() or present)


def platform_name() -> str:
    """Return `platform.platform()`, which `allocate` is given (E04)."""
    return platform.platform()


def python_version() -> str:
    """Return the version that functions' bytecode depends on, such as '3.11'."""
    return f'{sys.version_info.major}.{sys.version_info.minor}'
