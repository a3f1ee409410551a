"""Tables travel as wholes and what follows: together they are always the table."""

import json
from math import inf, nan
from typing import Any

from dispy_nb.notebook.charts.sheets import MOST_TAIL, Sheets, Table


def table(values: list[Any], epoch: object = 0, lasting: int | None = None) -> Table:
    kept = len(values) if lasting is None else lasting
    return Table(epoch, kept, len(values), lambda start, stop: {'x': values[start:stop]})


def together(sheets: Sheets, name: str = 'a') -> list[Any]:
    tail = sheets.tail.get(name, {'x': []})
    return [*sheets.data[name]['x'], *tail['x']]


def test_only_what_is_new_travels():
    sheets = Sheets()
    sheets.put({'a': table([1, 2, 3])})
    whole = sheets.data
    sheets.put({'a': table([1, 2, 3, 4])})
    assert sheets.data is whole  # the same object: nothing to send
    assert sheets.tail == {'a': {'x': [4]}}
    assert together(sheets) == [1, 2, 3, 4]


def test_the_present_row_may_change_without_a_new_whole():
    sheets = Sheets()
    sheets.put({'a': table([1, 2, 30], lasting=2)})
    whole = sheets.data
    sheets.put({'a': table([1, 2, 3, 40], lasting=3)})
    assert sheets.data is whole
    assert together(sheets) == [1, 2, 3, 40]


def test_another_epoch_or_a_long_tail_brings_new_wholes():
    sheets = Sheets()
    sheets.put({'a': table([1, 2]), 'b': table([5])})
    sheets.put({'a': table([2], epoch=1), 'b': table([5, 6])})
    assert together(sheets) == [2]
    assert together(sheets, 'b') == [5, 6]
    rows = [5, *range(MOST_TAIL + 2)]
    sheets.put({'a': table([2], epoch=1), 'b': table(rows)})
    assert sheets.tail == {}
    assert together(sheets, 'b') == rows


def test_a_table_that_comes_later_is_there():
    sheets = Sheets()
    sheets.put({'a': table([1])})
    sheets.put({'a': table([1]), 'b': table([2])})
    assert together(sheets, 'b') == [2]


def test_what_is_no_number_travels_as_json():
    sheets = Sheets()
    sheets.put({'a': table([nan, inf, -inf, 2.0, 2.5, 'text'])})
    assert together(sheets) == [None, None, None, 2, 2.5, 'text']
    json.dumps(sheets.data, allow_nan=False)
