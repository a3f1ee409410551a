"""Modules that jobs' arguments need: the first job tells them, and the template imports them once.

    job: unpickle arguments ── imported modules? ──▶ page ──▶ template, before its next fork

Each process forked for a job would import numpy anew for the arrays it is given: 60 ms a job.
What a function imports itself is not told: it may have set up before how that is to be imported.
"""

import contextlib
import importlib
import os
import struct
import sys
from collections.abc import Iterable, Iterator
from mmap import mmap

from nodeserver.usercode import is_installed

_SIZE = 65536
_length = struct.Struct('<I')
_ROOM = _SIZE - _length.size


class Needs:
    """A page that a template shares with its forks: names of modules, and their length before."""

    def __init__(self) -> None:
        self._page = mmap(-1, _SIZE)

    def tell(self, names: Iterable[str]) -> None:
        """Write down, in a job's process, what its arguments needed."""
        text = '\n'.join(names).encode()
        if len(text) > _ROOM:
            text = text[:_ROOM].rpartition(b'\n')[0]
        self._page[_length.size : _length.size + len(text)] = text
        self._page[: _length.size] = _length.pack(len(text))  # last: it says that all is there

    def take(self) -> list[str]:
        """Read, in the template, what was told since the last time; a job may write anything."""
        size = _length.unpack_from(self._page)[0]
        if not size:
            return []
        self._page[: _length.size] = _length.pack(0)
        text = self._page[_length.size : _length.size + min(size, _ROOM)]
        return text.decode(errors='replace').split('\n')


def imported_since(count: int) -> Iterator[str]:
    """Name the modules of installed packages that came after the first so many.

    None where importing them has started threads: a process with threads is not to be forked.
    """
    names = list(sys.modules)[count:]
    if len(os.listdir('/proc/self/task')) == 1:  # noqa: PTH208 - in each such job
        yield from filter(_is_of_a_package, names)


def import_all(names: Iterable[str]) -> None:
    """Import modules as jobs have done; what cannot be imported here, they will import."""
    for name in names:
        if name.isprintable() and name not in sys.modules:
            with contextlib.suppress(Exception, SystemExit):
                importlib.import_module(name)


def _is_of_a_package(name: str) -> bool:
    origin = getattr(sys.modules.get(name), '__file__', None)
    return isinstance(origin, str) and is_installed(origin)
