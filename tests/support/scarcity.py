"""Few descriptors, or none, for this process; and how busy a thread of it is (Linux)."""

import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def descriptors_below(most: int) -> Iterator[None]:
    """Let nothing be opened but below this number, as long as the block lasts.

    What is open already stays so: below 1 there is no descriptor left for anything.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def busy_seconds(name: str) -> float:
    """Answer how long the threads of this name have kept a processor busy so far."""
    threads = [thread.ident for thread in threading.enumerate() if thread.name == name]
    assert threads
    return sum(time.clock_gettime(time.pthread_getcpuclockid(ident)) for ident in threads if ident)
