"""Two sessions in memory: greetings, credit, bulk, and a wire that loses things."""

import random

import pytest

from nodeserver.core.errors import ProtocolError, UsageError
from nodeserver.core.filemessages import PlaceFiles
from nodeserver.core.messages import (
    CancelJobs,
    CloseComputation,
    ComputationClosed,
    DeclareComputation,
    Farewell,
    JobsDone,
    JobsHeld,
    JobsProvisional,
    JobsRequeued,
    JobsRetried,
    JobsStarted,
    Message,
    NodePulse,
    ResubmitJobs,
    RunJobs,
    ShareData,
    SubmitJobs,
)
from nodeserver.wire import bulk, codec
from nodeserver.wire.codec import Frame
from nodeserver.wire.envelope import (
    Kind,
    head,
    objection,
    open_header,
    read_greeting,
    read_refusal,
    write_refusal,
)
from nodeserver.wire.session import Greeting, Limits, Session
from tests.support.world import declaration

A, B = 'a' * 32, 'b' * 32
TINY = Limits(credit=4000, unacknowledged=8, bulk_above=500, part=100, largest=50_000)


class Pair:
    """A dialling and a listening session, and what is on the wire between them."""

    def __init__(self, limits: Limits = TINY) -> None:
        self.limits = limits
        self.a = Session((A, 'scheduler'), 'first a', limits)
        self.b = Session((B, 'node'), 'first b', limits)
        self.to_a: list[list[Frame]] = []
        self.to_b: list[list[Frame]] = []
        self.at_a: list[Message] = []
        self.at_b: list[Message] = []

    def greet(self) -> tuple[Greeting, Greeting]:
        """Connect: HELLO and WELCOME."""
        self.a.connected()
        hello = self.a.greeting(Kind.HELLO)
        assert not objection(hello)
        at_b = self.b.greeted(*read_greeting(hello))
        at_a = self.a.greeted(*read_greeting(self.b.greeting(Kind.WELCOME)))
        return at_a, at_b

    def cut(self) -> None:
        """Lose what is on the wire, as a broken connection does."""
        self.to_a.clear()
        self.to_b.clear()
        self.a.pause()

    def collect(self) -> None:
        """Put on the wire what is due."""
        self.to_b += self.a.due()
        self.to_a += self.b.due()

    def deliver(self, count: int = 1_000_000) -> None:
        """Hand over at most so many envelopes in each direction."""
        for _ in range(min(count, len(self.to_b))):
            self.at_b += self.b.receive(self.to_b.pop(0))
        for _ in range(min(count, len(self.to_a))):
            self.at_a += self.a.receive(self.to_a.pop(0))

    def settle(self) -> None:
        """Go on until nothing moves any more."""
        for _ in range(10_000):
            self.collect()
            if not (self.to_a or self.to_b):
                return
            self.deliver()
        raise AssertionError('the two sessions talk for ever')


def _large(size: int, name: int = 0) -> SubmitJobs:
    payload = random.Random(name).randbytes(size)
    return SubmitJobs(name, '', [1], [payload])


def test_messages_go_both_ways_in_order() -> None:
    pair = Pair()
    assert pair.greet() == (Greeting.FIRST, Greeting.FIRST)
    there = [Farewell(f'a {i}') for i in range(100)]
    back = [Farewell(f'b {i}') for i in range(100)]
    for one, other in zip(there, back, strict=True):
        pair.a.send(one)
        pair.b.send(other)
    pair.settle()
    assert pair.at_b == there
    assert pair.at_a == back


def test_a_session_is_of_one_incarnation_of_the_peer() -> None:
    pair = Pair()
    anew = Session((A, 'scheduler'), 'second a', TINY)
    (first, _), (second, _) = (read_greeting(s.greeting(Kind.HELLO)) for s in (pair.a, anew))
    assert pair.b.is_of(first)
    assert pair.b.is_of(second)
    pair.greet()
    assert pair.b.is_of(first)
    assert not pair.b.is_of(second)


def test_nothing_is_sent_or_believed_before_the_greeting() -> None:
    pair = Pair()
    pair.a.send(Farewell('early'))
    assert pair.a.due() == []
    pair.b.send(Farewell('early too'))
    assert pair.a.receive([head(Kind.MESSAGE, 1, 0) + b'junk']) == []
    pair.greet()
    pair.settle()
    assert pair.at_b == [Farewell('early')]
    assert pair.at_a == [Farewell('early too')]


