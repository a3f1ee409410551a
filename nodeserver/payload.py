"""The user's objects as bytes and back: the only place that unpickles.

A call's arguments and a result are pickled plainly where that is sure to be right, else by
cloudpickle; the memory of large arrays stays beside the pickle.  A package (the computation with
its companions) is one dump, so that its functions share their globals, and those of `__main__`
become the globals of the template's `__main__`.
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

from nodeserver.core.errors import UsageError
from nodeserver.culprits import named_arguments, named_parts, pickling_failure
from nodeserver.wire.packed import (
    LARGE,
    LARGEST,
    Buffer,
    Elsewhere,
    Packed,
    is_packed,
    pack,
    unpack,
)

PROTOCOL = 5
MAX_SOURCE = 262144  # bytes of one file's source that travel along, for tracebacks
_MAIN = b'__main__'
_OWN_PACKAGES = ('nodeserver', 'dispy_nb')

BESIDE = 32768  # bytes from which a buffer is worth a place beside the pickle
_PLAIN = frozenset((int, float, str, bool, type(None)))

Divert = Callable[[memoryview, list[int]], int]
"""Takes a buffer over as shared data: enters its id into the list, and answers its place, or 0."""

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
    divert: Divert | None = None,
    named: list[int] | None = None,
) -> bytes:
    """Pickle a job's arguments; classes and functions of the modules `by_value` go along.

    The answer is a snapshot: what becomes of the arguments afterwards does not change it.  What
    `divert` took over is not in it, but in the list `named`.
    """
    if not kwargs:
        for arg in args:
            if type(arg) not in _PLAIN:
                break
        else:
            return pickle.dumps((args, {}), PROTOCOL)
    kept = _Kept()
    data = _dump_call(args, kwargs, by_value, kept)
    if kept.buffers:
        parts: list[bytes | memoryview | Elsewhere] = [data]
        for buffer in kept.buffers:
            place = divert(buffer, named) if divert is not None and named is not None else 0
            parts.append(Elsewhere(len(buffer), place) if place else buffer)
        data = pack(parts).join()
    _check_size(data, 'the arguments have')
    return data


def load_call(
    data: Buffer, shared: Sequence[Buffer] = ()
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Unpickle a job's arguments; arrays lie in `data` and `shared`, if these can be written."""
    args, kwargs = _load(data, shared)
    return args, kwargs


def _dump_call(
    args: tuple[object, ...], kwargs: Mapping[str, object], by_value: Iterable[str], kept: '_Kept'
) -> bytes:
    call = tuple(map(_beside, args)), {name: _beside(value) for name, value in kwargs.items()}
    try:
        data = pickle.dumps(call, PROTOCOL, buffer_callback=kept.take)
        # plain pickle succeeds by name where the node does not have that name
        if _MAIN not in data and not any(name.encode() in data for name in by_value):
            return data
    except Exception:  # noqa: BLE001 - whatever the user's objects raise, cloudpickle may do
        pass
    kept.buffers.clear()
    with _by_value(by_value):
        try:
            by_definition: bytes = cloudpickle.dumps(call, PROTOCOL, buffer_callback=kept.take)
        except Exception as error:
            raise pickling_failure(error, named_arguments(args, kwargs)) from error
    return by_definition


# results


def dump_result(result: object) -> bytes | Packed:
    """Pickle what a job gives back; the memory of large arrays in it is not copied."""
    kept = _Kept()
    data = _dump_result(result, kept)
    packed = pack([data, *kept.buffers]) if kept.buffers else data
    _check_size(packed, 'the result has')
    return packed


def load_result(data: Buffer) -> Any:
    """Unpickle what a job gave back; arrays lie in `data`, if it can be written."""
    return _load(data, ())


def dump_value(value: object, by_value: Iterable[str] = ()) -> Packed:
    """Pickle a value that jobs share."""
    kept = _Kept()
    with _by_value(by_value):
        try:
            data = cloudpickle.dumps(_beside(value), PROTOCOL, buffer_callback=kept.take)
        except Exception as error:
            raise pickling_failure(error, [('value', value)]) from error
    packed = pack([data, *kept.buffers])
    _check_size(packed, 'the value has')
    return packed


def load_value(data: Buffer) -> Any:
    """Unpickle a value that jobs share."""
    return _load(data, ())


def _dump_result(result: object, kept: '_Kept') -> bytes:
    try:
        data = pickle.dumps(_beside(result), PROTOCOL, buffer_callback=kept.take)
        if _MAIN not in data:
            return data
    except Exception:  # noqa: BLE001 - whatever the user's objects raise, cloudpickle may do
        pass
    kept.buffers.clear()
    buffer = io.BytesIO()
    try:
        _ResultPickler(buffer, PROTOCOL, kept.take).dump(_beside(result))
    except Exception as error:
        raise pickling_failure(error, [('result', result)]) from error
    return buffer.getvalue()


# memory beside the pickle


class _Kept:
    """The buffers that a pickler leaves out, in their order."""

    __slots__ = ('buffers',)

    def __init__(self) -> None:
        self.buffers: list[memoryview] = []

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        """Whether the buffer is to stay in the pickle."""
        view = memoryview(buffer)
        if view.nbytes < BESIDE or not view.contiguous:
            return True
        self.buffers.append(buffer.raw())
        return False


class _Beside:
    """A large `bytes` or `bytearray`, which pickle by itself would copy into the pickle."""

    __slots__ = ('content',)

    def __init__(self, content: bytes | bytearray) -> None:
        self.content = content

    def __reduce__(self) -> tuple[type, tuple[pickle.PickleBuffer]]:
        return type(self.content), (pickle.PickleBuffer(self.content),)


def _beside(value: object) -> object:
    if type(value) in (bytes, bytearray) and len(value) >= LARGE:  # type: ignore[arg-type]
        return _Beside(value)  # type: ignore[arg-type]
    return value


def _load(data: Buffer, shared: Sequence[Buffer]) -> Any:
    if not is_packed(data):
        return pickle.loads(data)
    if memoryview(data).readonly:  # arrays in it would be: nobody expects that of his own
        data = bytearray(data)
    head, *buffers = unpack(data, shared)
    return pickle.loads(head, buffers=buffers)


def _check_size(data: bytes | Packed, subject: str) -> None:
    if len(data) > LARGEST:
        raise UsageError(
            f'{subject} {len(data):,} bytes when pickled, {LARGEST:,} are allowed: write large '
            'data to files that the nodes can read'
        )


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
