"""What is sent of tables that grow: wholes now and then, and what has come since.

Both are states, not events: a view that comes late, or once more after a reload, is right from them
alone.  Of a table that only grew, only the new rows travel.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

MOST_TAIL = 48  # rows, and the wholes are sent anew

Columns = dict[str, Sequence[Any]]


class Table(NamedTuple):
    """A table at one moment; its columns are made when they are sent, and only those rows."""

    epoch: Hashable  # another one: what was sent before is no beginning of this
    lasting: int  # rows that stay as they are as long as the epoch does
    rows: int
    cut: Callable[[int, int], Columns]  # from a row up to another one


class Sheets:
    """Several tables and what was sent of them."""

    def __init__(self) -> None:
        self.data: dict[str, Columns] = {}
        self.tail: dict[str, Columns] = {}
        self._sent: dict[str, tuple[Hashable, int]] = {}

    def put(self, tables: Mapping[str, Table]) -> None:
        """Take the tables as they are now into `data` and `tail`."""
        if not self._goes_on(tables):
            self._sent = {name: (table.epoch, table.lasting) for name, table in tables.items()}
            self.data = {
                name: _plain(table.cut(0, table.lasting)) for name, table in tables.items()
            }
        tail = {
            name: _plain(table.cut(self._sent[name][1], table.rows))
            for name, table in tables.items()
            if table.rows > self._sent[name][1]
        }
        if tail != self.tail:
            self.tail = tail

    def _goes_on(self, tables: Mapping[str, Table]) -> bool:
        if set(tables) != set(self._sent):
            return False
        new = 0
        for name, table in tables.items():
            epoch, rows = self._sent[name]
            if table.epoch != epoch or table.lasting < rows:
                return False
            new += table.rows - rows
        return new <= MOST_TAIL


def _plain(columns: Columns) -> Columns:
    """JSON has numbers only that are finite."""
    return {name: [_number(value) for value in values] for name, values in columns.items()}


def _number(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return None if not isfinite(value) else int(value) if value.is_integer() else value
