"""Files and modules that a cluster or a job depends on: found, named, and digested.

    depends ──▶ `gather` ──▶ (place on the node, file here) ──▶ `digest` ──▶ SourceFiles

A file below the working directory keeps its path there, others lie in the job's directory itself;
a module lies where it can be imported; a directory is sent with all that is in it.
"""

import os
import stat
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from nodeserver.core.errors import FileRefused, UsageError
from nodeserver.io.filetree import digest_file
from nodeserver.wire.digest import digest_of, new_digest
from nodeserver.wire.manifest import (
    MOST_FILES,
    FileEntry,
    decode_manifest,
    encode_manifest,
    why_refused,
)

_COMPILED = ('.so', '.pyd', '.dll', '.dylib')
_SETTLED_SECONDS = 2.0  # a file that was changed later may change again at the same time stamp
_MOST_DIGESTS = 100_000
_SMALL, _MOST_KEPT = 65536, 16 << 20  # bytes of a file that is kept, and of all of a cluster
_READ = os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0)

_Key = tuple[int, int, int, int]  # device, inode, size, time of change
_digests: dict[_Key, bytes] = {}
_digesting: dict[_Key, threading.Lock] = {}  # those that are being made
_keeping = threading.Lock()


class Dependency(NamedTuple):
    """A file, and where it is to lie on the node."""

    path: str  # relative, with '/'
    source: str  # absolute


class Digested(NamedTuple):
    """A file as it was when it was digested; small ones are kept, whatever becomes of them."""

    entry: FileEntry
    source: str
    content: bytes | None = None


class SourceFiles:
    """Files to be sent, as they were when they were digested."""

    def __init__(self, files: Sequence[Digested]) -> None:
        self._files = files
        self.entries = [file.entry for file in files]
        self.manifest = encode_manifest(self.entries)

    def kept(self, file: int) -> bytes | None:
        """The whole content of one, if it is at hand."""
        return self._files[file].content

    def sources(self) -> list[tuple[str, bytes | None]]:
        """Say where each of them is, and its content if that is kept."""
        return [(file.source, file.content) for file in self._files]

    @classmethod
    def found_again(
        cls, manifest: bytes, sources: Sequence[tuple[str, bytes | None]]
    ) -> 'SourceFiles':
        """Have those again of which these were the manifest and the sources."""
        pairs = zip(decode_manifest(manifest), sources, strict=True)
        return cls([Digested(entry, *source) for entry, source in pairs])

    def open(self, file: int) -> int:
        """Open one for reading."""
        return os.open(self._files[file].source, _READ)

    def joined(self, others: 'SourceFiles') -> 'SourceFiles':
        """These and others; where both have a place, it is the others' file that lies there."""
        if not self or not others:
            return others or self
        by_path = {file.entry.path: file for file in (*self._files, *others._files)}
        return SourceFiles(list(by_path.values()))

    def __bool__(self) -> bool:
        return bool(self._files)


NO_FILES = SourceFiles([])


NO_PART = object()  # in place of an element that is no file, so that others keep their numbers


def gather(name: str, parts: Iterable[object]) -> list[Dependency]:
    """Find the files that elements of a list of dependencies mean (F06-F08).

    Raises
    ------
    UsageError
        One is missing, no file, leads out of its tree, or two want the same place; it is named.
    """
    found: dict[str, Dependency] = {}
    for place, part in enumerate(parts):
        if part is NO_PART:
            continue
        who = f'{name}[{place}]'
        files = _of_module(who, part) if isinstance(part, ModuleType) else _of_path(who, part)
        for dependency in files:
            _enter(found, dependency, who)
    return list(found.values())


def _enter(found: dict[str, Dependency], new: Dependency, who: str) -> None:
    before = found.get(new.path)
    if before is not None and not _is_same(before.source, new.source):
        raise UsageError(
            f'{who}: {new.source} and {before.source} would both be {new.path} on the node: '
            'files outside of the working directory lie there under their names alone'
        )
    why = why_refused(os.fsencode(new.path))
    if why:
        raise UsageError(f'{who}: {new.source!s}: {why}')
    found[new.path] = new


def _is_same(one: str, other: str) -> bool:
    return one == other or os.path.samefile(one, other)  # noqa: PTH121 - texts are quicker


def _of_path(who: str, part: Any) -> Iterator[Dependency]:
    path = os.fsdecode(part)
    found = _stat(who, path)
    whole = os.path.abspath(path)  # noqa: PTH100 - links keep their names
    here = os.getcwd() + os.sep  # noqa: PTH109
    if whole + os.sep == here:
        there = ''
    else:
        there = whole.removeprefix(here) if whole.startswith(here) else _name_of(whole)
    there = there.replace(os.sep, '/')
    if stat.S_ISDIR(found.st_mode):
        yield from _of_tree(who, whole, there)
    else:
        _check_file(who, path, found)
        yield Dependency(there, whole)


def _name_of(path: str) -> str:
    return path.rpartition(os.sep)[2]


