"""Naming what cannot be pickled: the argument or variable, and the way to it (D6)."""

import contextlib
import reprlib
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import cloudpickle

from nodeserver.core.errors import PicklingFailed

_PROTOCOL = 5
_LOOK_DEPTH = 4  # how far into an argument the culprit is looked for


def pickling_failure(error: Exception, parts: Iterable[tuple[str, object]]) -> PicklingFailed:
    """Say which variable it is: the first part that fails, followed into its insides."""
    for path, part in parts:
        if not _can_travel(part):
            path, culprit = _culprit(path, part, _LOOK_DEPTH)
            kind = f'{type(culprit).__module__}.{type(culprit).__qualname__}'
            return PicklingFailed(
                f'{path} of type {kind.removeprefix("builtins.")} cannot be pickled: {_said(error)}'
            )
    return PicklingFailed(f'cannot be pickled: {_said(error)}')


def _said(error: Exception) -> str:
    """Return the words of an error of the user's objects, which may have none."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the user's objects raise anything
        return type(error).__name__


def _culprit(path: str, obj: object, depth: int) -> tuple[str, object]:
    if depth:
        try:
            insides = list(_insides(path, obj))
        except Exception:  # noqa: BLE001 - the user's objects raise anything when looked at
            insides = []
        for label, inner in insides:
            if not _can_travel(inner):
                return _culprit(label, inner, depth - 1)
    return path, obj


def _can_travel(obj: object) -> bool:
    try:
        cloudpickle.dumps(obj, _PROTOCOL)
    except Exception:  # noqa: BLE001 - the user's objects raise anything
        return False
    return True


def _insides(path: str, obj: object) -> Iterator[tuple[str, object]]:
    """List what an object is made of, each with the words that lead to it."""
    if isinstance(obj, dict):
        yield from ((f'{path}[{reprlib.repr(key)}]', value) for key, value in list(obj.items()))
    elif isinstance(obj, list | tuple | set | frozenset):
        yield from ((f'{path}[{index}]', value) for index, value in enumerate(obj))
    elif isinstance(obj, partial):
        yield f'{path}: function', obj.func
        yield from _insides(f'{path}: bound argument ', (*obj.args, *obj.keywords.values()))
    elif isinstance(obj, types.MethodType):
        yield f'{path}: its object', obj.__self__
        yield path, obj.__func__
    elif isinstance(obj, types.FunctionType):
        yield from _variables(path, obj)
    elif not isinstance(obj, type | types.ModuleType) and not _decides_itself(obj):
        yield from ((f'{path}.{name}', value) for name, value in _attributes(obj))


def _decides_itself(obj: object) -> bool:
    """Whether its class says what travels, or why nothing does: its attributes are not why."""
    ways = type(obj).__reduce__, type(obj).__reduce_ex__
    return any(isinstance(way, types.FunctionType) for way in ways)


def _variables(path: str, function: types.FunctionType) -> Iterator[tuple[str, object]]:
    for name in sorted(_names_in(function.__code__)):
        if name in function.__globals__:
            where = f'{path}: global variable {name!r} of {function.__qualname__}()'
            yield where, function.__globals__[name]
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
    for name, cell in cells:
        with contextlib.suppress(ValueError):  # an empty cell
            where = f'{path}: variable {name!r} that {function.__qualname__}() closes over'
            yield where, cell.cell_contents
    defaults = enumerate(
        (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    )
    yield from ((f'{path}: default value {number + 1}', value) for number, value in defaults)


def _names_in(code: types.CodeType) -> set[str]:
    inner = (_names_in(const) for const in code.co_consts if isinstance(const, types.CodeType))
    return set(code.co_names).union(*inner)


def _attributes(obj: object) -> list[tuple[str, object]]:
    slots = [
        name
        for cls in type(obj).__mro__
        for name in getattr(cls, '__slots__', ())
        if isinstance(name, str) and hasattr(obj, name)
    ]
    return [*getattr(obj, '__dict__', {}).items(), *((name, getattr(obj, name)) for name in slots)]


def named_arguments(
    args: tuple[object, ...], kwargs: Mapping[str, object]
) -> Iterator[tuple[str, object]]:
    yield from ((f'argument {number}', value) for number, value in enumerate(args, 1))
    yield from ((f'argument {name!r}', value) for name, value in kwargs.items())


def named_in_columns(
    columns: Sequence[Sequence[object]], first: int
) -> Iterator[tuple[str, object]]:
    for number, column in enumerate(columns, 1):
        for call, value in enumerate(column, first):
            yield f'argument {number} of call {call}', value


def named_parts(
    computation: object, setup: object, cleanup: object, depends: Sequence[object]
) -> Iterator[tuple[str, object]]:
    yield 'computation', computation
    yield 'setup', setup
    yield 'cleanup', cleanup
    yield from ((f'depends[{index}]', value) for index, value in enumerate(depends))
