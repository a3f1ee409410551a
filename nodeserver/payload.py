"""The user's objects as bytes and back: the only place that unpickles.

A call's arguments and a result are pickled plainly where that is sure to be right, else by
cloudpickle.  A package (the computation with its companions) is one dump, so that its functions
share their globals, and those of `__main__` become the globals of the template's `__main__`.
"""

import contextlib
import io
import linecache
import pickle
import sys
import sysconfig
import threading
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle

from nodeserver.core.errors import PicklingFailed

PROTOCOL = 5
MAX_SOURCE = 262144  # bytes of one file's source that travel along, for tracebacks
_LOOK_DEPTH = 4  # how far into an argument the culprit is looked for
_MAIN = b'__main__'
_OWN_PACKAGES = ('nodeserver', 'dispy_nb')

_registry_lock = threading.RLock()  # cloudpickle's registry of modules by value is global
_class_bytes: weakref.WeakKeyDictionary[type, bytes] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Package:
    """What a template unpacks: the computation and what belongs to it."""

    computation: Callable[..., object]
    setup: Callable[[], object] | None = None
    cleanup: Callable[[], object] | None = None
    depends: tuple[object, ...] = ()


# calls


def dump_call(
    args: tuple[object, ...], kwargs: Mapping[str, object], by_value: Iterable[str] = ()
) -> bytes:
    """Pickle a job's arguments; classes and functions of the modules `by_value` go along."""
    call = (args, dict(kwargs))
    try:
        data = pickle.dumps(call, PROTOCOL)
        # plain pickle succeeds by name where the node does not have that name
        if _MAIN not in data and not any(name.encode() in data for name in by_value):
            return data
    except Exception:  # noqa: BLE001 - whatever the user's objects raise, cloudpickle may do
        pass
    with _by_value(by_value):
        try:
            by_definition: bytes = cloudpickle.dumps(call, PROTOCOL)
        except Exception as error:
            raise _failure(error, _arguments(args, kwargs)) from error
    return by_definition


def load_call(data: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Unpickle a job's arguments."""
    args, kwargs = pickle.loads(data)
    return args, kwargs


# results


def dump_result(result: object) -> bytes:
    """Pickle what a job gives back."""
    try:
        data = pickle.dumps(result, PROTOCOL)
        if _MAIN not in data:
            return data
    except Exception:  # noqa: BLE001 - whatever the user's objects raise, cloudpickle may do
        pass
    buffer = io.BytesIO()
    try:
        _ResultPickler(buffer, PROTOCOL).dump(result)
    except Exception as error:
        raise _failure(error, [('result', result)]) from error
    return buffer.getvalue()


def load_result(data: bytes) -> Any:
    """Unpickle what a job gave back."""
    return pickle.loads(data)


class _ResultPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Sends classes that came from the client back as that client's own classes.

    Cloudpickle alone sends their definition, and loading that *replaces* the methods of the
    client's class by copies with globals of their own.
    """

    def reducer_override(self, obj: object) -> Any:
        if isinstance(obj, type) and obj in cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS:
            return _known_class, _class_reference(obj)
        return super().reducer_override(obj)


def _class_reference(cls: type) -> tuple[str, str, str, bytes]:
    if cls not in _class_bytes:
        _class_bytes[cls] = cloudpickle.dumps(cls, PROTOCOL)
    tracker = cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS[cls]
    return tracker, cls.__module__, cls.__qualname__, _class_bytes[cls]


def _known_class(tracker: str, module: str, qualname: str, definition: bytes) -> type:
    """Find the client's own class: this very one, else of that name, else as it was sent."""
    known = cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker)
    if known is None:
        known = sys.modules.get(module)
        for name in qualname.split('.'):
            known = getattr(known, name, None)
    return known if isinstance(known, type) else pickle.loads(definition)


# packages


