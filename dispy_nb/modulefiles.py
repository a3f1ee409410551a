"""Where modules come from: found as `import` finds them, and without importing anything.

A module that is loaded is taken from where it was loaded; others are looked for on `sys.path`, and
at last by the finders of editable installs.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    BuiltinImporter,
    FrozenImporter,
    PathFinder,
)
from pathlib import Path
from typing import TypeVar

from dispy_nb.importscan import Scan, scan_source
from nodeserver.usercode import is_installed

_SUFFIXES = (*EXTENSION_SUFFIXES, *SOURCE_SUFFIXES, *BYTECODE_SUFFIXES)  # in Python's order
_STANDARD_FINDERS = (BuiltinImporter, FrozenImporter, PathFinder)
_SETTLING = 2_000_000_000  # ns: what was changed just now may be again, unseen by its time
_OURS = ('dispy_nb', 'nodeserver')
_MAIN = ('__main__', '__mp_main__')

T = TypeVar('T')

Stamp = tuple[int, int]  # time of the last change, and size

_listings: dict[str, tuple[Stamp, frozenset[str]]] = {}
_scans: dict[str, tuple[Stamp, Scan]] = {}


@dataclass(frozen=True, slots=True)
class ModuleFile:
    """A module: its file, and where its submodules are if it is a package.

    A package of several directories without `__init__.py` has no file.
    """

    name: str
    source: str
    directories: tuple[str, ...] | None = None

    @property
    def is_package(self) -> bool:
        """Whether it can have submodules."""
        return self.directories is not None

    @property
    def is_own(self) -> bool:
        """Whether it is the user's and no part of Python, an installed package, or us."""
        if self.name.partition('.')[0] in _OURS:
            return False
        if self.source:
            return not is_installed(self.source)
        return not all(is_installed(f'{place}/__init__.py') for place in self.directories or ())

    @property
    def is_elsewhere(self) -> bool:
        """Whether PYTHONPATH leads to it, out of the program's directory.

        It may be software that nodes have at the same place, such as that of a computing centre.
        """
        path = Path(self.source)
        entries = filter(None, os.environ.get('PYTHONPATH', '').split(os.pathsep))
        return any(path.is_relative_to(Path(entry).absolute()) for entry in entries) and not any(
            path.is_relative_to(directory) for directory in _directories_of_program()
        )

    @property
    def package(self) -> str:
        """The package that its relative imports start from."""
        return self.name if self.is_package else self.name.rpartition('.')[0]


class ModuleFiles:
    """One look around: each directory and file is looked at once, whoever asks for it."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}  # of the files that were scanned
        self._modules: dict[str, ModuleFile | None] = {}
        self._entries: dict[str, frozenset[str] | None] = {}
        self._path = list(_search_path())

    def find(self, name: str) -> ModuleFile | None:
        """Find a module; None where `import` finds none either, or none that has a file."""
        if name not in self._modules:
            loaded = _loaded(name)
            if loaded and loaded.source and not os.path.isfile(loaded.source):  # noqa: PTH113
                loaded = None  # removed, or in an archive
            self._modules[name] = loaded or self._on_path(name)
        return self._modules[name]

    def scan(self, source: str) -> Scan:
        """List what a file imports."""
        try:
            stamp = _stamp(os.stat(source))  # noqa: PTH116 - twice as quick
            self.sizes[source] = stamp[1]
            known = _scans.get(source)
            if known is None or known[0] != stamp:
                known = stamp, scan_source(Path(source).read_bytes())
                _keep(_scans, source, known)
        except OSError:  # gone meanwhile
            return Scan()
        return known[1]

    def _on_path(self, name: str) -> ModuleFile | None:
        parent_name, _, last = name.rpartition('.')
        if parent_name:
            parent = self.find(parent_name)
            return self._in(name, last, parent.directories or ()) if parent else None
        if name in sys.builtin_module_names or FrozenImporter.find_spec(name) is not None:
            return None
        return self._in(name, name, self._path) or _by_other_finders(name)

    def _in(self, name: str, last: str, directories: Iterable[str]) -> ModuleFile | None:
        """Look for a package's or module's file, in each directory as Python's finder does."""
        portions = []
        for directory in directories:
            entries = self._list(directory) or frozenset()
            inner = self._list(f'{directory}/{last}') if last in entries else None
            if inner is not None:
                for file in _of_suffixes('__init__', inner):
                    path = f'{directory}/{last}'
                    return ModuleFile(name, f'{path}/{file}', (path,))
                portions.append(f'{directory}/{last}')
            for file in _of_suffixes(last, entries):
                return ModuleFile(name, f'{directory}/{file}')
        return ModuleFile(name, '', tuple(portions)) if portions else None

    def _list(self, directory: str) -> frozenset[str] | None:
        """Name what is in a directory; None if it is none."""
        if directory not in self._entries:
            self._entries[directory] = _listing(directory)
        return self._entries[directory]


