"""The globals that `setup` made, as bytes, for processes that are not forks of its own.

    after setup ── dump_globals ──▶ bytes ── load_globals ──▶ after the package was unpacked anew

Both sides have unpacked the same package before: namespaces, and functions and classes that came
with it, are named instead of sent.
"""

import io
import types
from collections.abc import Mapping, Sequence
from typing import Any

from nodeserver.beside import Kept
from nodeserver.core.errors import PicklingFailed
from nodeserver.culprits import pickling_failure
from nodeserver.definitions import PROTOCOL, PackagePickler
from nodeserver.payload import NamedUnpickler
from nodeserver.wire.packed import Buffer, Packed, pack, unpack

Names = dict[str, Any]

_DEFINED = (types.FunctionType, type)
# of the same identity as before, one of these has not changed
_CONSTANT = (*_DEFINED, types.BuiltinFunctionType, types.ModuleType, types.NoneType)
_CONSTANT_TYPES = frozenset((int, float, complex, bool, str, bytes))


def dump_globals(spaces: Sequence[Names], before: Sequence[Mapping[str, Any]]) -> Packed:
    """Pickle what is new, may have changed, or is gone in these namespaces.

    Raises
    ------
    PicklingFailed
        A value is a module or cannot be pickled; the text names its variable.
    """
    made: list[tuple[Names, list[str]]] = []
    for names, old in zip(spaces, before, strict=True):
        new = {name: value for name, value in names.items() if _may_be_new(name, value, old)}
        made.append((new, [name for name in old if name not in names]))
    for new, _ in made:
        for name, value in new.items():
            if isinstance(value, types.ModuleType):
                raise PicklingFailed(
                    f'global variable {name!r} is the module {value.__name__}, which is not '
                    'passed on: import it in the functions that use it'
                )
    kept = Kept()
    buffer = io.BytesIO()
    try:
        _Pickler(buffer, kept, spaces, before).dump(made)
    except Exception as error:
        named = [
            (f'global variable {name!r}', value) for new, _ in made for name, value in new.items()
        ]
        raise pickling_failure(error, named) from error
    return pack([buffer.getvalue(), *kept.buffers])


def load_globals(data: Buffer, spaces: Sequence[Names]) -> None:
    """Put into these namespaces what `dump_globals` found; arrays lie in `data`."""
    head, *buffers = unpack(data, ())
    unpickler = _Unpickler(io.BytesIO(head), buffers=buffers)
    unpickler.spaces, unpickler.before = spaces, [dict(names) for names in spaces]
    for names, (new, gone) in zip(spaces, unpickler.load(), strict=True):
        names.update(new)
        for name in gone:
            names.pop(name, None)


def _may_be_new(name: str, value: object, old: Mapping[str, Any]) -> bool:
    if name == '__builtins__':
        return False
    if name not in old or old[name] is not value:
        return True
    return type(value) not in _CONSTANT_TYPES and not isinstance(value, _CONSTANT)


class _Pickler(PackagePickler):
    def __init__(
        self,
        buffer: io.BytesIO,
        kept: Kept,
        spaces: Sequence[Names],
        before: Sequence[Mapping[str, Any]],
    ) -> None:
        super().__init__(buffer, PROTOCOL, kept.take)
        self._places = {id(names): place for place, names in enumerate(spaces)}
        self._defined = {
            id(value): (place, name)
            for place, names in enumerate(before)
            for name, value in names.items()
            if isinstance(value, _DEFINED)
        }

    def persistent_id(self, obj: object) -> object:
        """Name a namespace by its place, and what came with the package by place and name."""
        if type(obj) is not dict:
            return self._defined.get(id(obj))
        for real, future in self.globals_ref.items():
            if future is obj:
                return self._places.get(real)
        return self._places.get(id(obj))


class _Unpickler(NamedUnpickler):
    spaces: Sequence[Names]
    before: Sequence[Names]

    def persistent_load(self, name: Any) -> Any:
        """Find it again."""
        if isinstance(name, int):
            return self.spaces[name]
        place, variable = name
        return self.before[place][variable]
