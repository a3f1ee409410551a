"""What this process uses, for those who watch it."""

import os
import resource
import sys
import time

from nodeserver.io.health import Figure
from nodeserver.io.sysinfo import psutil

_BEGAN_AT = time.time()


def process_figures() -> list[Figure]:
    """Measure this process, under the names that Prometheus has for it."""
    times = os.times()
    return [
        Figure(
            'process_cpu_seconds_total',
            'counter',
            'Processor time used, in seconds.',
            {'': times.user + times.system},
        ),
        Figure(
            'process_resident_memory_bytes', 'gauge', 'Memory in use, in bytes.', {'': _memory()}
        ),
        Figure(
            'process_start_time_seconds',
            'gauge',
            'When the process began, in seconds since 1970.',
            {'': _BEGAN_AT},
        ),
    ]


def _memory() -> int:
    if psutil is not None:
        return int(psutil.Process().memory_info().rss)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # the most so far, for want of more
    return most if sys.platform == 'darwin' else most * 1024
