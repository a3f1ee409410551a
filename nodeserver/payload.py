"""The user's objects as bytes and back: the only place that unpickles.

A call's arguments and a result are pickled plainly where that is sure to be right, else by
cloudpickle; the memory of large arrays stays beside the pickle.  A package (the computation with
its companions) is one dump, so that its functions share their globals, and those of `__main__`
become the globals of the template's `__main__`.
"""

import io
import linecache
import pickle
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import cloudpickle

from nodeserver.beside import Kept, beside
from nodeserver.core.errors import UsageError
from nodeserver.culprits import (
    named_arguments,
    named_in_columns,
    named_parts,
    pickling_failure,
)
from nodeserver.definitions import (
    PROTOCOL,
    DefinitionPickler,
    dump_by_definition,
    dump_parts,
    is_settled,
)
from nodeserver.definitions import (
    Package as Package,
)
from nodeserver.distributions import Requirement
from nodeserver.usercode import by_value_meanwhile, modules_by_value, names_any
from nodeserver.wire.packed import (
    LARGEST,
    Buffer,
    Elsewhere,
    Packed,
    is_packed,
    pack,
    unpack,
)

_MAIN = b'__main__'

CallFailure = tuple[str, bytes]  # of one call in a chunk: traceback, and pickled exception
_PLAIN = frozenset((int, float, str, bool, type(None)))

Divert = Callable[[memoryview, list[int]], int]
"""Takes a buffer over as shared data: enters its id into the list, and answers its place, or 0."""

_namespaces: dict[str, dict[str, Any]] = {}  # of the client's modules whose functions came
_class_bytes: weakref.WeakKeyDictionary[type, bytes] = weakref.WeakKeyDictionary()


# calls


def dump_call(
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    by_value: Iterable[str] = (),
    divert: Divert | None = None,
    named: list[int] | None = None,
    *,
    function: Callable[..., object] | bytes | None = None,
) -> bytes:
    """Pickle a job's arguments; classes and functions of the modules `by_value` go along.

    The answer is a snapshot: what becomes of the arguments afterwards does not change it.  What
    `divert` took over is not in it, but in the list `named`.  `function` is for a computation
    that calls any one, and may have been pickled before.
    """
    if not kwargs and function is None:
        for arg in args:
            if type(arg) not in _PLAIN:
                break
        else:
            return pickle.dumps((args, {}), PROTOCOL)

    def names() -> Iterator[tuple[str, object]]:
        yield 'function', function
        yield from named_arguments(args, kwargs)

    given = tuple(map(beside, args)), {name: beside(value) for name, value in kwargs.items()}
    call = given if function is None else ((function, *given[0]), given[1])
    kept = Kept()
    data = _dump_given(call, by_value, names, function, kept)
    return _whole(data, kept, divert, named)


def dump_job(
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    depends: Sequence[object],
    by_value: Iterable[str],
    divert: Divert,
    named: list[int],
) -> bytes:
    """Pickle a job's arguments as `dump_call` does, with dependencies of its own."""
    by_value = {*by_value, *(name for part in depends for name in modules_by_value(part))}
    names = ((f'dispy_job_depends[{place}]', part) for place, part in enumerate(depends))
    brought = dump_parts(tuple(depends), depends, names, by_value)
    given = tuple(map(beside, args)), {name: beside(value) for name, value in kwargs.items()}
    kept = Kept()
    call = (*given, brought)
    data = _dump_given(call, by_value, lambda: named_arguments(args, kwargs), kept=kept)
    return _whole(data, kept, divert, named)


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
    kept = Kept()
    return _whole(_dump_given(chunk, by_value, names, function, kept), kept)


def dump_function(function: Callable[..., object], by_value: Iterable[str] = ()) -> bytes:
    """Pickle a function that travels apart from its arguments."""
    return _dump_given(function, by_value, lambda: [('function', function)])


