"""Files in a directory: whole or not at all, and never outside of it."""

import os
from pathlib import Path

import pytest

from nodeserver.core.errors import FileRefused
from nodeserver.io.filetree import PART_NAME, FileTree, digest_file, open_origin
from nodeserver.wire.digest import digest_of, new_digest
from nodeserver.wire.manifest import FileEntry

FDS = Path('/proc/self/fd')
TIME = 1_234_567_890_123_456_789


def entry(path: str, content: bytes, mode: int = 0o644, origin: str = '') -> FileEntry:
    digest = digest_of(new_digest(content))
    return FileEntry(os.fsencode(path), len(content), TIME, mode, digest, os.fsencode(origin))


def put(tree: FileTree, path: str, content: bytes, mode: int = 0o644) -> None:
    new = tree.begin(entry(path, content, mode))
    for at in range(0, len(content), 3):
        new.write(content[at : at + 3])
    new.finish()


@pytest.fixture
def tree(tmp_path: Path) -> FileTree:
    root = tmp_path / 'root'
    root.mkdir()
    return FileTree(root)


def test_a_file_gets_its_name_when_it_is_complete(tree: FileTree) -> None:
    new = tree.begin(entry('deep/er/file', b'content', 0o777))
    new.write(b'cont')
    (part,) = (tree.root / 'deep/er').iterdir()
    assert part.name.startswith(PART_NAME)
    assert part.stat().st_mode & 0o777 == 0o600
    new.write(b'ent')
    new.finish()
    (file,) = (tree.root / 'deep/er').iterdir()
    found = file.stat()
    assert (file.name, file.read_bytes()) == ('file', b'content')
    assert (found.st_mtime_ns, found.st_mode & 0o777) == (TIME, 0o755)  # none but its owner writes
    tree.close()


def test_a_content_that_is_not_the_one_announced_is_not_stored(tree: FileTree) -> None:
    put(tree, 'file', b'before')
    new = tree.begin(entry('file', b'right'))
    new.write(b'wrong')
    with pytest.raises(FileRefused, match='file has changed while it was sent'):
        new.finish()
    new.abandon()
    assert [path.name for path in tree.root.iterdir()] == ['file']
    assert (tree.root / 'file').read_bytes() == b'before'
    tree.close()


@pytest.mark.parametrize('place', ['link', 'link/deeper', 'plain'])
def test_no_link_is_followed_and_no_file_taken_for_a_directory(tree: FileTree, place: str) -> None:
    outside = tree.root.parent / 'outside'
    outside.mkdir()
    (tree.root / 'link').symlink_to(outside)
    (tree.root / 'plain').write_text('file')
    with pytest.raises(FileRefused, match='is a link, or no directory'):
        tree.begin(entry(f'{place}/file', b''))
    assert not tree.has(entry(f'{place}/file', b''))
    tree.remove(os.fsencode(f'{place}/file'))
    assert list(outside.iterdir()) == []
    tree.close()


def test_a_link_in_a_files_place_is_replaced_not_written_through(tree: FileTree) -> None:
    target = tree.root.parent / 'target'
    target.write_bytes(b'theirs')
    (tree.root / 'file').symlink_to(target)
    assert not tree.has(entry('file', b'theirs'))
    put(tree, 'file', b'ours')
    assert target.read_bytes() == b'theirs'
    assert not (tree.root / 'file').is_symlink()
    tree.close()


def test_what_lies_there_is_known_by_its_content_alone(tree: FileTree) -> None:
    put(tree, 'file', b'same')
    os.utime(tree.root / 'file', ns=(1, 1))
    assert tree.has(entry('file', b'same', 0o600))
    found = (tree.root / 'file').stat()
    assert (found.st_mtime_ns, found.st_mode & 0o777) == (TIME, 0o600)
    os.utime(tree.root / 'file', ns=(TIME, TIME))
    assert not tree.has(entry('file', b'Same'))
    os.link(tree.root / 'file', tree.root.parent / 'other')  # whose time and mode are not ours
    assert not tree.has(entry('file', b'same'))
    os.mkfifo(tree.root / 'pipe')
    assert not tree.has(entry('pipe', b''))
    tree.close()


def test_a_copy_that_is_another_content_is_none(tree: FileTree) -> None:
    source = tree.root.parent / 'source'
    source.write_bytes(b'content')
    assert tree.copy(os.open(source, os.O_RDONLY), entry('copy', b'content'))
    assert not tree.copy(os.open(source, os.O_RDONLY), entry('other', b'another'))
    assert [path.name for path in tree.root.iterdir()] == ['copy']
    tree.close()


def test_a_senders_file_is_used_only_where_it_is_as_it_was_said_to_be(tree: FileTree) -> None:
    source = tree.root.parent / 'source'
    source.write_bytes(b'content')
    os.utime(source, ns=(TIME, TIME))
    fd = open_origin(entry('x', b'content', origin=str(source)))
    assert digest_file(fd, 7) == entry('x', b'content').digest
    os.close(fd)
    for other in (
        entry('x', b'longer content', origin=str(source)),
        entry('x', b'content', origin=str(source))._replace(mtime=TIME + 1),
        entry('x', b'content', origin=str(tree.root)),
        entry('x', b'content', origin='/dev/null'),
        entry('x', b'content', origin='nul\0'),
    ):
        assert open_origin(other) == -1


def test_removing_takes_the_directories_that_are_empty_then(tree: FileTree) -> None:
    put(tree, 'a/b/c/file', b'1')
    put(tree, 'a/other', b'2')
    tree.remove(b'a/b/c/file')
    tree.remove(b'a/never/there')
    assert sorted(path.name for path in (tree.root / 'a').iterdir()) == ['other']
    put(tree, 'a/b/again', b'3')  # no descriptor of a directory that is gone is used
    assert (tree.root / 'a/b/again').read_bytes() == b'3'
    tree.close()


def test_many_directories_do_not_use_up_the_descriptors(tree: FileTree) -> None:
    before = len(list(FDS.iterdir()))
    for number in range(300):
        put(tree, f'd{number}/file', b'x')
    assert len(list(FDS.iterdir())) - before < 100
    tree.close()
    assert len(list(FDS.iterdir())) == before
