"""Control groups of this process: where their figures are, and what memory they allow."""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

PROC = Path('/proc')
_CACHED = re.compile(rb'^(?:in)?active_file (\d+)$', re.MULTILINE)
_CACHED_BELOW = re.compile(rb'^total_(?:in)?active_file (\d+)$', re.MULTILINE)


def group_directories(proc: Path, controller: str) -> Iterator[tuple[Path, Path]]:
    """Where groups are mounted, and this process's own below that; controller '': version 2."""
    try:
        groups = (proc / 'self/cgroup').read_text().splitlines()
        mounts = (proc / 'self/mountinfo').read_text().splitlines()
    except OSError:
        return
    for group in _groups(groups, controller):
        for root, point in _mounts(mounts, controller):
            inside = group.removeprefix(root.rstrip('/')).lstrip('/')
            yield Path(point), Path(point, inside)


def memory_limit(proc: Path = PROC) -> int | None:
    """Bytes that this process's groups may have in all; None where there is no limit."""
    limits = [_number(directory / name) for directory, name, _ in _memory_groups(proc)]
    return min((limit for limit in limits if limit is not None), default=None)


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # there is none, or it says 'max'
        return None


def memory_left(proc: Path = PROC) -> int | None:
    """Bytes that the limits of this process's groups leave to it; None where there is no limit."""
    left = [_left_in(*group) for group in _memory_groups(proc)]
    return min((free for free in left if free is not None), default=None)


@lru_cache(maxsize=1)
def _memory_groups(proc: Path) -> list[tuple[Path, str, str]]:
    """Groups whose limits count, and the names of their files; looking for them takes 1 ms."""
    return [
        (directory, *names)
        for controller, names in (
            ('', ('memory.max', 'memory.current')),
            ('memory', ('memory.limit_in_bytes', 'memory.usage_in_bytes')),
        )
        for mounted, own in group_directories(proc, controller)
        for directory in _upwards(own, mounted)
    ]


def _upwards(own: Path, mounted: Path) -> Iterator[Path]:
    """A group, and those that it is in: a limit of each of them counts."""
    yield own
    for directory in own.parents:
        if not directory.is_relative_to(mounted):
            return
        yield directory


def _left_in(directory: Path, limit_name: str, usage_name: str) -> int | None:
    """What a group's limit leaves; cached files make room when that is needed."""
    try:
        limit, usage = (directory / limit_name).read_text(), (directory / usage_name).read_text()
        facts = (directory / 'memory.stat').read_bytes()
    except OSError:
        return None
    if limit.strip() == 'max':
        return None
    # version 1 tells of the group alone as well, while its usage includes the groups below
    cached = _CACHED_BELOW.findall(facts) or _CACHED.findall(facts)
    return max(0, int(limit) - int(usage) + sum(map(int, cached)))


def _groups(groups: list[str], controller: str) -> Iterator[str]:
    """Paths of this process's control groups that this controller belongs to."""
    for line in groups:
        _, controllers, path = line.split(':', 2)
        if controller in controllers.split(','):
            yield path


def _mounts(mounts: list[str], controller: str) -> Iterator[tuple[str, str]]:
    """Where control groups are mounted, and which part of their tree; '' means version 2."""
    for line in mounts:
        before, _, after = line.partition(' - ')
        kind, _, options = after.split(' ', 2)
        of_version_1 = kind == 'cgroup' and controller in options.split(',')
        if of_version_1 if controller else kind == 'cgroup2':
            root, point = before.split(' ')[3:5]
            yield root, point