def load_call(
    data: Buffer, shared: Sequence[Buffer] = (), bring: Callable[[bytes], None] | None = None
) -> tuple[tuple[Any, ...], dict[str, Any] | None]:
    """Unpickle a job's arguments; without keywords they are those of a chunk.

    Arrays lie in `data` and `shared`, if these can be written.  `bring` is given the job's own
    dependencies, if it has any.
    """
    call = _load(data, shared)
    if len(call) > 2 and bring is not None:
        bring(call[2])
    return call[0], call[1]


def load_function(data: bytes) -> Callable[..., Any]:
    """Unpickle a function that travelled apart from its arguments."""
    function: Callable[..., Any] = pickle.loads(data)
    return function


def _whole(
    data: bytes, kept: 'Kept', divert: Divert | None = None, named: list[int] | None = None
) -> bytes:
    """Join a pickle and the buffers that it left out, but for those that are shared data."""
    if kept.buffers:
        parts: list[bytes | memoryview | Elsewhere] = [data]
        for buffer in kept.buffers:
            place = divert(buffer, named) if divert is not None and named is not None else 0
            parts.append(Elsewhere(len(buffer), place) if place else buffer)
        data = pack(parts).join()
    _check_size(data, 'the arguments have')
    return data


def _dump_given(
    obj: object,
    by_value: Iterable[str],
    names: Callable[[], Iterable[tuple[str, object]]],
    pickled: object = None,
    kept: 'Kept | None' = None,
) -> bytes:
    """Pickle plainly if that is right, else by cloudpickle; `pickled` is the first part, if bytes.

    Names within that part are no reason for cloudpickle: it has been pickled before.  Large
    buffers go to `kept`.
    """
    take = kept.take if kept is not None else None
    try:
        data = pickle.dumps(obj, PROTOCOL, buffer_callback=take)
        at = data.index(pickled) + len(pickled) if isinstance(pickled, bytes) else 0
        # plain pickle succeeds by name where the node does not have that name
        if data.find(_MAIN, at) < 0 and not (by_value and names_any(data, by_value, at)):
            return data
    except Exception:  # noqa: BLE001 - whatever the user's objects raise, cloudpickle may do
        pass
    if kept is not None:
        kept.buffers.clear()
    with by_value_meanwhile(by_value):
        try:
            by_definition = dump_by_definition(obj, take)
        except Exception as error:
            raise pickling_failure(error, names()) from error
    return by_definition


# results


def dump_result(result: object) -> bytes | Packed:
    """Pickle what a job gives back; the memory of large arrays in it is not copied."""
    if type(result) in _PLAIN and len(data := pickle.dumps(result, PROTOCOL)) < LARGEST:
        return data
    kept = Kept()
    data = _dump_result(result, kept)
    packed = pack([data, *kept.buffers]) if kept.buffers else data
    _check_size(packed, 'the result has')
    return packed


def load_result(data: Buffer) -> Any:
    """Unpickle what a job gave back; arrays lie in `data`, if it can be written."""
    return _load(data, ())


def dump_value(value: object, by_value: Iterable[str] = ()) -> Packed:
    """Pickle a value that jobs share."""
    kept = Kept()
    with by_value_meanwhile(by_value):
        try:
            data = dump_by_definition(beside(value), kept.take)
        except Exception as error:
            raise pickling_failure(error, [('value', value)]) from error
    packed = pack([data, *kept.buffers])
    _check_size(packed, 'the value has')
    return packed


def load_value(data: Buffer) -> Any:
    """Unpickle a value that jobs share."""
    return _load(data, ())


def _dump_result(result: object, kept: 'Kept') -> bytes:
    try:
        data = pickle.dumps(beside(result), PROTOCOL, buffer_callback=kept.take)
        if _MAIN not in data:
            return data
    except Exception:  # noqa: BLE001 - whatever the user's objects raise, cloudpickle may do
        pass
    kept.buffers.clear()
    buffer = io.BytesIO()
    try:
        _ResultPickler(buffer, PROTOCOL, kept.take).dump(beside(result))
    except Exception as error:
        raise pickling_failure(error, [('result', result)]) from error
    return buffer.getvalue()


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


