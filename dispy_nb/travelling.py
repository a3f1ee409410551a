"""What goes along with a function that is not the computation itself: calls of an executor."""

import types
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from dispy_nb.dependencies import NO_FILES, Dependency, SourceFiles
from dispy_nb.depends import files_of
from dispy_nb.project import ByValue, look_through
from nodeserver.core.errors import UsageError
from nodeserver.payload import dump_function
from nodeserver.usercode import modules_by_value


@dataclass(frozen=True, slots=True)
class Travelling:
    """A function, pickled if that is worth keeping, and the user's modules that it needs."""

    function: Callable[..., Any] | bytes
    by_value: Iterable[str]  # modules whose functions and classes go by value
    files: SourceFiles  # of other modules of the user's own (Z09)


class Travels:
    """Finds what functions need, and keeps it for those that come again."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[types.FunctionType, Travelling] = (
            weakref.WeakKeyDictionary()
        )

    def of(self, function: Any) -> Travelling:
        """What travels for a function.

        Raises
        ------
        UsageError
            It is none, or an own module that it needs is compiled.
        PicklingFailed
            It refers to what cannot travel.
        """
        if not callable(function):
            raise UsageError(f'{function!r} is no function')
        is_plain = isinstance(function, types.FunctionType) and not function.__closure__
        if not is_plain:
            return companions([function], function)
        known = self._known.get(function)
        if known is None:
            found = companions([function], function)
            pickled = dump_function(function, found.by_value)
            known = self._known[function] = Travelling(pickled, found.by_value, found.files)
        return known

    def of_batch(self, batch: Callable[[], Any], parts: Iterable[Any]) -> Travelling:
        """What travels for a batch of calls, which has these functions and arguments."""
        names: set[str] = set()
        files = NO_FILES
        known: set[int] = set()
        for part in parts:
            if isinstance(part, type) or not callable(part):
                names.update(modules_by_value(part))
            elif id(part) not in known:
                known.add(id(part))
                found = self.of(part)
                names.update(found.by_value)
                files = files.joined(found.files)
        return Travelling(batch, names, files)


def companions(parts: list[Any], function: Callable[..., Any]) -> Travelling:
    """Look through functions and objects for what they need of the user's own."""
    own = {name for part in parts for name in modules_by_value(part)}
    project = look_through(parts)
    files = NO_FILES
    if project.files:
        reached = [Dependency(file.path, str(file.source)) for file in project.files]
        files = files_of('function', (), reached)
    return Travelling(function, ByValue(own, project.modules), files)
