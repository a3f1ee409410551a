"""A computation's directory is private, below the prefix, and goes without taking others along."""

import os
import stat
from pathlib import Path

import pytest

from nodeserver.core.errors import UsageError
from nodeserver.io.prefix import own
from nodeserver.io.workdir import default_prefix, make_directory, remove_directory


def test_each_computation_has_a_private_directory_of_its_own(tmp_path: Path) -> None:
    one = make_directory(tmp_path, 0xABC, 'com pute/../x', '')
    two = make_directory(tmp_path, 0xDEF, 'com pute/../x', '')
    assert one != two
    assert one.parent == two.parent == tmp_path
    assert one.name.endswith('_abc')
    assert stat.S_IMODE(one.stat().st_mode) == 0o700


def test_dest_path_is_below_the_prefix_and_shared(tmp_path: Path) -> None:
    made = make_directory(tmp_path, 1, 'f', 'a/b')
    assert made == tmp_path / 'a' / 'b'
    assert make_directory(tmp_path, 2, 'g', 'a/b') == made


@pytest.mark.parametrize('dest_path', ['/etc', '..', 'a/../../b', '.', 'a\0b'])
def test_dest_path_that_leaves_the_prefix_is_refused(tmp_path: Path, dest_path: str) -> None:
    with pytest.raises(UsageError, match='dest_path'):
        make_directory(tmp_path, 1, 'f', dest_path)


def test_link_out_of_the_prefix_is_refused(tmp_path: Path) -> None:
    prefix, outside = tmp_path / 'prefix', tmp_path / 'outside'
    prefix.mkdir()
    outside.mkdir()
    (prefix / 'way').symlink_to(outside)
    with pytest.raises(UsageError, match='no directory'):
        make_directory(prefix, 1, 'f', 'way/out')
    assert list(outside.iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason='only root can give a directory away')
def test_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'theirs').mkdir()
    os.chown(tmp_path / 'theirs', 12345, 12345)
    with pytest.raises(UsageError, match='another user'):
        make_directory(tmp_path, 1, 'f', 'theirs')


def test_removal_never_follows_links_and_keeps_the_prefix(tmp_path: Path) -> None:
    prefix, outside = tmp_path / 'prefix', tmp_path / 'outside'
    outside.mkdir()
    (outside / 'precious').touch()
    made = make_directory(prefix, 1, 'f', 'a/b')
    (made / 'link').symlink_to(outside)
    (made / 'locked').mkdir()
    (made / 'locked' / 'file').touch()
    (made / 'locked').chmod(0o500)
    remove_directory(made, prefix)
    assert list(prefix.iterdir()) == []
    assert (outside / 'precious').exists()


def test_removal_leaves_neighbours_alone(tmp_path: Path) -> None:
    one = make_directory(tmp_path, 1, 'f', 'a/b')
    two = make_directory(tmp_path, 2, 'f', 'a/c')
    remove_directory(one, tmp_path)
    assert two.exists()
    assert not one.exists()


def test_directory_replaced_by_a_link_is_only_unlinked(tmp_path: Path) -> None:
    prefix, outside = tmp_path / 'prefix', tmp_path / 'outside'
    outside.mkdir()
    made = make_directory(prefix, 1, 'f', '')
    made.rmdir()
    made.symlink_to(outside)
    remove_directory(made, prefix)
    assert outside.exists()
    assert not made.is_symlink()


def test_nothing_outside_the_prefix_is_removed(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        remove_directory(tmp_path / 'outside', tmp_path / 'prefix')


def test_default_prefix_is_private_and_checked(own_home: Path) -> None:
    prefix = default_prefix(51348)
    assert prefix.is_relative_to(own_home)
    assert prefix.name == 'node-51348'
    assert stat.S_IMODE(prefix.parent.stat().st_mode) == 0o700
    assert default_prefix(51348) == prefix
    prefix.parent.chmod(0o777)
    with pytest.raises(UsageError, match='open to other users'):
        default_prefix(51348)


@pytest.mark.parametrize('mode', [0o770, 0o707])
def test_a_directory_that_others_can_write_is_refused_in_words(tmp_path: Path, mode: int) -> None:
    shared = tmp_path / 'shared'
    shared.mkdir()
    shared.chmod(mode)
    with pytest.raises(UsageError, match=f'chmod go-w {shared}'):
        own(shared)
    with pytest.raises(UsageError, match=f'chmod go-w {shared}'):
        make_directory(tmp_path, 1, 'f', 'shared')


def test_a_prefix_where_all_may_write_but_remove_only_their_own_is_taken(tmp_path: Path) -> None:
    sticky = tmp_path / 'scratch'
    sticky.mkdir()
    sticky.chmod(0o1777)
    assert own(sticky) == sticky
