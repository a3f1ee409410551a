"""A cell that is run again makes nothing twice (V16).

What a statement of a cell made in an earlier run of it, or of its successor, is used again if it
would be made with the same arguments; else it is closed, and made anew.  Within one run each call
makes something of its own, and the next run meets them in the same order.
"""

import inspect
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from dispy_nb.cells import running_statement
from dispy_nb.surroundings import running_shell
from nodeserver.definitions import Meaning


class Place(NamedTuple):
    """Where something is made: a class, its name, the variable it is for, and the how-manieth."""

    kind: str
    name: str
    statement: str
    number: int


class Made(NamedTuple):
    """What was made at a place, and from what: its arguments, as values to compare."""

    thing: Any
    arguments: dict[str, Any]


class _Runs:
    """Counts what the running cell has made so far."""

    def __init__(self) -> None:
        self._shells: set[int] = set()
        self.counts: Counter[tuple[str, str, str]] = Counter()

    def watch(self, shell: Any) -> None:
        """Begin to count anew with each cell."""
        if id(shell) not in self._shells:
            self._shells.add(id(shell))
            shell.events.register('pre_execute', self._begin)

    def _begin(self) -> None:
        self.counts.clear()


class MadeOnce(type):
    """The class of classes whose instances can stand for one that was made before.

    `__init__` sets `_stands_for` then, and makes nothing.
    """

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Return the instance of before, or the new one."""
        made = super().__call__(*args, **kwargs)
        return made.__dict__.pop('_stands_for', made)

    @property
    def __signature__(cls) -> inspect.Signature:
        """What help and completion show: the parameters of `__init__`."""
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]
        return signature.replace(parameters=list(signature.parameters.values())[1:])


_runs = _Runs()
_made: dict[Place, Made] = {}


def place_of(thing: Any, name: str = '') -> Place | None:
    """Return the place at which something is being made; None outside of cells.

    An instance of a user's own subclass is always made: it is his to say what it is.
    """
    shell = running_shell()
    if shell is None or type(thing).__module__.partition('.')[0] != __name__.partition('.')[0]:
        return None
    statement = running_statement()
    if not statement:
        return None
    _runs.watch(shell)
    key = (type(thing).__name__, name, statement)
    _runs.counts[key] += 1
    return Place(*key, _runs.counts[key])


def made_at(place: Place | None) -> Made | None:
    """Return what was made there in an earlier run of the cell."""
    return _made.get(place) if place is not None else None


def remember(place: Place | None, thing: Any, arguments: dict[str, Any]) -> None:
    """Take note of what was made at a place."""
    if place is not None:
        _made[place] = Made(thing, arguments)


def forget(thing: Any) -> None:
    """It was closed: it is of no more use."""
    for place, made in list(_made.items()):
        if made.thing is thing:
            del _made[place]


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Name the arguments that differ."""
    return [name for name, value in after.items() if before.get(name) != value]


def take_over(before: dict[str, Any], after: dict[str, Any]) -> None:
    """What was made before is used again: its jobs know the cells' classes of then."""
    for old, new in zip(_meanings(before), _meanings(after), strict=True):
        new.take_over(old)


def _meanings(arguments: dict[str, Any]) -> Iterator[Meaning]:
    for value in arguments.values():
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Meaning):
                yield part


def say(text: str) -> None:
    """Tell the user of the running cell."""
    sys.stderr.write(f'{text}\n')
