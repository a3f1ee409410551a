"""Directories that two users share: gates that close, and no link that leads out (K10).

Only root can give files to a group that it is no member of; the users are numbers.
"""

import os
import stat
from pathlib import Path

import pytest

from nodeserver.core.errors import FileRefused, UsageError
from nodeserver.io.below import remove_empty, unlock
from nodeserver.io.directories import SharedDirectories
from nodeserver.io.filetree import FileTree
from nodeserver.io.privileges import JobUser
from nodeserver.wire.manifest import FileEntry

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason='only root can change groups at will')
JOB_USER = JobUser(61001, 61002)


class NoRemover:
    def remove(self, path: Path) -> None:
        raise AssertionError(f'{path} is removable without the other user')


def directories(prefix: Path) -> SharedDirectories:
    prefix.mkdir(exist_ok=True)
    return SharedDirectories(prefix, JOB_USER, NoRemover())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_gate_is_open_while_a_computation_below_it_is(tmp_path: Path) -> None:
    shared = directories(tmp_path)
    one, two = shared.make(1, 'f', 'a/b'), shared.make(2, 'f', 'a')
    gate = tmp_path / 'a'
    assert (one, two) == (gate / 'files' / 'b', gate / 'files')
    assert (mode(gate), mode(one), mode(two)) == (0o710, 0o2770, 0o2770)
    assert {path.stat().st_gid for path in (gate, one, two)} == {JOB_USER.gid}
    shared.leave(1)
    assert mode(gate) == 0o710
    shared.leave(2)
    assert mode(gate) == 0o700
    assert shared.make(3, 'f', 'a') == two
    assert mode(gate) == 0o710
    shared.leave(3)


def test_another_node_neither_closes_a_gate_in_use_nor_leaves_one_open(tmp_path: Path) -> None:
    first = directories(tmp_path)
    first.make(1, 'f', 'a')
    (tmp_path / 'b').mkdir(0o710)  # of a node that was killed
    os.chown(tmp_path / 'b', -1, JOB_USER.gid)
    second = directories(tmp_path)
    assert (mode(tmp_path / 'a'), mode(tmp_path / 'b')) == (0o710, 0o700)
    second.make(2, 'f', 'a')
    second.leave(2)
    assert mode(tmp_path / 'a') == 0o710
    first.leave(1)
    assert mode(tmp_path / 'a') == 0o700


def test_what_else_the_user_keeps_in_the_prefix_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / 'public').mkdir()
    (tmp_path / 'public').chmod(0o755)
    (tmp_path / 'shared').mkdir()
    (tmp_path / 'shared').chmod(0o710)  # for a group of the user's own
    (tmp_path / 'link').symlink_to(tmp_path / 'public')
    directories(tmp_path)
    assert (mode(tmp_path / 'public'), mode(tmp_path / 'shared')) == (0o755, 0o710)


def test_a_directory_that_cannot_be_made_leaves_its_gate_closed(tmp_path: Path) -> None:
    shared, outside = directories(tmp_path), tmp_path.parent / 'outside'
    outside.mkdir(exist_ok=True)
    there = shared.make(1, 'f', 'a')
    (there / 'way').symlink_to(outside)
    shared.leave(1)
    with pytest.raises(OSError, match=r'Not a directory|Too many levels'):
        shared.make(2, 'f', 'a/way/out')
    with pytest.raises(UsageError, match='dest_path'):
        shared.make(2, 'f', '../out')
    assert mode(tmp_path / 'a') == 0o700
    assert list(outside.iterdir()) == []


def test_files_are_not_led_elsewhere_by_a_directory_that_a_job_has_replaced(tmp_path: Path) -> None:
    shared, outside = directories(tmp_path / 'prefix'), tmp_path / 'outside'
    (outside / 'c').mkdir(parents=True)
    root = shared.make(1, 'f', 'a/b/c')
    (root.parent.parent / 'b').rename(root.parent.parent / 'moved')
    (root.parent.parent / 'b').symlink_to(outside)
    tree = FileTree(root, makes_root=True, base=shared.base(root))
    with pytest.raises((OSError, FileRefused)):
        tree.put(FileEntry(b'file', 1, 0, 0o644), b'x')
    tree.close()
    with pytest.raises(OSError, match=r'Not a directory|Too many levels'):
        shared.remove([root])
    remove_empty(shared.prefix, root.relative_to(shared.prefix).parts)
    assert [path.name for path in outside.iterdir()] == ['c']
    assert list((outside / 'c').iterdir()) == []
    shared.leave(1)


def test_files_for_two_users_have_the_modes_of_their_group_too(tmp_path: Path) -> None:
    shared = directories(tmp_path)
    root = shared.make(1, 'f', '')
    tree = FileTree(root, base=shared.base(root))
    for name, given, wanted in [(b'x', 0o755, 0o770), (b'd/r', 0o400, 0o440), (b'w', 0o644, 0o660)]:
        tree.put(FileEntry(name, 1, 0, given), b'x')
        made = root / os.fsdecode(name)
        assert (mode(made), made.stat().st_gid) == (wanted, JOB_USER.gid)
    assert mode(root / 'd') == 0o2770
    tree.close()
    shared.remove([root])
    assert list(tmp_path.iterdir()) == []
    shared.leave(1)


def test_unlock_follows_no_link(tmp_path: Path) -> None:
    outside, place = tmp_path / 'outside', tmp_path / 'place'
    outside.mkdir(0o500)
    (place / 'closed' / 'in').mkdir(parents=True)
    (place / 'closed' / 'in').chmod(0)
    (place / 'closed' / 'way').symlink_to(outside)
    (place / 'closed').chmod(0)
    unlock(place, 0o700)
    assert (mode(place / 'closed'), mode(place / 'closed' / 'in')) == (0o700, 0o700)
    assert mode(outside) == 0o500
