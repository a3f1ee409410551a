"""Which variables of the notebook go along with the body of a cell, and how large they are."""

import types
from collections.abc import Iterator
from typing import Any

from dispy_nb.cells import defined_in
from dispy_nb.notebook.over.reads import global_names
from dispy_nb.notebook.tables import size_text
from nodeserver.beside import Kept, beside
from nodeserver.core.errors import PicklingFailed
from nodeserver.culprits import pickling_failure
from nodeserver.definitions import dump_by_definition

MOST_NAMED = 20
_MAIN = '__main__'


def variables_of(shell: Any, function: types.FunctionType) -> dict[str, Any]:
    """Return the variables that a function needs, and those that its helpers need, by name."""
    own = function.__globals__
    found = {name: value for name, value in own.items() if name != '__name__'}
    found |= function.__kwdefaults__ or {}
    waiting = list(found.values())
    while waiting:
        for code in _codes(waiting.pop()):
            for name in global_names(code)[0]:
                if name not in found and name in shell.user_ns:
                    found[name] = shell.user_ns[name]
                    waiting.append(found[name])
    return found


def _codes(value: object) -> Iterator[types.CodeType]:
    """Yield the code of a function or class of the notebook, which travels by value."""
    if isinstance(value, types.FunctionType):
        if value.__module__ == _MAIN:
            yield value.__code__
    elif isinstance(value, staticmethod | classmethod):
        yield from _codes(value.__func__)
    elif isinstance(value, property):
        yield from _codes(value.fget)
    elif isinstance(value, type) and value.__module__ == _MAIN:
        for part in vars(value).values():
            if not isinstance(part, type):
                yield from _codes(part)


def described(shell: Any, variables: dict[str, Any]) -> str:
    """Say which variables are sent, and how large they are as they travel.

    Raises
    ------
    PicklingFailed
        One cannot travel: it is named, with its type and the cell that has set it.
    """
    data_first = sorted(variables.items(), key=lambda item: _is_definition(item[1]))
    titles = {name: _title(shell, name, value) for name, value in data_first}
    texts = [f'{name} ({titles[name]})' for name in variables]
    if not texts:
        return 'sends no variables of the notebook'
    more = f' and {len(texts) - MOST_NAMED} more' if len(texts) > MOST_NAMED else ''
    return f'sends {", ".join(texts[:MOST_NAMED])}{more}'


def _is_definition(value: object) -> bool:
    """Whether it brings others along: what cannot travel of those is told of them."""
    return isinstance(value, types.FunctionType | type)


def _title(shell: Any, name: str, value: object) -> str:
    kind = type(value).__name__
    if isinstance(value, types.ModuleType):
        return 'module'
    if _is_definition(value):
        _size(shell, name, value)  # what cannot travel is told here
        return 'class' if isinstance(value, type) else 'function'
    return f'{size_text(_size(shell, name, value))}, {kind}'


def _size(shell: Any, name: str, value: object) -> int:
    """Bytes of a value as it travels; the memory of arrays is not copied for that."""
    kept = Kept()
    try:
        data = dump_by_definition(beside(value), kept.take)
    except Exception as error:
        place = defined_in(name)
        raise PicklingFailed(
            f'variable {name}{f" (set in {place})" if place else ""} cannot be sent to nodes: '
            f'{pickling_failure(error, [(name, value)])}'
        ) from error
    return len(data) + sum(map(len, kept.buffers))