def dump_package(
    computation: Callable[..., object],
    *,
    setup: Callable[[], object] | None = None,
    cleanup: Callable[[], object] | None = None,
    depends: Sequence[object] = (),
) -> bytes:
    """Pickle a computation with its companions; those of the user's modules travel by value."""
    parts = [computation, setup, cleanup, *depends]
    sources = dict(_sources(parts))
    buffer = io.BytesIO()
    with _by_value({name for part in parts for name in modules_by_value(part)}):
        try:
            pickler = _PackagePickler(buffer, PROTOCOL)
            pickler.dump((computation, setup, cleanup, tuple(depends), sources))
        except Exception as error:
            raise _failure(error, _named_parts(computation, setup, cleanup, depends)) from error
    return buffer.getvalue()


def load_package(data: bytes) -> Package:
    """Unpack a package; functions of the client's `__main__` get this process's as globals."""
    computation, setup, cleanup, depends, sources = _PackageUnpickler(io.BytesIO(data)).load()
    for name, text in sources.items():
        # no time of change: linecache believes it without looking for the file
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    return Package(computation, setup, cleanup, depends)


class _PackagePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Names the namespace of `__main__`, which cloudpickle would make an anonymous one."""

    def persistent_id(self, obj: object) -> str | None:
        if type(obj) is not dict or obj.get('__name__') != '__main__':
            return None
        # cloudpickle's own attribute: the globals that functions will have when loaded
        future = self.globals_ref.values()
        return '__main__' if any(obj is namespace for namespace in future) else None


class _PackageUnpickler(pickle.Unpickler):
    def persistent_load(self, name: str) -> dict[str, Any]:
        if name != '__main__':
            raise pickle.UnpicklingError(f'unknown namespace {name!r}')
        return sys.modules['__main__'].__dict__


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
    path = Path(origin).resolve()
    if 'site-packages' in path.parts or 'dist-packages' in path.parts:
        return False
    library = (sysconfig.get_path(key) for key in ('stdlib', 'platstdlib'))
    return not any(path.is_relative_to(Path(directory).resolve()) for directory in library)


@contextlib.contextmanager
def _by_value(names: Iterable[str]) -> Iterator[None]:
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


def _sources(parts: Iterable[object]) -> Iterator[tuple[str, str]]:
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
    call = vars(type(part)).get('__call__')
    return call if isinstance(call, types.FunctionType) else None


# naming what cannot be pickled


def _failure(error: Exception, parts: Iterable[tuple[str, object]]) -> PicklingFailed:
    """Say which variable it is: the first part that fails, followed into its insides."""
    for path, part in parts:
        if not _can_travel(part):
            path, culprit = _culprit(path, part, _LOOK_DEPTH)
            kind = f'{type(culprit).__module__}.{type(culprit).__qualname__}'
            return PicklingFailed(
                f'{path} of type {kind.removeprefix("builtins.")} cannot be pickled: {error}'
            )
    return PicklingFailed(f'cannot be pickled: {error}')


def _culprit(path: str, obj: object, depth: int) -> tuple[str, object]:
    if depth:
        for label, inner in _insides(path, obj):
            if not _can_travel(inner):
                return _culprit(label, inner, depth - 1)
    return path, obj


def _can_travel(obj: object) -> bool:
    try:
        cloudpickle.dumps(obj, PROTOCOL)
    except Exception:  # noqa: BLE001 - the user's objects raise anything
        return False
    return True


def _insides(path: str, obj: object) -> Iterator[tuple[str, object]]:
    """List what an object is made of, each with the words that lead to it."""
    if isinstance(obj, dict):
        yield from ((f'{path}[{key!r}]', value) for key, value in list(obj.items()))
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
    elif not isinstance(obj, type | types.ModuleType):
        yield from ((f'{path}.{name}', value) for name, value in _attributes(obj))


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


def _arguments(
    args: tuple[object, ...], kwargs: Mapping[str, object]
) -> Iterator[tuple[str, object]]:
    yield from ((f'argument {number}', value) for number, value in enumerate(args, 1))
    yield from ((f'argument {name!r}', value) for name, value in kwargs.items())


def _named_parts(
    computation: object, setup: object, cleanup: object, depends: Sequence[object]
) -> Iterator[tuple[str, object]]:
    yield 'computation', computation
    yield 'setup', setup
    yield 'cleanup', cleanup
    yield from ((f'depends[{index}]', value) for index, value in enumerate(depends))