@pytest.mark.parametrize('seed', range(20))
def test_connections_that_break_lose_and_repeat_nothing(seed: int) -> None:
    chance = random.Random(seed)
    pair = Pair()
    sent_a: list[Message] = []
    sent_b: list[Message] = []
    pair.greet()
    for number in range(200):
        if chance.random() < 0.8:
            sent_a.append(Farewell(f'a {number}' * chance.randrange(1, 20)))
            pair.a.send(sent_a[-1])
        if chance.random() < 0.8:
            sent_b.append(Farewell(f'b {number}'))
            pair.b.send(sent_b[-1])
        pair.collect()
        pair.deliver(chance.randrange(4))
        if chance.random() < 0.1:
            pair.cut()
            pair.collect()
            assert pair.greet() == (Greeting.AGAIN, Greeting.AGAIN)
    pair.settle()
    assert pair.at_b == sent_a
    assert pair.at_a == sent_b


@pytest.mark.parametrize('seed', range(10))
def test_large_messages_survive_breaking_connections(seed: int) -> None:
    chance = random.Random(seed)
    pair = Pair()
    pair.greet()
    large = [_large(chance.randrange(400, 5000), name) for name in range(8)]
    for message in large:
        pair.a.send(message)
    for _ in range(100):
        pair.collect()
        pair.deliver(chance.randrange(4))
        if chance.random() < 0.1:
            pair.cut()
            pair.greet()
    pair.settle()
    assert sorted(pair.at_b, key=lambda one: getattr(one, 'computation', -1)) == large


def test_a_lost_tail_is_noticed_by_the_next_pulse() -> None:
    pair = Pair()
    pair.greet()
    pair.a.send(Farewell('lost'))
    pair.a.due()
    pair.a.send(NodePulse(None))
    pair.settle()
    assert pair.at_b == [NodePulse(None), Farewell('lost')]


def test_what_is_missing_is_asked_for_once_however_many_pulses_tell_of_it() -> None:
    pair = Pair()
    pair.greet()
    pair.a.send(Farewell('lost'))
    pair.a.due()
    for _ in range(60):  # while the other side hung
        pair.a.send(NodePulse(None))
    pair.to_b += pair.a.due()
    pair.deliver()
    assert [open_header(frames[0])[0] for frames in pair.b.due()] == [Kind.RESEND]
    pair.a.receive([head(Kind.RESEND, 0, 0)])
    pair.settle()
    assert pair.at_b == [*[NodePulse(None)] * 60, Farewell('lost')]


def test_asking_again_and_again_without_taking_anything_ends_the_session() -> None:
    pair = Pair()
    pair.greet()
    pair.a.send(Farewell('x' * 300))
    pair.a.due()
    for _ in range(16):
        pair.a.receive([head(Kind.RESEND, 0, 0)])
        assert len(pair.a.due()) == 1
    with pytest.raises(ProtocolError, match='again and again'):
        pair.a.receive([head(Kind.RESEND, 0, 0)])
    pair.a.receive([head(Kind.RESEND, 0, 1)])  # of who took it, nothing is left to be asked for


def test_a_pulse_is_neither_kept_nor_held_up() -> None:
    pair = Pair()
    pair.a.send(NodePulse(None))
    pair.greet()
    pair.a.send(_large(20_000))
    pair.collect()
    pair.a.send(NodePulse(None))
    pair.collect()
    parts_before = len(pair.to_b) - 1
    assert open_header(pair.to_b[-1][0])[0] == Kind.PULSE
    assert parts_before <= TINY.parts_in_flight
    pair.settle()
    assert [type(message) for message in pair.at_b] == [NodePulse, SubmitJobs]


def test_small_messages_overtake_large_ones() -> None:
    pair = Pair()
    pair.greet()
    large = _large(20_000)
    pair.a.send(large)
    pair.a.send(Farewell('small'))
    pair.settle()
    assert pair.at_b == [Farewell('small'), large]


def test_nothing_of_a_job_overtakes_its_large_provisional_result() -> None:
    def results(name: int, size: int) -> JobsProvisional:
        return JobsProvisional(1, 'node', [name], [1], [bytes(size)])

    pair = Pair()
    pair.greet()
    done = JobsDone(1, 'node', 1, [1], [1], [11], [b'outcome'], [''], [0.1])
    other = JobsDone(2, 'node', 1, [1], [1], [11], [b'outcome'], [''], [0.1])
    ordered = [results(1, 20_000), results(1, 10), results(2, 20_000), done]
    for message in (*ordered, other, Farewell('small')):
        pair.a.send(message)
    pair.settle()
    assert pair.at_b == [other, Farewell('small'), *ordered]
    pair.a.send(results(3, 10))  # nothing large is under way now
    assert len(pair.a.due()) == 1