def dump_exception(error: BaseException) -> bytes:
    """Pickle what a job raised, without its traceback; b'' if it cannot travel."""
    try:
        data = dump_result(error)
        return data if isinstance(data, bytes) else data.join()
    except BaseException:  # noqa: BLE001 - user code: the text of the exception travels anyway
        return b''


def load_exception(data: Buffer) -> BaseException | None:
    """Unpickle what a job raised; None if it cannot be made here, as many classes cannot."""
    if not data:
        return None
    try:
        error = _load(data, ())
    except (Exception, SystemExit):  # noqa: BLE001 - user code: its text is there in its place
        return None
    return error if isinstance(error, BaseException) else None


class _ResultPickler(DefinitionPickler):
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
        # whoever sent it has it; its definition would bring along what `setup` made global
        _class_bytes[cls] = b'' if is_settled(cls) else dump_by_definition(cls)
    tracker = cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS[cls]
    return tracker, cls.__module__, cls.__qualname__, _class_bytes[cls]


def _known_class(tracker: str, module: str, qualname: str, definition: bytes) -> type:
    """Find the client's own class: this very one, else of that name, else as it was sent."""
    known = cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker)
    if known is None:
        known = sys.modules.get(module)
        for name in qualname.split('.'):
            known = getattr(known, name, None)
    if isinstance(known, type):
        return known
    if not definition:
        raise pickle.UnpicklingError(f'the class {module}.{qualname} is not defined here')
    found: type = pickle.loads(definition)
    return found


# packages


def dump_package(
    computation: Callable[..., object],
    *,
    setup: Callable[..., object] | None = None,
    cleanup: Callable[..., object] | None = None,
    depends: Sequence[object] = (),
    requires: Sequence[Requirement] = (),
    by_value: Iterable[str] | None = None,
) -> bytes:
    """Pickle a computation with its companions, those of the user's modules (or these) by value."""
    parts = [computation, setup, cleanup, *depends]
    if by_value is None:
        by_value = {name for part in parts for name in modules_by_value(part)}
    content = computation, setup, cleanup, tuple(depends), tuple(requires)
    names = named_parts(computation, setup, cleanup, depends)
    return dump_parts(content, parts, names, by_value)


def load_package(data: bytes) -> Package:
    """Unpack a package; functions of the client's `__main__` get this process's as globals."""
    return Package(*_load_parts(data))


def load_depends(data: bytes) -> tuple[object, ...]:
    """Unpack the dependencies of one job; globals that are there stay as they are."""
    known = set(_namespaces)
    before = [(space, dict(space)) for space in namespaces_that_came()]
    try:
        depends: tuple[object, ...] = _load_parts(data)
    finally:
        for space, names in before:
            space.update(names)
        for name in _namespaces.keys() - known:
            del _namespaces[name]
    return depends


def namespaces_that_came() -> list[dict[str, Any]]:
    """Return the globals of `__main__` and of the client's modules in this process."""
    return [vars(sys.modules['__main__']), *_namespaces.values()]


def _load_parts(data: bytes) -> tuple[Any, ...]:
    content: tuple[Any, ...]
    content, sources = NamedUnpickler(io.BytesIO(data)).load()
    for name, text in sources.items():
        # no time of change: linecache believes it without looking for the file
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    return content


class NamedUnpickler(pickle.Unpickler):
    """Finds the namespaces that `PackagePickler` names."""

    def persistent_load(self, name: Any) -> Any:
        """Answer the globals of that name, which may be new."""
        if name == '__main__':
            return vars(sys.modules['__main__'])
        if isinstance(name, tuple) and len(name) == 2:
            return _namespaces.setdefault(*name)
        raise pickle.UnpicklingError(f'unknown namespace {name!r}')
