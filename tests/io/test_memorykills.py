"""Counts of the out-of-memory killer: which file is believed, and which deaths it explains."""

from pathlib import Path

import pytest

from nodeserver.core.deaths import MemoryKill
from nodeserver.io.memorykills import FRESH_SECONDS, MemoryKills

MOUNTS = """\
20 19 0:18 / / rw - ext4 /dev/vda rw
25 20 0:22 {root} {point}/two rw shared:9 - cgroup2 cgroup2 rw
26 20 0:23 {root} {point}/one rw,relatime - cgroup cgroup rw,cpu,memory
"""


class Machine:
    """What a kernel shows, in files of the test."""

    def __init__(self, path: Path) -> None:
        self.proc, self.mounted = path / 'proc', path / 'cgroup'
        (self.proc / 'self').mkdir(parents=True)
        self.count('proc/vmstat', 3)

    def count(self, name: str, kills: int) -> None:
        """Write a count as the kernel does, among other numbers."""
        file = self.proc.parent / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'under_oom 0\noom 9\noom_kill {kills}\noom_group_kill 0\n')

    def groups(self, own: str, root: str = '/') -> None:
        """Say which control group this process is in, and what is mounted."""
        (self.proc / 'self/cgroup').write_text(f'4:cpu,memory:{own}\n3:cpuset:/\n0::{own}\n')
        (self.proc / 'self/mountinfo').write_text(MOUNTS.format(root=root, point=self.mounted))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine that counts its kills for all programs together."""
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ('own', 'root', 'file'),
    [
        ('/user/node', '/', 'cgroup/two/user/node/memory.events'),
        ('/user/node', '/', 'cgroup/one/user/node/memory.oom_control'),
        ('/docker/4711', '/docker/4711', 'cgroup/two/memory.events'),
        ('/docker/4711/node', '/docker/4711', 'cgroup/one/node/memory.oom_control'),
    ],
)
def test_the_count_of_the_own_control_group_is_believed(
    machine: Machine, own: str, root: str, file: str
) -> None:
    machine.groups(own, root)
    machine.count(file, 0)
    kills = MemoryKills(machine.proc)
    machine.count('proc/vmstat', 8)
    assert kills.take(0) is MemoryKill.NONE
    machine.count(file, 1)
    assert kills.take(1) is MemoryKill.OURS
    assert kills.take(1) is MemoryKill.NONE


def test_else_the_count_of_the_machine_says_probably(machine: Machine) -> None:
    machine.groups('/user/node')
    kills = MemoryKills(machine.proc)
    assert kills.take(0) is MemoryKill.NONE
    machine.count('proc/vmstat', 4)
    assert kills.take(0) is MemoryKill.SOME


def test_a_rise_explains_as_many_deaths_for_a_while(machine: Machine) -> None:
    kills = MemoryKills(machine.proc)
    machine.count('proc/vmstat', 6)
    kills.look(10)
    kills.look(10.5)
    assert [kills.take(11) for _ in range(4)] == [MemoryKill.SOME] * 3 + [MemoryKill.NONE]
    machine.count('proc/vmstat', 7)
    kills.look(20)
    kills.look(20 + FRESH_SECONDS + 0.1)
    assert kills.take(20 + FRESH_SECONDS + 0.1) is MemoryKill.NONE


def test_a_system_that_counts_nothing_leaves_it_open(tmp_path: Path) -> None:
    assert MemoryKills(tmp_path).take(0) is MemoryKill.UNKNOWN