def test_a_large_end_of_a_job_overtakes_no_provisional_result_that_waits_for_credit() -> None:
    pair = Pair()
    pair.greet()
    for number in range(40):
        pair.a.send(_large(200, number))
    pair.a.send(JobsProvisional(1, 'n', [7], [1], [b'first']))
    pair.a.send(JobsDone(1, 'n', 1, [7], [1], [11], [b'o' * 600], [''], [0.1]))
    pair.settle()
    kinds = [type(message) for message in pair.at_b]
    assert kinds.index(JobsProvisional) < kinds.index(JobsDone)


@pytest.mark.parametrize(
    'large',
    [
        SubmitJobs(1, '', [1], [bytes(600)]),
        ResubmitJobs(1, '', [1], [bytes(600)], ['']),
        ShareData(1, 1, bytes(10)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_nothing_large_overtakes_the_opening_of_its_computation_that_waits_for_credit(
    large: Message,
) -> None:
    pair = Pair()
    pair.greet()
    for number in range(40):
        pair.a.send(_large(200, number))
    pair.a.send(declaration(1))
    pair.a.send(large)
    pair.settle()
    kinds = [type(message) for message in pair.at_b]
    assert kinds.index(DeclareComputation) < len(kinds) - 1
    assert pair.at_b[-1] == large


def _opening() -> DeclareComputation:
    return declaration(1, package=bytes(20_000))


def _letter(size: int) -> JobsDone:
    return JobsDone(1, 'n', 1, [1], [1], [11], [bytes(size)], [''], [0.1])


@pytest.mark.parametrize(
    ('large', 'small'),
    [
        (_opening(), SubmitJobs(1, '', [1], [b''])),
        (_opening(), CloseComputation(1)),
        (_opening(), PlaceFiles(1, 'n', -1, b'')),
        (SubmitJobs(1, '', [1], [bytes(20_000)]), CancelJobs(1, [1])),
        (SubmitJobs(1, '', [1], [bytes(20_000)]), CloseComputation(1)),
        (_letter(20_000), ComputationClosed(1)),
        (_letter(20_000), JobsHeld(1, [], [])),
        (JobsRetried(1, [1], [bytes(20_000)], ['']), JobsStarted(1, 'n', [1])),
        (JobsRetried(1, [1], [bytes(20_000)], ['']), _letter(10)),
        (JobsProvisional(1, 'n', [1], [1], [bytes(20_000)]), JobsRequeued(1, [1], 'lost')),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_follows_from_a_large_message_does_not_overtake_it(
    large: Message, small: Message
) -> None:
    pair = Pair()
    pair.greet()
    pair.a.send(large)
    pair.a.send(small)
    pair.settle()
    assert pair.at_b == [large, small]


def test_small_letters_overtake_large_ones() -> None:
    pair = Pair()
    pair.greet()
    pair.a.send(_letter(20_000))
    pair.a.send(_letter(10))
    pair.settle()
    assert pair.at_b == [_letter(10), _letter(20_000)]


def test_large_messages_keep_their_order_among_themselves() -> None:
    pair = Pair()
    pair.greet()
    large = [_large(3000 - 500 * name, name) for name in range(4)]
    for message in large:
        pair.a.send(message)
    pair.settle()
    assert pair.at_b == large


def test_bytes_in_flight_stay_within_credit() -> None:
    pair = Pair()
    pair.greet()
    for number in range(1000):
        pair.a.send(Farewell(f'{number:100}'))
    pair.collect()
    on_the_wire = sum(len(frame) for frames in pair.to_b for frame in frames)
    assert TINY.credit / 2 < on_the_wire < TINY.credit + 1000
    assert pair.a.due() == []
    pair.settle()
    assert len(pair.at_b) == 1000


def test_a_receiver_that_is_silent_acknowledges_by_itself() -> None:
    pair = Pair()
    pair.greet()
    for _ in range(TINY.unacknowledged):
        pair.a.send(Farewell(''))
    pair.collect()
    pair.deliver()
    pair.collect()
    assert [open_header(frames[0])[0] for frames in pair.to_a] == [Kind.ACK]


def test_a_restarted_listener_starts_anew() -> None:
    pair = Pair()
    pair.greet()
    for number in range(5):
        pair.a.send(Farewell(f'to the old one {number}'))
    pair.settle()
    pair.cut()
    pair.b = Session((B, 'node'), 'second b', TINY)
    assert pair.greet() == (Greeting.RESTARTED, Greeting.FIRST)
    pair.at_b.clear()
    pair.a.send(Farewell('to the new one'))
    pair.b.send(Farewell('from the new one'))
    pair.settle()
    assert pair.at_b == [Farewell('to the new one')]
    assert pair.at_a == [Farewell('from the new one')]


def test_a_restarted_dialler_starts_anew() -> None:
    pair = Pair()
    pair.greet()
    pair.b.send(Farewell('to the old one'))
    pair.collect()
    pair.cut()
    pair.a = Session((A, 'scheduler'), 'second a', TINY)
    assert pair.greet() == (Greeting.FIRST, Greeting.RESTARTED)
    pair.b.send(Farewell('to the new one'))
    pair.settle()
    assert pair.at_a == [Farewell('to the new one')]


def test_a_welcome_that_was_lost_after_a_restart_does_no_harm() -> None:
    pair = Pair()
    pair.greet()
    for _ in range(5):
        pair.b.send(Farewell('old'))
    pair.settle()
    pair.cut()
    pair.b = Session((B, 'node'), 'second b', TINY)
    pair.a.connected()
    pair.b.greeted(*read_greeting(pair.a.greeting(Kind.HELLO)))
    pair.b.send(Farewell('new'))
    pair.collect()
    pair.cut()
    pair.at_a.clear()
    assert pair.greet() == (Greeting.RESTARTED, Greeting.AGAIN)
    pair.settle()
    assert pair.at_a == [Farewell('new')]


def test_a_hello_repeated_on_one_connection_sends_nothing_twice() -> None:
    pair = Pair()
    pair.greet()
    pair.b.send(Farewell('once'))
    pair.collect()
    pair.b.greeted(*read_greeting(pair.a.greeting(Kind.HELLO)))
    assert pair.b.due() == []


def test_a_welcome_of_an_earlier_connection_is_known_as_such() -> None:
    pair = Pair()
    pair.greet()
    late, _ = read_greeting(pair.b.greeting(Kind.WELCOME))
    assert not pair.a.is_stale(late)
    pair.cut()
    pair.a.connected()
    assert pair.a.is_stale(late)


def test_another_protocol_version_is_refused_in_words() -> None:
    text = objection([head(Kind.HELLO, 99, 0) + b'whatever comes then'])
    assert 'version 99' in text
    assert 'version 1' in text
    assert read_refusal(write_refusal(text)) == text


def test_a_refusal_is_printable_and_short() -> None:
    assert read_refusal(write_refusal('a\x1b[2Jb\n' + 'x' * 10_000)).startswith('a?[2Jb?xxx')
    assert len(read_refusal(write_refusal('x' * 10_000))) <= 2000


ANNOUNCED = head(Kind.BULK, 1, 0) + b'\x91\xcd\x0f\xff'  # one frame of 4095 bytes


@pytest.mark.parametrize(
    ('envelopes', 'words'),
    [
        ([[b'short']], '5 bytes'),
        ([[head(77, 1, 0)]], 'unknown kind 77'),
        ([[head(Kind.MESSAGE, 1, 0) + b'\x7f']], 'unknown type'),
        ([[head(Kind.ACK, 0, 9)]], 'number 9'),
        ([[head(Kind.BULK, 1, 0) + b'\x91\xce\x7f\xff\xff\xff']], 'are allowed'),
        ([[head(Kind.BULK, 1, 0) + b'\x91\x00']], 'empty frames'),
        ([[head(Kind.BULK, 1, 0) + b'\x90']], 'empty frames'),
        ([[head(Kind.BULK, 1, 0) + b'\x93\x01\x01\x01']], '3 frames'),
        ([[head(Kind.BULK, 1, 0) + b'junk']], 'malformed'),
        ([[head(Kind.PART, 1, 0), b'x']], 'nobody announced'),
        ([[ANNOUNCED], [head(Kind.BULK, 2, 0) + b'\x91\x01']], 'inside another'),
        ([[ANNOUNCED], [head(Kind.PART, 2, 0), b'x' * 5000]], 'does not fit'),
        ([[ANNOUNCED], [head(Kind.PART, 2, 0), b'']], 'does not fit'),
    ],
)
def test_what_no_correct_peer_sends_is_a_protocol_error(
    envelopes: list[list[Frame]], words: str
) -> None:
    pair = Pair()
    pair.greet()
    with pytest.raises(ProtocolError, match=words):
        for frames in envelopes:
            pair.b.receive(frames)


def test_sending_more_than_the_other_side_takes_is_the_callers_fault() -> None:
    pair = Pair()
    with pytest.raises(UsageError, match='50000 are allowed'):
        pair.a.send(_large(60_000))


def test_a_large_message_of_small_payloads_is_read_whatever_payloads_are_gathered_in() -> None:
    """Only payloads may go to a file: who takes parts must be able to read the message itself."""
    assembler = bulk.Assembler(1 << 30, sink=lambda size: pytest.fail('no payload is large'))
    message = RunJobs(
        7, list(range(300)), [1] * 300, [bytes([n % 250]) * 30_000 for n in range(300)]
    )
    whole = None
    for kind, frames in bulk.split(codec.encode(message), 1 << 20):
        whole = assembler.take(kind, [b'', *frames] if kind is Kind.PART else frames)
    assert whole is not None
    assert codec.decode(whole) == message
