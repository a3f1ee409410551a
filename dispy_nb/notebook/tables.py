"""Tables in cells: HTML where there is a browser, text elsewhere and in saved files."""

from collections.abc import Sequence
from html import escape
from typing import Any

from IPython.display import display

_CELL = 'padding:1px 8px;text-align:left;vertical-align:top'
_NUMBER = 'padding:1px 8px;text-align:right;vertical-align:top'
WIDEST = 60  # characters of a cell in text


class Table:
    """Rows under heads, with a line above and lines below them."""

    def __init__(
        self,
        heads: Sequence[str],
        rows: Sequence[Sequence[object]],
        title: str = '',
        notes: Sequence[str] = (),
    ) -> None:
        self._heads = heads
        self._rows = rows
        self._title = title
        self._notes = notes

    def show(self) -> None:
        """Show it in the running cell."""
        display(self, display_id=True)  # type: ignore[no-untyped-call]

    def __repr__(self) -> str:
        lines = [self._title] if self._title else []
        if self._rows:
            lines += self._text_rows()
        return '\n'.join([*lines, *self._notes])

    def _repr_html_(self) -> str:
        title = f'<div><b>{escape(self._title)}</b></div>' if self._title else ''
        notes = ''.join(
            f'<div style="white-space:pre-wrap">{escape(note)}</div>' for note in self._notes
        )
        return f'<div>{title}{self._html_rows() if self._rows else ""}{notes}</div>'

    def _text_rows(self) -> list[str]:
        rows = [[_text(cell) for cell in row] for row in self._rows]
        columns = list(zip(self._heads, *rows, strict=True))
        widths = [min(WIDEST, max(map(len, column))) for column in columns]
        numbers = [_are_numbers(column) for column in zip(*self._rows, strict=True)]
        return [
            '  '.join(
                cell.rjust(width) if is_number else cell.ljust(width)
                for cell, width, is_number in zip(row, widths, numbers, strict=True)
            ).rstrip()
            for row in (list(self._heads), *rows)
        ]

    def _html_rows(self) -> str:
        head = ''.join(f'<th style="{_CELL}">{escape(name)}</th>' for name in self._heads)
        rows = ''.join(f'<tr>{"".join(map(_html_cell, row))}</tr>' for row in self._rows)
        return f'<table><tr>{head}</tr>{rows}</table>'


def _text(cell: object) -> str:
    text = '' if cell is None else ' '.join(str(cell).split())
    return ''.join(letter if letter.isprintable() else '\ufffd' for letter in text)


def _html_cell(cell: object) -> str:
    style = _NUMBER if isinstance(cell, int | float) else _CELL
    return f'<td style="{style}">{escape(_text(cell))}</td>'


def _are_numbers(column: Sequence[Any]) -> bool:
    return all(cell is None or isinstance(cell, int | float) for cell in column)


def size_text(size: int | None) -> str:
    """Write a number of bytes for people, in thousands."""
    if size is None:
        return ''
    amount, units = float(size), ['B', 'kB', 'MB', 'GB', 'TB']
    while amount >= 999.5 and len(units) > 1:
        amount /= 1000
        units.pop(0)
    return f'{size} B' if units[0] == 'B' else f'{amount:.3g} {units[0]}'