def _of_tree(
    who: str, root: str, there: str, skips: bool = False, top: str = ''
) -> Iterator[Dependency]:
    """All files below a directory; of a package (`skips`) without what Python compiled."""
    top = top or root
    try:
        found = sorted(os.scandir(root), key=lambda each: each.name)
    except OSError as error:
        raise UsageError(f'{who}: {root} cannot be read: {error.strerror}') from error
    for each in found:
        path = f'{there}/{each.name}' if there else each.name
        if each.is_symlink():
            _check_link(who, each.path, top)
        if each.is_dir(follow_symlinks=False):
            if not (skips and each.name == '__pycache__'):
                yield from _of_tree(who, each.path, path, skips, top)
        elif not (skips and each.name.endswith('.pyc')):
            if skips and each.name.endswith(_COMPILED):
                raise _compiled(who, each.path)
            if not each.is_file():
                _check_file(who, each.path, _stat(who, each.path))
            yield Dependency(path, each.path)


def _check_link(who: str, link: str, top: str) -> None:
    """Refuse a link to a directory, or to what lies outside of the one that it is in."""
    target, tree = os.path.realpath(link), os.path.realpath(top)
    if os.path.isdir(target):  # noqa: PTH112
        raise UsageError(f'{who}: {link} is a link to a directory: list that by itself')
    if not target.startswith(tree + os.sep):
        raise UsageError(f'{who}: {link} is a link that leads out of {top}')


def _stat(who: str, path: str) -> os.stat_result:
    try:
        return os.stat(path)  # noqa: PTH116
    except (OSError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or str(error)
        raise UsageError(f'{who}: {path!r} cannot be sent: {reason}') from error


def _check_file(who: str, path: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f'{who}: {path!r} is neither a file nor a directory')


def _of_module(who: str, module: ModuleType) -> Iterator[Dependency]:
    """A module's file, or its package with all that is in it, where it can be imported (F06)."""
    name = module.__name__
    if name.partition('.')[0] in sys.stdlib_module_names:
        return
    origin = getattr(module, '__file__', None)
    packages = list(getattr(module, '__path__', ()))
    if origin is None and not packages:
        raise UsageError(f'{who}: module {name} has no file that could be sent')
    yield from _of_parents(name)
    there = name.replace('.', '/')
    if packages:
        for package in packages:
            yield from _of_tree(who, os.path.abspath(package), there, skips=True)  # noqa: PTH100
        return
    source = os.path.abspath(str(origin))  # noqa: PTH100
    if source.endswith(_COMPILED):
        raise _compiled(who, source)
    _check_file(who, source, _stat(who, source))
    yield Dependency(there + os.path.splitext(source)[1], source)  # noqa: PTH122


def _of_parents(name: str) -> Iterator[Dependency]:
    """What makes packages of the directories above a module."""
    while '.' in name:
        name = name.rpartition('.')[0]
        origin = getattr(sys.modules.get(name), '__file__', None)
        if origin is not None:
            source = os.path.abspath(origin)  # noqa: PTH100
            yield Dependency(f'{name.replace(".", "/")}/{_name_of(source)}', source)


def _compiled(who: str, source: str) -> UsageError:
    return UsageError(
        f'{who}: {source} is compiled and may not run on the nodes: install its package there'
    )


def digest(name: str, dependencies: Sequence[Dependency]) -> SourceFiles:
    """Read the files once, for the digests by which nodes know what they have already.

    Raises
    ------
    UsageError
        One cannot be read.
    """
    if len(dependencies) > MOST_FILES:
        raise UsageError(f'{name} has {len(dependencies):,} files, {MOST_FILES:,} are allowed')
    files: list[Digested] = []
    room = _MOST_KEPT
    for dependency in dependencies:
        try:
            files.append(_digested(dependency, min(room, _SMALL)))
        except FileRefused as error:
            raise UsageError(f'{name}: {dependency.source}: {error}') from error
        except OSError as error:
            text = f'{name}: {dependency.source} cannot be read: {error.strerror}'
            raise UsageError(text) from error
        room -= len(files[-1].content or b'')
    return SourceFiles(files)


def _digested(dependency: Dependency, most_kept: int) -> Digested:
    path, source = os.fsencode(dependency.path), dependency.source
    fd = os.open(source, _READ)
    content: bytes | None = None
    try:
        found = os.fstat(fd)
        if found.st_size <= most_kept:
            content = os.read(fd, found.st_size + 1)
            if len(content) != found.st_size:
                raise FileRefused('it changes while it is read')
            digest = digest_of(new_digest(content))
        else:
            digest = _digest_of_large(fd, found)
    finally:
        os.close(fd)
    mode = stat.S_IMODE(found.st_mode)
    origin = os.fsencode(source)
    entry = FileEntry(path, found.st_size, found.st_mtime_ns, mode, digest, origin)
    return Digested(entry, source, content)


def _digest_of_large(fd: int, found: os.stat_result) -> bytes:
    key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    with _keeping:
        lock = _digesting.setdefault(key, threading.Lock())
    try:
        with lock:  # whoever wants the same digest waits for it
            known = _digests.get(key)
            if known is not None:
                return known
            digest = digest_file(fd, found.st_size)
            if time.time() - found.st_mtime > _SETTLED_SECONDS:
                if len(_digests) >= _MOST_DIGESTS:
                    _digests.clear()
                _digests[key] = digest
            return digest
    finally:
        with _keeping:
            _digesting.pop(key, None)
