"""Memory that control groups leave: a limit of any group around counts, cached files do not."""

from pathlib import Path

import pytest

from nodeserver.io.controlgroups import memory_left

MOUNTS = """\
25 20 0:22 / {point}/two rw shared:9 - cgroup2 cgroup2 rw
26 20 0:23 / {point}/one rw,relatime - cgroup cgroup rw,memory
"""


class Kernel:
    """What a kernel shows, in files of the test; this process is in group `/outer/inner`."""

    def __init__(self, path: Path) -> None:
        self.proc, self.mounted = path / 'proc', path / 'groups'
        (self.proc / 'self').mkdir(parents=True)
        (self.proc / 'self/cgroup').write_text('4:memory:/outer/inner\n0::/outer/inner\n')
        (self.proc / 'self/mountinfo').write_text(MOUNTS.format(point=self.mounted))

    def group(self, name: str, **files: str) -> None:
        """Show a group; `_` stands for a dot."""
        directory = self.mounted / name
        directory.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            (directory / file.replace('_', '.', 1)).write_text(f'{content}\n')


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """A kernel that shows no figures yet."""
    return Kernel(tmp_path)


def test_without_limits_nothing_is_said(kernel: Kernel, tmp_path: Path) -> None:
    assert memory_left(kernel.proc) is None
    kernel.group('two/outer', memory_max='max', memory_current='5', memory_stat='file 1')
    assert memory_left(kernel.proc) is None
    assert memory_left(tmp_path / 'no such system') is None


def test_the_smallest_of_the_groups_around_counts(kernel: Kernel) -> None:
    cached = 'anon 7\ninactive_file 100\nactive_file 20\nfile 999'
    kernel.group('two/outer/inner', memory_max='9000', memory_current='1000', memory_stat='anon 1')
    assert memory_left(kernel.proc) == 8000
    kernel.group('two/outer', memory_max='5000', memory_current='1000', memory_stat=cached)
    assert memory_left(kernel.proc) == 4120
    kernel.group('two', memory_max='1000', memory_current='3000', memory_stat=cached)
    assert memory_left(kernel.proc) == 0


def test_version_1_counts_cached_files_of_all_groups_below(kernel: Kernel) -> None:
    kernel.group(
        'one/outer',
        memory_limit_in_bytes='7000',
        memory_usage_in_bytes='2000',
        memory_stat='inactive_file 1\nactive_file 1\ntotal_inactive_file 200\ntotal_active_file 50',
    )
    assert memory_left(kernel.proc) == 5250
