"""The network and the agenda of a world in one thread keep their promises themselves."""

import random

import pytest

from tests.support.agenda import Agenda
from tests.support.clock import Clock
from tests.support.network import PERFECT, Connection, End, Faults, Network

LOSSY = Faults(lose_chance=0.3)
REPEATING = Faults(repeat_chance=0.3)
OVERTAKING = Faults(overtake_chance=0.3)


class Program:
    """One that writes down what happens to it, as dialer, as listener, or both."""

    def __init__(self, name: str, agenda: Agenda) -> None:
        self.name, self.agenda = name, agenda
        self.is_alive, self.stalled_until = True, 0.0
        self.program, self.end = self, End(name)
        self.heard: list[tuple[float, object]] = []
        self.connection: Connection | None = None
        self.is_pulsed = True

    def turn(self) -> None:
        self.hear('turn')

    def hear(self, what: object) -> None:
        self.heard.append((self.agenda.now, what))

    def connected(self, connection: Connection) -> None:
        self.connection = connection

    def accepted(self, name: str, connection: Connection) -> None:
        self.connection = connection

    def disconnected(self, connection: Connection | None = None) -> None:
        self.hear('disconnected')

    def take(self, *args: object) -> None:
        self.hear(args[-1][0])  # type: ignore[index]

    @property
    def words(self) -> list[object]:
        return [what for _, what in self.heard]


class Pair:
    """A dialer and a listener that are connected."""

    def __init__(self, faults: Faults = PERFECT, seed: int = 1) -> None:
        self.agenda = Agenda(0.0)
        self.network = Network(self.agenda, random.Random(seed), faults)
        self.a, self.b = Program('a', self.agenda), Program('b', self.agenda)
        self.network.connect(self.a, self.b, 'a')
        while self.a.connection is None:
            assert self.agenda.step()
        self.connection = self.a.connection

    def send(self, *numbers: int) -> None:
        for number in numbers:
            self.connection.to_listener([bytes([number])])

    def arrived(self, seconds: float = 300.0) -> list[object]:
        self.agenda.run(seconds)
        return [word[0] if isinstance(word, bytes) else word for word in self.b.words]


NUMBERS = list(range(100, 150))


def test_the_same_seed_gives_the_same_history() -> None:
    def history(seed: int) -> list[tuple[float, object]]:
        pair = Pair(Faults(lose_chance=0.1, repeat_chance=0.1, overtake_chance=0.1), seed)
        pair.send(*NUMBERS)
        pair.arrived()
        return pair.b.heard

    assert history(7) == history(7)
    assert history(7) != history(8)


@pytest.mark.parametrize('seed', range(5))
def test_a_connection_keeps_its_order_and_loses_nothing(seed: int) -> None:
    pair = Pair(Faults(slow_chance=0.3), seed)
    pair.send(*NUMBERS)
    assert pair.arrived() == NUMBERS


def test_what_may_be_lost_repeated_and_overtaken_is() -> None:
    for faults in (LOSSY, REPEATING, OVERTAKING):
        pair = Pair(faults)
        pair.send(*NUMBERS)
        assert pair.arrived() != NUMBERS
        assert set(pair.arrived()) <= set(NUMBERS)


def test_what_comes_to_a_closed_way_waits_and_goes_on_in_its_order() -> None:
    pair = Pair()
    pair.send(100)
    pair.network.close(pair.b.end)
    pair.send(101)
    assert pair.arrived(10.0) == []
    pair.network.open(pair.b.end)
    assert pair.arrived(1.0) == [100, 101]


def test_a_way_that_is_closed_for_long_costs_the_connection_at_the_end_that_dialled() -> None:
    pair = Pair()
    pair.network.close(pair.b.end)
    pair.agenda.run(2.9)
    assert pair.a.words == []
    pair.agenda.run(2.2)
    assert (pair.a.words, pair.b.words) == (['disconnected'], [])
    pair.network.open(pair.b.end)
    pair.send(100)
    assert pair.arrived() == []


def test_a_reset_is_noticed_by_both_and_loses_what_is_under_way() -> None:
    pair = Pair(Faults(shortest=1.0, longest=1.0, slow_chance=0.0))
    pair.network.reset(pair.b.end)
    pair.agenda.run(0.5)
    pair.send(100)
    assert pair.arrived() == ['disconnected']
    assert pair.a.words == ['disconnected']


def test_the_end_of_a_program_is_told_and_a_power_failure_is_not() -> None:
    pair = Pair()
    pair.network.closed_by(pair.b)
    pair.agenda.run(1.0)
    assert pair.a.words == ['disconnected']
    pair = Pair()
    pair.network.lose_power(pair.b.end)
    pair.agenda.run(1.0)
    assert pair.a.words == []


def test_a_stalled_program_gets_everything_later_and_deadlines_last() -> None:
    agenda = Agenda(0.0)
    program = Program('a', agenda)
    agenda.at_deadline(1.0, program, lambda moment: program.hear('deadline'))
    agenda.later(2.0, program, program.hear, 'message')
    program.stalled_until = 5.0
    agenda.run(10.0)
    assert program.heard == [(5.0, 'message'), (5.0, 'deadline')]


def test_what_waits_for_a_stalled_program_keeps_its_order_however_often_that_stalls() -> None:
    agenda = Agenda(0.0)
    program = Program('a', agenda)
    program.stalled_until = 5.0
    agenda.later(1.0, program, program.hear, 'first')
    agenda.run(2.0)
    program.stalled_until = 9.0
    agenda.later(1.0, program, program.hear, 'second')
    agenda.run(10.0)
    assert program.heard == [(9.0, 'first'), (9.0, 'second')]


def test_a_program_that_has_ended_gets_nothing() -> None:
    agenda = Agenda(0.0)
    program = Program('a', agenda)
    agenda.later(1.0, program, program.hear, 'message')
    agenda.ready(program)
    program.is_alive = False
    agenda.run(10.0)
    assert program.heard == []


def test_a_turn_comes_when_all_of_a_moment_has_come() -> None:
    agenda = Agenda(0.0)
    program = Program('a', agenda)
    for _ in range(2):
        agenda.later(1.0, program, program.hear, 'message')
    agenda.later(1.0, program, agenda.ready, program)
    agenda.later(1.0, program, program.hear, 'message')
    agenda.run(2.0)
    assert program.words == ['message', 'message', 'message', 'turn']


def test_clock_never_runs_backwards() -> None:
    clock = Clock(5.0)
    assert clock.advance(2.5) == clock() == 7.5
    with pytest.raises(ValueError, match='go back'):
        clock.advance(-1)
