"""What a relay tells of, to whom, and when it stops: its core alone."""

from typing import Any

from nodeserver.core import relay as r
from nodeserver.core.effects import (
    AdmitProgram,
    CloseWay,
    Disconnect,
    DismissProgram,
    Effect,
    OpenWay,
    Ping,
    Report,
    Send,
    Stop,
)
from nodeserver.core.events import (
    CarriedChanged,
    DeadlinePassed,
    MessageArrived,
    NodeFound,
    PeerConnected,
    PeerLost,
    RelayFound,
    StopAsked,
)
from nodeserver.core.relaymessages import AskNodes, NodesGone, NodesSeen, RelayDetails

INTERVAL = 5.0


class Bench:
    """A relay's core, its clock, and what it answered since the last look."""

    def __init__(self, carries: bool = False) -> None:
        facts = r.RelayFacts('gate', (51348,), INTERVAL, carries, '', 51346)
        self.core, self.now, self.effects = r.RelayCore(facts), 100.0, list[Effect]()

    def tell(self, *events: Any) -> None:
        """One turn with these events."""
        for event in events:
            self.effects += self.core.handle(event, self.now)
        self.effects += self.core.end_turn(self.now)

    def join(self, program: str, *ports: int) -> None:
        """A program comes and asks."""
        self.tell(PeerConnected(program, '10.0.0.1', 'scheduler'))
        self.tell(MessageArrived(program, AskNodes(list(ports or (51348,)))))

    def wait(self, seconds: float, answering: tuple[NodeFound, ...] = ()) -> None:
        """Let time pass; these nodes answer each ping."""
        end = self.now + seconds
        while (due := self.core.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            before = len(self.effects)
            self.tell(DeadlinePassed())
            if any(isinstance(effect, Ping) for effect in self.effects[before:]):
                self.tell(*answering)
        self.now = end

    def taken(self, kind: type[Any]) -> list[Any]:
        """Take the effects of a kind, or what was sent of it with to whom."""
        found = [e for e in self.effects if isinstance(e, kind)]
        found += [
            (e.peer, e.message)
            for e in self.effects
            if isinstance(e, Send) and isinstance(e.message, kind)
        ]
        self.effects = [
            e
            for e in self.effects
            if not isinstance(e, kind) and not (isinstance(e, Send) and isinstance(e.message, kind))
        ]
        return found


def node(name: str = 'a', address: str = '10.1.0.1', port: int = 51348) -> NodeFound:
    return NodeFound(name, address, port, '/local', 51348, '', False)


def test_nobody_is_asked_for_nodes_as_long_as_no_program_asks() -> None:
    bench = Bench()
    assert bench.core.next_deadline() is None
    bench.tell(PeerConnected('p', '10.0.0.1', 'scheduler'))
    bench.wait(60)
    assert not bench.taken(Ping)
    bench.tell(MessageArrived('p', AskNodes([51348])))
    bench.wait(0)
    assert bench.taken(Ping) == [Ping([], 51348)]
    bench.tell(PeerLost('p', 'it ended'))
    bench.wait(60)
    assert not bench.taken(Ping)


def test_a_program_is_told_who_the_relay_is_and_of_all_nodes_in_one_message() -> None:
    bench = Bench()
    bench.join('p')
    assert bench.taken(RelayDetails) == [('p', RelayDetails('gate', '', 0))]
    bench.tell(node('a'), node('b', '10.1.0.2'))
    columns = (['10.1.0.1', '10.1.0.2'], [51348] * 2, [51348] * 2, [''] * 2, [False] * 2)
    assert bench.taken(NodesSeen) == [('p', NodesSeen(['a', 'b'], *columns))]
    bench.join('q')
    ((peer, seen),) = bench.taken(NodesSeen)
    assert (peer, seen.ids) == ('q', ['a', 'b'])


def test_a_node_is_told_of_once_however_often_it_answers_and_from_wherever() -> None:
    bench = Bench()
    bench.join('p')
    bench.tell(node())
    bench.tell(node(), node(address='10.1.9.9'))
    bench.wait(60, (node(), node(address='10.1.9.9')))
    ((_, seen),) = bench.taken(NodesSeen)
    assert seen.addresses == ['10.1.0.1']
    assert not bench.taken(NodesGone)


def test_addresses_that_mean_nothing_elsewhere_are_not_told() -> None:
    bench = Bench()
    bench.join('p')
    for address in ('127.0.0.1', '::1', 'fe80::1%eth0', '0.0.0.0', 'no address'):
        bench.tell(node(address, address))
    assert not bench.taken(NodesSeen)


def test_a_node_that_leaves_several_pings_unanswered_is_gone_and_comes_back() -> None:
    bench = Bench(carries=True)
    bench.join('p')
    bench.tell(node())
    bench.wait(10, (node(),))
    bench.wait((r.MISSED_PINGS - 1) * INTERVAL)
    assert not bench.taken(NodesGone)
    bench.wait(2 * INTERVAL)
    assert bench.taken(NodesGone) == [('p', NodesGone(['a']))]
    assert bench.taken(CloseWay) == [CloseWay('a')]
    bench.taken(NodesSeen)
    bench.tell(node())
    assert [peer for peer, _ in bench.taken(NodesSeen)] == ['p']


def test_a_relay_that_was_stopped_for_an_hour_loses_no_node_by_that() -> None:
    bench = Bench()
    bench.join('p')
    bench.tell(node())
    bench.wait(10, (node(),))
    bench.now += 100  # stopped: no ping was sent, and a deadline is late
    bench.tell(DeadlinePassed())
    bench.tell(node())
    assert not bench.taken(NodesGone)


def test_a_node_that_was_started_anew_in_the_place_of_another_replaces_it() -> None:
    bench = Bench()
    bench.join('p')
    bench.tell(node('old'))
    bench.taken(NodesSeen)
    bench.tell(node('new'))
    assert bench.taken(NodesGone) == [('p', NodesGone(['old']))]
    ((_, seen),) = bench.taken(NodesSeen)
    assert seen.ids == ['new']


def test_nodes_are_asked_at_the_ports_of_all_programs_and_at_no_more_than_are_allowed() -> None:
    bench = Bench()
    bench.join('p', 60000)
    bench.join('q', *range(1, 100), 0, -1, 70000)
    bench.wait(r.LEAST_PING_PAUSE)
    ports = {ping.broadcast_port for ping in bench.taken(Ping)}
    assert {51348, 60000} <= ports <= set(range(1, 65536))
    assert len(ports) == r.MOST_PORTS


def test_programs_that_ask_again_and_again_do_not_make_the_network_busy() -> None:
    bench = Bench()
    bench.join('p')
    bench.wait(30)
    bench.taken(Ping)
    for number in range(100):
        bench.now += 0.01
        bench.tell(MessageArrived('p', AskNodes([51348, 52000 + number % 2])))
        bench.tell(DeadlinePassed())
    assert len(bench.taken(Ping)) <= 3 * 7  # once in 0.2 s, at three ports


def test_a_program_that_says_nothing_for_long_is_told_no_more() -> None:
    bench = Bench(carries=True)
    bench.join('p')
    bench.wait(r.LEASE - 1)
    bench.tell(MessageArrived('p', AskNodes([51348])))
    bench.wait(r.LEASE - 1)
    assert not bench.taken(Disconnect)
    bench.wait(2)
    assert bench.taken(Disconnect) == [Disconnect('p')]
    assert bench.taken(DismissProgram) == [DismissProgram('p')]
    assert bench.core.next_deadline() is None


def test_connections_are_carried_for_programs_that_are_connected_to_nodes_that_answer() -> None:
    bench = Bench(carries=True)
    bench.join('p')
    assert bench.taken(RelayDetails) == [('p', RelayDetails('gate', '', 51346))]
    assert bench.taken(AdmitProgram) == [AdmitProgram('p')]
    bench.tell(node())
    assert bench.taken(OpenWay) == [OpenWay('a', '10.1.0.1', 51348)]
    bench.tell(PeerLost('p', 'it ended'))
    assert bench.taken(DismissProgram) == [DismissProgram('p')]


def test_a_relay_ends_at_once_or_after_the_connections_that_it_carries() -> None:
    bench = Bench(carries=True)
    bench.tell(StopAsked(False, 'why'))
    assert bench.taken(Stop) == [Stop('why')]
    bench = Bench(carries=True)
    bench.tell(CarriedChanged(2))
    bench.tell(StopAsked(False, 'why'))
    bench.tell(CarriedChanged(1))
    assert not bench.taken(Stop)
    assert 'ends once no connection is carried: why' in bench.core.status()
    bench.tell(CarriedChanged(0))
    assert bench.taken(Stop) == [Stop('why')]
    bench.tell(CarriedChanged(1))
    bench.tell(StopAsked(True, 'now'))
    assert bench.taken(Stop) == [Stop('now')]


def test_programs_nodes_and_lines_are_limited() -> None:
    bench = Bench()
    for number in range(r.MOST_PROGRAMS + 1):
        bench.tell(PeerConnected(f'p{number}', '10.0.0.1', 'scheduler'))
    assert bench.taken(Disconnect) == [Disconnect(f'p{r.MOST_PROGRAMS}')]
    bench.taken(Report)
    many = [node(f'{n}', f'10.{n >> 16}.{n >> 8 & 255}.{n & 255}') for n in range(r.MOST_NODES + 9)]
    bench.tell(*many)
    words = [report.text for report in bench.taken(Report)]
    assert len(words) == 2
    assert all(len(text) < 300 for text in words)
    assert f'{r.MOST_NODES} nodes known' in bench.core.status()[0]


def test_what_is_no_business_of_a_relay_is_not_listened_to() -> None:
    bench = Bench()
    bench.tell(RelayFound('other', '10.0.0.3', 51346))
    bench.tell(MessageArrived('stranger', AskNodes([51348])))
    bench.tell(PeerConnected('p', '10.0.0.1', 'scheduler'))
    bench.tell(MessageArrived('p', NodesGone(['a'])))
    assert not bench.taken(Ping)
    assert not bench.taken(NodesSeen)


def test_the_status_names_nodes_programs_and_what_is_carried() -> None:
    bench = Bench(carries=True)
    bench.join('p')
    bench.tell(node(), CarriedChanged(3))
    assert bench.core.status() == [
        'gate: 1 node known',
        '  10.1.0.1 port 51348',
        '1 program told of them',
        '  10.0.0.1',
        '3 connections carried',
    ]