def own_names(names: Iterable[str]) -> Iterator[str]:
    """Yield the names of loaded modules that are the user's, and no nodes'."""
    for name in names:
        module = _loaded(name)
        if module is not None and module.source and module.is_own and not module.is_elsewhere:
            yield name


def _search_path() -> Iterator[str]:
    """Yield the directories that `import` looks into, which passes over what is no text."""
    for entry in sys.path:
        if isinstance(entry, str):
            with contextlib.suppress(OSError):  # the current directory, which was removed
                yield str(Path(entry).absolute())


def _directories_of_program() -> Iterator[Path]:
    """Where the program is, and where it was started."""
    main = getattr(sys.modules.get('__main__'), '__file__', None)
    if isinstance(main, str):
        yield Path(main).absolute().parent
    with contextlib.suppress(OSError):  # a directory that was removed
        yield Path.cwd()


def _of_suffixes(stem: str, entries: frozenset[str]) -> Iterator[str]:
    return (stem + suffix for suffix in _SUFFIXES if stem + suffix in entries)


def _listing(directory: str) -> frozenset[str] | None:
    try:
        stamp = _stamp(Path(directory).stat())
        known = _listings.get(directory)
        if known is None or known[0] != stamp:
            known = stamp, frozenset(os.listdir(directory))  # noqa: PTH208 - names are enough
            _keep(_listings, directory, known)
    except OSError:
        return None
    return known[1]


def _stamp(stat: os.stat_result) -> Stamp:
    return stat.st_mtime_ns, stat.st_size


def _keep(cache: dict[str, tuple[Stamp, T]], key: str, known: tuple[Stamp, T]) -> None:
    """Remember what was read, unless a second change might leave the same stamp."""
    if time.time_ns() - known[0][0] > _SETTLING:
        cache[key] = known
    else:
        cache.pop(key, None)


def _loaded(name: str) -> ModuleFile | None:
    """Where a loaded module came from, without waking modules that load themselves when asked."""
    module = sys.modules.get(name)
    if module is None or name in _MAIN:
        return None
    try:
        facts = object.__getattribute__(module, '__dict__')
        source, path = facts.get('__file__'), facts.get('__path__')
        directories = None if path is None else tuple(map(str, path))
    except Exception:  # noqa: BLE001 - anything can be put there
        return None
    if isinstance(source, str):
        return ModuleFile(name, source, directories)
    return ModuleFile(name, '', directories) if source is None and directories else None


def _by_other_finders(name: str) -> ModuleFile | None:
    """Ask what editable installs have put beside Python's own finders."""
    for finder in sys.meta_path:
        find = getattr(finder, 'find_spec', None)
        if finder in _STANDARD_FINDERS or find is None:
            continue
        try:
            spec = find(name, None, None)
        except Exception:  # noqa: BLE001 - a finder of others
            continue
        if spec is not None and isinstance(spec.origin, str) and Path(spec.origin).is_file():
            places: Sequence[str] | None = spec.submodule_search_locations
            return ModuleFile(name, spec.origin, None if places is None else tuple(places))
    return None
