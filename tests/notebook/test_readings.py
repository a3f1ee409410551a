"""What a plot draws of provisional results, and what it says of those that it cannot draw."""

import pickle
import time
from collections import namedtuple
from decimal import Decimal
from fractions import Fraction
from itertools import count
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dispy_nb.history import Provisional
from dispy_nb.notebook.charts import readings
from dispy_nb.notebook.charts.readings import Axis, NotDrawn, Point, Readings
from dispy_nb.outcomes import ProvisionalOutcome
from nodeserver.core.errors import UsageError

Loss = namedtuple('Loss', 'step loss')
_numbers = count(1)


def row(value: Any, job: str = '1') -> Provisional:
    number = next(_numbers)
    return Provisional(job, number, 100.0 + number, ProvisionalOutcome(pickle.dumps(value)))


def read(rows: list[Provisional], x: Any = None, y: Any = None) -> Readings:
    taken = Readings(Axis('x', x), Axis('y', y))
    taken.start(rows)
    taken.wait(10)
    assert taken.has_all(rows)
    return taken


@pytest.mark.row('V11')
@pytest.mark.parametrize(
    ('given', 'result', 'number'),
    [
        (None, 2.5, 2.5),
        (None, 3, 3.0),
        (None, np.float32(0.5), 0.5),
        (None, np.array(0.25), 0.25),
        (None, Decimal('1.5'), 1.5),
        (None, Fraction(1, 4), 0.25),
        ('loss', {'loss': 0.5}, 0.5),
        (7, {7: 0.5}, 0.5),
        (1, (1, 2), 2.0),
        (-1, [1, 2, 3], 3.0),
        (1, Loss(3, 0.5), 0.5),
        ('loss', Loss(3, 0.5), 0.5),
        ('loss', SimpleNamespace(loss=0.5), 0.5),
        ('loss', np.array([(1, 0.5)], dtype=[('step', int), ('loss', float)])[0], 0.5),
        (lambda result: result['a']['b'], {'a': {'b': 4}}, 4.0),
    ],
)
def test_a_number_is_found(given: Any, result: Any, number: float):
    assert Axis('y', given).number(result) == number


class Angry:
    def __float__(self) -> float:
        raise SystemExit('no')


@pytest.mark.parametrize(
    ('given', 'result', 'words'),
    [
        ('loss', {'step': 1}, "y: KeyError 'loss'"),
        (5, [1], 'y: IndexError'),
        ('loss', 3, 'y: AttributeError'),
        (None, {'a': 1}, 'y: TypeError'),
        (None, '3', "y: '3' is no number"),
        (None, None, 'y: TypeError'),
        (None, Angry(), 'y: SystemExit no'),
        (None, 10**400, 'y: OverflowError'),
        (lambda result: 1 / 0, 3, 'y: ZeroDivisionError division by zero'),
    ],
)
def test_what_is_no_number_is_said(given: Any, result: Any, words: str):
    with pytest.raises(NotDrawn) as told:
        Axis('y', given).number(result)
    assert str(told.value).startswith(words)
    assert '\n' not in str(told.value)


@pytest.mark.parametrize('given', [True, 2.5, [1], ('a', 'b'), b'key', object()])
def test_wrong_arguments_are_refused_at_once(given: Any):
    with pytest.raises(UsageError, match=r'x must be a key, an index, .*, not '):
        Axis('x', given)


@pytest.mark.row('V11')
def test_each_job_has_its_points_in_their_order():
    rows = [row({'x': 1, 'y': 2}, 'a'), row({'x': 5, 'y': 6}, 'b'), row({'x': 3, 'y': 4}, 'a')]
    points = read(rows, 'x', 'y').points(rows)
    assert list(points) == ['a', 'b']
    assert [(point.x, point.y) for point in points['a']] == [(1.0, 2.0), (3.0, 4.0)]
    assert read(rows, y='y').points(rows)['b'] == [Point('b', None, 6.0, rows[1].at)]


def test_the_first_failure_is_told_and_all_are_counted():
    rows = [row({'loss': 1}, 'a'), row({}, 'b'), row({'loss': 'x'}, 'c'), row({'loss': 2}, 'a')]
    taken = read(rows, y='loss')
    assert [point.y for point in taken.points(rows)['a']] == [1.0, 2.0]
    expected = "2 provisional results are not drawn; the first: y: KeyError 'loss' for job b"
    assert taken.note == expected


def test_one_that_cannot_be_unpickled_is_told():
    broken = Provisional('a', 1, 100.0, ProvisionalOutcome(b'no pickle'))
    taken = read([broken])
    assert taken.points([broken]) == {}
    assert 'cannot be unpickled' in taken.note


def test_each_is_read_once_and_forgotten_with_its_row():
    seen: list[Any] = []
    rows = [row(1), row(2)]
    taken = read(rows, y=lambda result: seen.append(result) or result)
    rows = [rows[1], row(3)]
    taken.start(rows)
    taken.wait(10)
    assert seen == [1, 2, 3]
    assert len(taken._read) == 2


def test_a_function_that_does_not_return_blocks_nobody_and_is_named(monkeypatch):
    monkeypatch.setattr(readings, 'SLOW', 0.05)
    gate = Event()
    rows = [row(1, 'stuck')]
    taken = Readings(Axis('x', None), Axis('y', lambda result: gate.wait(20) and result))
    taken.start(rows)
    end = time.monotonic() + 10
    while not taken.note and time.monotonic() < end:
        time.sleep(0.01)
    assert 'the result of job stuck is being read for' in taken.note
    began = time.monotonic()
    taken.wait(10)  # it has taken long already: nobody waits for it
    taken.start([*rows, row(2)])
    assert time.monotonic() - began < 5
    gate.set()
    thread = taken._thread
    assert thread is not None
    thread.join(10)
    assert taken.points(rows)['stuck'][0].y == 1.0
    assert taken.note == ''


def test_labels_are_what_was_asked_for():
    def accuracy(result: Any) -> Any:
        return result

    labels = [Axis('x', given).label for given in (None, 'loss', 2, accuracy)]
    assert labels == ['', 'loss', '2', 'accuracy']
