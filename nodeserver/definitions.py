"""Functions and classes as bytes that define them, and name the files that they come from."""

import functools
import io
import pickle
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cloudpickle

from nodeserver import remade
from nodeserver.culprits import pickling_failure
from nodeserver.distributions import Requirement
from nodeserver.usercode import by_value_meanwhile, sources_of

PROTOCOL = 5

_settled: weakref.WeakSet[type] = weakref.WeakSet()  # classes that keep their definition here


@dataclass(frozen=True, slots=True)
class Package:
    """What a template unpacks: the computation and what belongs to it."""

    computation: Callable[..., object]
    setup: Callable[..., object] | None = None
    cleanup: Callable[..., object] | None = None
    depends: tuple[object, ...] = ()
    requires: tuple[Requirement, ...] = ()

    @property
    def parts(self) -> tuple[object, ...]:
        """All that came with it."""
        return self.computation, self.setup, self.cleanup, *self.depends


class DefinitionPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Sends functions with the names of their files, which cloudpickle 3.1.3 and later hide.

    Tracebacks find the user's lines by them.
    """

    def reducer_override(self, obj: object) -> Any:
        if type(obj) is types.CodeType:
            return types.CodeType, _code_arguments(obj)
        if type(obj) is functools.cached_property:
            return remade.cached_property(obj)
        reduced = super().reducer_override(obj)
        if type(reduced) is tuple and reduced[-1] is cloudpickle.cloudpickle._class_setstate:
            assert isinstance(obj, type)
            return (*remade.with_slots(obj, reduced)[:-1], define_class)
        return reduced if reduced is not NotImplemented else remade.cached_function(obj)


class PackagePickler(DefinitionPickler):
    """Names the namespaces of `__main__` and of the user's modules, else made anew in each load.

    What travels later shares its globals with what came before.
    """

    def persistent_id(self, obj: object) -> object:
        """Name the dictionary that functions will have as their globals."""
        if type(obj) is not dict or '__name__' not in obj:
            return None
        # cloudpickle's own attribute: by the id of real globals, those that functions will have
        for real, future in self.globals_ref.items():
            if future is obj:
                return _name_of_namespace(real, obj)
        return None


class PlacelessPickler(PackagePickler):
    """Leaves out where code stands: what differs in nothing else does the same.

    So do classes that were only defined anew: they are noted, and written without their ids.
    """

    def __init__(self, file: Any, classes: list[type]) -> None:
        super().__init__(file, PROTOCOL)
        self._classes = classes

    def reducer_override(self, obj: object) -> Any:
        if type(obj) is types.CodeType:
            obj = obj.replace(co_filename='', co_firstlineno=1, co_linetable=b'')
            return types.CodeType, _code_arguments(obj)
        reduced = super().reducer_override(obj)
        tracker = _trackers().get(obj) if isinstance(obj, type) else None
        if tracker is None or type(reduced) is not tuple:
            return reduced
        assert isinstance(obj, type)
        self._classes.append(obj)
        make, arguments, (members, *rest), *others = reduced
        arguments = tuple(None if each == tracker else each for each in arguments)
        members = {k: v for k, v in members.items() if k != '__firstlineno__'}
        return make, arguments, (members, *rest), *others


def _name_of_namespace(real: int, future: dict[str, Any]) -> object:
    name = future['__name__']
    if name == '__main__':
        return name
    module = sys.modules.get(name) if isinstance(name, str) else None
    return (name, dict(future)) if module is not None and id(vars(module)) == real else None


def define_class(cls: type, state: Any) -> None:
    """Fill in a class that was sent by its definition, unless it is settled."""
    if cls not in _settled:
        cloudpickle.cloudpickle._class_setstate(cls, state)


def settle_classes() -> None:
    """Keep the classes that have come as they are: their methods share globals with others.

    Objects that come later bring their definition along, whose methods have globals of their own.
    """
    _settled.update(cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS)


def is_settled(cls: type) -> bool:
    """Whether a class came with a package: who sent that has it."""
    return cls in _settled


def _code_arguments(code: types.CodeType) -> tuple[object, ...]:
    return (
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_nlocals,
        code.co_stacksize,
        code.co_flags,
        code.co_code,
        code.co_consts,
        code.co_names,
        code.co_varnames,
        code.co_filename,
        code.co_name,
        code.co_qualname,
        code.co_firstlineno,
        code.co_linetable,
        code.co_exceptiontable,
        code.co_freevars,
        code.co_cellvars,
    )


def dump_by_definition(
    obj: object, take: Callable[[pickle.PickleBuffer], bool] | None = None
) -> bytes:
    """Pickle an object with the definitions that it needs; large buffers go to `take`."""
    buffer = io.BytesIO()
    DefinitionPickler(buffer, PROTOCOL, take).dump(obj)
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class Meaning:
    """What is to be compared, not loaded: objects without files and lines."""

    data: bytes
    classes: tuple[type, ...] = field(compare=False)  # those of cells, in the order of `data`

    def take_over(self, before: 'Meaning') -> None:
        """Have equal classes that were defined since be those that nodes know.

        Jobs that get or return objects of them then have one class, not two of one name.
        """
        for old, new in zip(before.classes, self.classes, strict=True):
            tracker = _trackers().get(old)
            if tracker is not None and old is not new:
                _trackers()[new] = tracker
                cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID[tracker] = new


def _trackers() -> Any:
    """Cloudpickle's own: by which id a class of `__main__` is known where it was sent."""
    return cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS


def meaning_of(content: object, by_value: Iterable[str]) -> Meaning:
    """Pickle what is to be compared.

    Two answers may differ where nothing does: nobody promises what pickles look like.
    """
    buffer = io.BytesIO()
    classes: list[type] = []
    with by_value_meanwhile(by_value):
        PlacelessPickler(buffer, classes).dump(content)
    return Meaning(buffer.getvalue(), tuple(classes))


def dump_parts(
    content: tuple[object, ...],
    parts: Sequence[object],
    names: Iterable[tuple[str, object]],
    by_value: Iterable[str],
) -> bytes:
    """Pickle what shares its globals, with the text of the files that the parts come from.

    Functions and classes of the modules `by_value` are defined in it, others are named.
    """
    sources = dict(sources_of(parts))
    buffer = io.BytesIO()
    with by_value_meanwhile(by_value):
        try:
            PackagePickler(buffer, PROTOCOL).dump((content, sources))
        except Exception as error:
            raise pickling_failure(error, names) from error
    return buffer.getvalue()
