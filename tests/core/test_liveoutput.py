"""What running jobs print, on its way through the cores: believed if current, not too much."""

from typing import Any

import pytest

from nodeserver.core import effects as do
from nodeserver.core import messages as m
from nodeserver.core.cluster import ClusterCore
from nodeserver.core.events import JobsPrinted, MessageArrived, PeerLost
from nodeserver.core.outputmessages import STDERR, STDOUT
from nodeserver.core.outputpace import MESSAGE_BYTES, MOST_BYTES
from tests.core.test_node import Bench
from tests.support.desk import CLIENT, Desk
from tests.support.world import declaration


def printed(*rows: tuple[int, int, bytes]) -> JobsPrinted:
    """Workers, numbers of their jobs, and what these printed."""
    workers, numbers, texts = map(list, zip(*rows, strict=True))
    return JobsPrinted(7, workers, numbers, [STDOUT] * len(rows), [0] * len(rows), texts)  # type: ignore[arg-type]


# the node


def test_a_node_tells_which_jobs_print() -> None:
    bench = Bench()
    bench.open('worker')
    bench.run(11, 12)
    bench.tell(JobsPrinted(7, [1, 2, 2], [1, 1, 1], [1, 1, 2], [0, 5, 0], [b'a', b'b', b'c']))
    assert bench.take(m.JobsOutput) == [
        m.JobsOutput(
            7, 'n', [11, 12, 12], [1, 1, 1], [STDOUT, STDOUT, STDERR], [0, 5, 0], [b'a', b'b', b'c']
        )
    ]
    assert not bench.take(do.ReadOutput)


def test_a_node_reads_more_once_the_last_was_taken() -> None:
    bench = Bench()
    bench.open()
    bench.run(11)
    bench.tell(printed((1, 1, b'a')))
    bench.hears(m.OutputTaken(7, 'n'))
    assert bench.take(do.ReadOutput) == [do.ReadOutput(7)]
    bench.hears(m.OutputTaken(8, 'n'))  # a computation that is gone
    assert not bench.take(do.ReadOutput)


def test_what_ended_jobs_printed_is_not_told_and_others_are_read() -> None:
    bench = Bench()
    bench.open('worker')
    bench.run(11, 12)
    bench.reported(1, 11)
    bench.tell(printed((1, 1, b'a'), (9, 1, b'of a worker that is gone')))
    assert not bench.take(m.JobsOutput)
    assert bench.take(do.ReadOutput) == [do.ReadOutput(7)]
    bench.tell(printed((1, 1, b'a'), (2, 1, b'b')))
    (output,) = bench.take(m.JobsOutput)
    assert (output.ids, output.texts) == ([12], [b'b'])


def test_nothing_is_told_when_nobody_is_there() -> None:
    bench = Bench()
    bench.open()
    bench.run(11)
    bench.tell(PeerLost('s', 'it is gone'))
    bench.take(do.Send)
    bench.tell(printed((1, 1, b'a')))
    assert not bench.take(m.JobsOutput)
    assert not bench.take(do.ReadOutput)


# the scheduler


def output(*rows: tuple[int, int, bytes], node: str = 'a') -> m.JobsOutput:
    """Ids, attempts and texts of jobs."""
    ids, attempts, texts = map(list, zip(*rows, strict=True))
    columns: Any = (ids, attempts, [STDOUT] * len(rows), [0] * len(rows), texts)
    return m.JobsOutput(7, node, *columns)


def test_output_of_current_attempts_passes() -> None:
    desk = Desk(reentrant=True)
    desk.join('a')
    desk.submit(1, 2)
    whole = output((1, 1, b'one'), (2, 1, b'two'))
    desk.hears('a', whole)
    assert desk.sent(m.JobsOutput, CLIENT) == [whole]
    desk.hears('a', output((1, 1, b'one'), (2, 5, b'of another attempt'), (3, 1, b'unknown')))
    assert desk.sent(m.JobsOutput, CLIENT) == [output((1, 1, b'one'))]


def test_output_that_nobody_believes_is_answered_all_the_same() -> None:
    desk = Desk()
    desk.join('a')
    desk.submit(1)
    desk.hears('a', output((1, 5, b'of another attempt')))
    (passed,) = desk.sent(m.JobsOutput, CLIENT)
    assert (passed.ids, passed.texts) == ([], [])
    desk.hears(CLIENT, m.OutputTaken(7, 'a'))
    assert desk.sent(m.OutputTaken, 'a') == [m.OutputTaken(7, 'a')]
    desk.hears(CLIENT, m.OutputTaken(7, 'gone'))
    assert not desk.sent(m.OutputTaken)


def test_output_moves_no_deadline() -> None:
    desk = Desk()
    desk.join('a')
    desk.submit(1)
    before = desk.core.next_deadline()
    desk.hears('a', output((1, 1, b'one')))
    assert desk.core.next_deadline() == before


# the cluster


class Reader:
    """A cluster's core that is told of output, and its clock."""

    def __init__(self) -> None:
        self.core = ClusterCore('scheduler', declaration())
        self.now = 50.0
        self.effects: list[Any] = []

    def hears(self, message: Any) -> None:
        """A message comes."""
        self.effects += self.core.handle(MessageArrived('scheduler', message), self.now)

    def taken(self) -> list[str]:
        """Nodes that may go on, at the end of a turn."""
        self.effects += self.core.end_turn(self.now)
        sent = [e.message for e in self.effects if isinstance(e, do.Send)]
        nodes = [message.node for message in sent if isinstance(message, m.OutputTaken)]
        self.effects = [e for e in self.effects if not isinstance(e, do.Send)]
        return nodes


def test_a_little_output_is_shown_and_more_is_asked_for_at_once() -> None:
    reader = Reader()
    piece = output((1, 1, b'one'))
    reader.hears(piece)
    reader.hears(output((2, 1, b'two'), node='b'))
    assert reader.taken() == ['a', 'b']
    assert reader.effects[0] == do.DeliverOutput(piece)
    assert reader.core.next_deadline() is None


def test_an_answer_to_nothing_that_is_believed_shows_nothing() -> None:
    reader = Reader()
    reader.hears(m.JobsOutput(7, 'a', [], [], [], [], []))
    assert reader.taken() == ['a']
    assert not reader.effects


@pytest.mark.parametrize('size', [1, 10_000, 256 * 1024])
def test_all_nodes_together_are_read_no_faster_than_allowed(size: int) -> None:
    reader, waiting, read = Reader(), [f'n{number}' for number in range(100)], 0
    until = reader.now + 3
    while reader.now < until:
        for node in waiting:
            reader.hears(output((1, 1, b'x' * size), node=node))
            read += size + MESSAGE_BYTES
        waiting = reader.taken()
        reader.effects.clear()
        if not waiting:
            due = reader.core.next_deadline()
            assert due is not None and due > reader.now
            reader.now = due
    first = 100 * (size + MESSAGE_BYTES)
    assert read - first <= 3.6 * MOST_BYTES
    assert read >= 3 * MOST_BYTES
