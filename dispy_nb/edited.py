"""Functions that were edited on disk after they were loaded: the loaded ones travel (Z09)."""

import functools
import logging
import sys
import types
import warnings
from collections.abc import Iterable, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path

import psutil

_log = logging.getLogger('dispy_nb')
_told: dict[str, int] = {}  # file -> time of the change that was told


def warn_of_edits(functions: Iterable[types.FunctionType]) -> None:
    """Warn, once for each change, of functions sent by value whose file now says something else.

    Their code is compared with that of the file: a time alone would also tell of files that were
    only touched, and of functions that were loaded anew.
    """
    by_file: dict[str, list[types.FunctionType]] = {}
    for function in functions:
        if (source := _source_of(function)) is not None:
            by_file.setdefault(source, []).append(function)
    for source, group in by_file.items():
        changed = _changed_at(source)
        if changed and _told.get(source) != changed:
            edited = _edited(source, group)
            if edited is not None:
                _told[source] = changed
                _log.warning(
                    'module %s was edited after it was imported, and %s() is sent as it was then: '
                    'importlib.reload(%s) takes over what %s says now',
                    edited.__module__,
                    edited.__qualname__,
                    edited.__module__,
                    source,
                )


def _source_of(function: types.FunctionType) -> str | None:
    """The file that Python itself has loaded a function from; a running script is no surprise."""
    name = function.__module__ or '__main__'
    spec = getattr(sys.modules.get(name), '__spec__', None)
    if name == '__main__' or spec is None or type(spec.loader) is not SourceFileLoader:
        return None
    source: str | None = spec.origin
    return source if source == function.__code__.co_filename else None


def _changed_at(source: str) -> int:
    """When a file was changed, in nanoseconds; 0 if before this program loaded anything."""
    try:
        changed = Path(source).stat().st_mtime_ns
    except OSError:
        return 0
    return changed if changed > _began_at() else 0


@functools.cache
def _began_at() -> float:
    """When this program began, in nanoseconds."""
    began: float = psutil.Process().create_time() * 1e9
    return began


def _edited(source: str, functions: Iterable[types.FunctionType]) -> types.FunctionType | None:
    """Find a function that the file defines otherwise now; None if it cannot be compiled."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            module = compile(Path(source).read_bytes(), source, 'exec', dont_inherit=True)
    except (OSError, SyntaxError, ValueError):
        return None
    written: dict[str, list[types.CodeType]] = {}
    for code in _all_codes(module):
        written.setdefault(code.co_qualname, []).append(code)
    for function in functions:
        code = function.__code__
        if not any(_is_same(code, other) for other in written.get(code.co_qualname, ())):
            return function
    return None


def _all_codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield const
            yield from _all_codes(const)


def _is_same(one: types.CodeType, other: types.CodeType) -> bool:
    """Whether two pieces of code do the same, wherever their lines are."""
    return (
        one.co_code == other.co_code
        and one.co_names == other.co_names
        and one.co_varnames == other.co_varnames
        and len(one.co_consts) == len(other.co_consts)
        and all(map(_is_same_constant, one.co_consts, other.co_consts))
    )


def _is_same_constant(one: object, other: object) -> bool:
    if isinstance(one, types.CodeType) and isinstance(other, types.CodeType):
        return _is_same(one, other)
    return type(one) is type(other) and repr(one) == repr(other)
