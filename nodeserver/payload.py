"""The user's objects as bytes and back: the only place that unpickles.

A call's arguments and a result are pickled plainly where that is sure to be right, else by
cloudpickle.  A package (the computation with its companions) is one dump, so that its functions
share their globals, and those of `__main__` become the globals of the template's `__main__`.
"""

import contextlib
import functools
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

from nodeserver.culprits import (
    named_arguments,
    named_in_columns,
    named_parts,
    pickling_failure,
)

PROTOCOL = 5
MAX_SOURCE = 262144  # bytes of one file's source that travel along, for tracebacks
_MAIN = b'__main__'
_OWN_PACKAGES = ('nodeserver', 'dispy_nb')

CallFailure = tuple[str, bytes]  # of one call in a chunk: traceback, and pickled exception

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
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    by_value: Iterable[str] = (),
    *,
    function: Callable[..., object] | bytes | None = None,
) -> bytes:
    """Pickle a job's arguments; classes and functions of the modules `by_value` go along.

    `function` is for a computation that calls any one, and may have been pickled before.
    """

    def names() -> Iterator[tuple[str, object]]:
        yield 'function', function
        yield from named_arguments(args, kwargs)

    if function is not None:
        return _dump_given(((function, *args), dict(kwargs)), by_value, names, function)
    return _dump_given((args, dict(kwargs)), by_value, names)


def dump_chunk(
    columns: Sequence[Sequence[object]],
    by_value: Iterable[str] = (),
    *,
    function: Callable[..., object] | bytes | None = None,
    stop: bool = False,
    first: int = 0,
) -> bytes:
    """Pickle the arguments of many calls, a column for each parameter; `load_call` reads it.

    What cannot travel is named as an argument of a call, which are counted from `first`.
    """

    def names() -> Iterator[tuple[str, object]]:
        yield 'function', function
        yield from named_in_columns(columns, first)

    leading = () if function is None else (function,)
    chunk = ((leading, columns, stop), None)  # None in place of keywords: no single call
    return _dump_given(chunk, by_value, names, function)


def dump_function(function: Callable[..., object], by_value: Iterable[str] = ()) -> bytes:
    """Pickle a function that travels apart from its arguments."""
    return _dump_given(function, by_value, lambda: [('function', function)])


def _dump_given(
    obj: object,
    by_value: Iterable[str],
    names: Callable[[], Iterable[tuple[str, object]]],
    pickled: object = None,
) -> bytes:
    """Pickle plainly if that is right, else by cloudpickle; `pickled` is the first part, if bytes.

    Names within that part are no reason for cloudpickle: it has been pickled before.
    """
    try:
        data = pickle.dumps(obj, PROTOCOL)
        at = data.index(pickled) + len(pickled) if isinstance(pickled, bytes) else 0
        # plain pickle succeeds by name where the node does not have that name
        if data.find(_MAIN, at) < 0 and (
            not by_value or not any(data.find(name.encode(), at) >= 0 for name in by_value)
        ):
            return data
    except Exception:  # noqa: BLE001 - whatever the user's objects raise, cloudpickle may do
        pass
    with _by_value(by_value):
        try:
            by_definition: bytes = cloudpickle.dumps(obj, PROTOCOL)
        except Exception as error:
            raise pickling_failure(error, names()) from error
    return by_definition


def load_call(data: bytes) -> tuple[tuple[Any, ...], dict[str, Any] | None]:
    """Unpickle a job's arguments; without keywords they are those of a chunk."""
    args, kwargs = pickle.loads(data)
    return args, kwargs


def load_function(data: bytes) -> Callable[..., Any]:
    """Unpickle a function that travelled apart from its arguments."""
    function: Callable[..., Any] = pickle.loads(data)
    return function


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
        raise pickling_failure(error, [('result', result)]) from error
    return buffer.getvalue()


def load_result(data: bytes) -> Any:
    """Unpickle what a job gave back."""
    return pickle.loads(data)


def dump_exception(error: BaseException) -> bytes:
    """Pickle what a job raised, without its traceback; b'' if it cannot travel."""
    try:
        return dump_result(error)
    except BaseException:  # noqa: BLE001 - user code: the text of the exception travels anyway
        return b''


def load_exception(data: bytes) -> BaseException | None:
    """Unpickle what a job raised; None if it cannot be made here, as many classes cannot."""
    if not data:
        return None
    try:
        error = pickle.loads(data)
    except (Exception, SystemExit):  # noqa: BLE001 - user code: its text is there in its place
        return None
    return error if isinstance(error, BaseException) else None


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
            raise pickling_failure(
                error, named_parts(computation, setup, cleanup, depends)
            ) from error
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
    return not _is_installed(origin)


@functools.lru_cache(4096)
def _is_installed(origin: str) -> bool:
    """Say whether a file belongs to Python or to an installed package."""
    path = Path(origin).resolve()
    if 'site-packages' in path.parts or 'dist-packages' in path.parts:
        return True
    library = (sysconfig.get_path(key) for key in ('stdlib', 'platstdlib'))
    return any(path.is_relative_to(Path(directory).resolve()) for directory in library)


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
