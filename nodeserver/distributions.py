"""Installed distributions and their versions, read from the names of their directories.

Client and template both ask.  `importlib.metadata` would say the same, but loads 45 modules for it:
a third of the time in which `dispy_nb` is imported, and memory that each fork of a template shares.
"""

import functools
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

_IGNORED = ('..', '__pycache__')


class Requirement(NamedTuple):
    """A package that a function imports, as it is installed at the client."""

    module: str
    distribution: str
    version: str


class Distribution(NamedTuple):
    """An installed distribution; `directory` has its metadata."""

    name: str
    version: str
    directory: Path


Catalogue = dict[str, Distribution]  # by normalized name
_catalogues: dict[tuple[tuple[str, int], ...], Catalogue] = {}
_providers: dict[tuple[tuple[str, int], ...], dict[str, list[Distribution]]] = {}


def installed() -> Catalogue:
    """List what is installed now, by normalized name; the first on `sys.path` counts."""
    key = _key()
    if key not in _catalogues:
        _catalogues.clear()
        found: Catalogue = {}
        for directory, _ in key:
            for distribution in _in_directory(Path(directory)):
                found.setdefault(normalized(distribution.name), distribution)
        _catalogues[key] = found
    return _catalogues[key]


def provider_of(module: str) -> Distribution | None:
    """Find the one distribution that a top-level module belongs to; None if several share it."""
    catalogue = installed()
    namesake = catalogue.get(normalized(module))
    if namesake is not None and module in _modules_of(namesake):
        return namesake
    key = _key()
    if key not in _providers:
        _providers.clear()
        providers = _providers[key] = {}
        for distribution in catalogue.values():
            for name in _modules_of(distribution):
                providers.setdefault(name, []).append(distribution)
    found = _providers[key].get(module, [])
    return found[0] if len(found) == 1 else None


def normalized(name: str) -> str:
    """Write a distribution's name as all its spellings are compared."""
    return re.sub(r'[-_.]+', '_', name).lower()


def _key() -> tuple[tuple[str, int], ...]:
    """What can be installed where: it changes when something is installed or removed."""
    directories = []
    for entry in sys.path:
        if not isinstance(entry, str):
            continue
        directory = Path(entry)
        try:
            directories.append((str(directory.absolute()), directory.stat().st_mtime_ns))
        except OSError:
            continue  # the library's zip file, mostly, which is not there
    return tuple(directories)


def _in_directory(directory: Path) -> Iterator[Distribution]:
    try:
        entries = sorted(os.listdir(directory))  # noqa: PTH208 - names are enough, of thousands
    except OSError:
        return
    for entry in entries:
        if entry.endswith(('.dist-info', '.egg-info')):
            name, version, *_ = (*entry.rpartition('.')[0].split('-'), '')
            version = version or _written_version(directory / entry)
            if name and version:
                yield Distribution(name, version, directory / entry)


def _written_version(directory: Path) -> str:
    """Read a version that the directory's name does not tell, as with old editable installs."""
    for line in _lines(directory / 'PKG-INFO'):
        if line.startswith('Version:'):
            return line.partition(':')[2].strip()
        if not line:
            break
    return ''


@functools.lru_cache(1024)
def _modules_of(distribution: Distribution) -> frozenset[str]:
    """Name the top-level modules of a distribution."""
    listed = _lines(distribution.directory / 'top_level.txt')
    if listed:
        return frozenset(line.strip() for line in listed)
    paths = (line.partition(',')[0] for line in _lines(distribution.directory / 'RECORD'))
    return frozenset(_tops(path.strip('"').split('/') for path in paths))


def _tops(paths: Iterable[Sequence[str]]) -> Iterator[str]:
    for first, *rest in paths:
        if first in _IGNORED or '-' in first:
            continue
        if rest:
            yield first
        elif first.endswith(('.py', '.so', '.pyd')):
            yield first.partition('.')[0]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text('utf-8', 'replace').splitlines()
    except OSError:
        return []
