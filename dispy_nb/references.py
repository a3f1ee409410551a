"""What functions refer to when they travel: found by the pickler that sends them, thrown away.

parts ──▶ pickler ──▶ by reference: the name of a module
                 └──▶ by value: a function, whose code imports modules
"""

import pickle
import types
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from nodeserver.definitions import PROTOCOL, DefinitionPickler
from nodeserver.usercode import by_value_meanwhile, modules_by_value

_OURS = ('builtins', 'cloudpickle', 'dispy_nb', 'nodeserver')  # the pickle's own vocabulary


@dataclass(slots=True)
class References:
    """Modules that the node must have, and functions that travel by value."""

    modules: dict[str, None] = field(default_factory=dict)  # in the order in which they were met
    functions: list[types.FunctionType] = field(default_factory=list)


def references_of(parts: Iterable[object]) -> References:
    """Find what these objects refer to when they travel together as a package.

    What cannot be pickled ends the search: `dump_package` names it.
    """
    parts = [part for part in parts if part is not None and not isinstance(part, str)]
    found = References()
    if not parts:
        return found
    with by_value_meanwhile({name for part in parts for name in modules_by_value(part)}):
        try:
            _ReferencePickler(found).dump(parts)
        except Exception:  # noqa: BLE001 - whatever the user's objects raise is told elsewhere
            pass
    return found


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: bytes) -> int:
        return len(data)


def _leave_out(buffer: pickle.PickleBuffer) -> bool:
    """The memory of arrays refers to nothing."""
    return False


class _ReferencePickler(DefinitionPickler):
    """Writes nothing, and keeps note of what it meets."""

    def __init__(self, found: References) -> None:
        super().__init__(_Nowhere(), PROTOCOL, _leave_out)
        self._found = found

    def reducer_override(self, obj: object) -> Any:
        answer = super().reducer_override(obj)
        kind = type(obj)
        if kind is types.ModuleType or issubclass(kind, types.ModuleType):
            self._refers_to(getattr(obj, '__name__', None))
        elif answer is not NotImplemented:
            if kind is types.FunctionType:
                self._found.functions.append(obj)  # type: ignore[arg-type]
        elif issubclass(kind, type) or kind in (types.FunctionType, types.BuiltinFunctionType):
            self._refers_to(getattr(obj, '__module__', None))
        return answer

    def _refers_to(self, module: object) -> None:
        if isinstance(module, str) and module.partition('.')[0] not in _OURS:
            self._found.modules[module] = None
