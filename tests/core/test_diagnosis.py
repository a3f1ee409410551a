"""A node's core and doctors: they are answered, and nothing else changes."""

from nodeserver.core import effects as do
from nodeserver.core import messages as m
from nodeserver.core.events import MessageArrived, PeerConnected, PeerLost
from tests.support.nodebench import Bench

ASK = m.AskDiagnosis(51347, 51347, b'token')


def test_a_doctor_is_answered_while_another_program_holds_the_node() -> None:
    bench = Bench(cpus=1)
    bench.open(workers=1)
    bench.run(1)
    bench.tell(PeerConnected('doctor', '10.0.0.9'))
    bench.take(m.NodeDetails)
    bench.tell(MessageArrived('doctor', ASK))
    (asked,) = bench.take(do.Diagnose)
    assert (asked.peer, asked.address, asked.ask) == ('doctor', '10.0.0.9', ASK)
    assert any(line.startswith('held by ') for line in asked.standing)
    bench.tell(PeerLost('doctor', 'it ended'))
    assert not bench.take(do.Report)
    bench.reported(1, 1)
    (done,) = bench.take(m.JobsDone)
    assert done.ids == [1]


def test_who_is_not_connected_is_not_answered() -> None:
    bench = Bench(cpus=1)
    bench.tell(MessageArrived('nobody', ASK))
    assert not bench.take(do.Diagnose)
