"""Where this process's control groups are, under version 2 and then 1 (Linux)."""

from collections.abc import Iterator
from pathlib import Path

PROC = Path('/proc')


def group_directories(proc: Path, controller: str) -> Iterator[tuple[Path, Path]]:
    """Directories of our group and of the root that is mounted; `controller` '' is version 2."""
    try:
        groups = (proc / 'self/cgroup').read_text().splitlines()
        mounts = (proc / 'self/mountinfo').read_text().splitlines()
    except OSError:
        return
    for group in _groups(groups, controller):
        for root, point in _mounts(mounts, controller):
            yield Path(point, group.removeprefix(root.rstrip('/')).lstrip('/')), Path(point)


def memory_limit(proc: Path = PROC) -> int | None:
    """Bytes that our control group and those above it may have; None: as many as there are."""
    limits = []
    for controller, name in (('', 'memory.max'), ('memory', 'memory.limit_in_bytes')):
        for directory, top in group_directories(proc, controller):
            above = [path for path in directory.parents if path.is_relative_to(top)]
            limits += [_number(path / name) for path in (directory, *above)]
    return min((limit for limit in limits if limit is not None), default=None)


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # there is none, or it says 'max'
        return None


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
