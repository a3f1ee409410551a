"""What of a program is the user's own, and so has to travel: modules by value, and sources."""

import contextlib
import functools
import linecache
import os
import sys
import sysconfig
import threading
import types
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import cloudpickle

MAX_SOURCE = 262144  # bytes of one file's source that travel along, for tracebacks
_OWN_PACKAGES = ('nodeserver', 'dispy_nb')

_registry_lock = threading.RLock()  # cloudpickle's registry of modules by value is global


def modules_by_value(part: object) -> Iterator[str]:
    """Name the modules of the user's own that a callable comes from."""
    if isinstance(part, partial):
        for inner in (part.func, *part.args, *part.keywords.values()):
            yield from modules_by_value(inner)
        return
    owner = getattr(part, '__self__', None)
    for obj in (part, type(part), type(owner), getattr(part, '__wrapped__', None)):
        name = getattr(obj, '__module__', None)
        if isinstance(name, str) and _is_users_own(name):
            yield name


def _is_users_own(name: str) -> bool:
    """Say whether a module is the user's and no part of Python, an installed package, or us."""
    module = sys.modules.get(name)
    origin = getattr(module, '__file__', None)
    if name == '__main__' or origin is None or name.partition('.')[0] in _OWN_PACKAGES:
        return False
    return not is_installed(origin)


def names_any(data: bytes, modules: Iterable[str], start: int) -> bool:
    """Say whether a pickle, from there on, refers to one of these modules by name."""
    names = modules if isinstance(modules, frozenset) else frozenset(modules)
    tops, marks = _marks_of(names)
    return any(data.find(top, start) >= 0 for top in tops) and any(
        data.find(mark, start) >= 0 for mark in marks
    )


@functools.lru_cache(64)
def _marks_of(names: frozenset[str]) -> tuple[list[bytes], list[bytes]]:
    """How a pickle shows names: their first parts, which are few, and each as it is written."""
    tops = {name.partition('.')[0].encode() for name in names}
    lengths = ((name.encode(), len(name.encode())) for name in names)
    marks = [(b'\x8c' + bytes([size]) if size < 256 else b'') + name for name, size in lengths]
    return list(tops), marks


@contextlib.contextmanager
def by_value_meanwhile(names: Iterable[str]) -> Iterator[None]:
    """Have cloudpickle send these modules' functions and classes by value meanwhile."""
    names = set(names) & sys.modules.keys()
    if not names:
        yield
        return
    with _registry_lock:
        modules = [
            sys.modules[name] for name in names - cloudpickle.list_registry_pickle_by_value()
        ]
        for module in modules:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in modules:
                cloudpickle.unregister_pickle_by_value(module)


def sources_of(parts: Iterable[object]) -> Iterator[tuple[str, str]]:
    """Find the text of the functions' files, which only this process may have (notebooks)."""
    for part in parts:
        function = _function_of(part)
        if function is not None:
            name = function.__code__.co_filename
            text = ''.join(linecache.getlines(name, function.__globals__))
            if 0 < len(text) <= MAX_SOURCE:
                yield name, text


def _function_of(part: object) -> types.FunctionType | None:
    if isinstance(part, partial):
        return _function_of(part.func)
    if isinstance(part, types.MethodType):
        return _function_of(part.__func__)
    if isinstance(part, types.FunctionType):
        return part
    if isinstance(part, type):
        return next(
            (each for each in vars(part).values() if type(each) is types.FunctionType), None
        )
    call = vars(type(part)).get('__call__')
    return call if isinstance(call, types.FunctionType) else None


def is_installed(origin: str) -> bool:
    """Say whether a file belongs to Python or to an installed package."""
    return _holds_installed(os.path.dirname(origin))  # noqa: PTH120 - for each loaded module


@functools.lru_cache(4096)
def _holds_installed(directory: str) -> bool:
    """Say so of a directory; a link in it, to a cache of packages, is as good as a file."""
    path = Path(directory).resolve()
    if 'site-packages' in path.parts or 'dist-packages' in path.parts:
        return True
    return any(path.is_relative_to(library) for library in _libraries())


@functools.cache
def _libraries() -> tuple[Path, ...]:
    return tuple(Path(sysconfig.get_path(key)).resolve() for key in ('stdlib', 'platstdlib'))
