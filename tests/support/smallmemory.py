"""A control group with little memory: programs in it meet the real out-of-memory killer."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ROOT = Path('/sys/fs/cgroup')
_END_SECONDS = 5.0


def available() -> str:
    """Why no such group can be made here, or '' when one can."""
    if not sys.platform.startswith('linux'):
        return 'control groups need Linux'
    if os.geteuid() != 0:
        return 'making a control group needs root'
    return '' if _place() else 'no memory controller that can be written to'


def _place() -> tuple[Path, str] | None:
    """Where groups can be made, and the name of the limit: under version 1, or 2."""
    if os.access(_ROOT / 'memory/memory.limit_in_bytes', os.R_OK) and _is_writable(
        _ROOT / 'memory'
    ):
        return _ROOT / 'memory', 'memory.limit_in_bytes'
    controllers = _ROOT / 'cgroup.subtree_control'
    if controllers.exists() and 'memory' in controllers.read_text() and _is_writable(_ROOT):
        return _ROOT, 'memory.max'
    return None


def _is_writable(directory: Path) -> bool:
    group = directory / f'dispy-probe-{os.getpid()}'
    try:
        group.mkdir()
    except OSError:  # a file system that was mounted for reading only
        return False
    group.rmdir()
    return True


@contextmanager
def small_memory(size: int) -> Iterator[tuple[str, ...]]:
    """Make a group of at most so many bytes; answers the words that run a command in it."""
    place = _place()
    assert place is not None, available()
    directory, limit = place
    group = directory / f'dispy-test-{os.getpid()}-{time.monotonic_ns()}'
    group.mkdir()
    try:
        (group / limit).write_text(str(size))
        yield ('sh', '-c', f'echo $$ > {group}/cgroup.procs && exec "$@"', 'sh')
    finally:
        end = time.monotonic() + _END_SECONDS
        while (group / 'cgroup.procs').read_text() and time.monotonic() < end:
            time.sleep(0.01)
        group.rmdir()
