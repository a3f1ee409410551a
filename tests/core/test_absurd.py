"""Well-formed messages that make no sense, from a peer with the key: a node stays what it is."""

import dataclasses
from typing import Any, get_args, get_origin, get_type_hints

from hypothesis import given
from hypothesis import strategies as st

from nodeserver.core.events import DeadlinePassed, MessageArrived, PeerConnected, PeerLost
from nodeserver.core.messages import Message
from tests.core.test_node import Bench

numbers = st.one_of(st.integers(0, 3), st.just(7), st.integers(-(1 << 63), (1 << 64) - 1))
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    int: numbers,
    float: st.floats(),
    bool: st.booleans(),
    str: st.sampled_from(('', 'job', 'worker', '3.11', 's', '../x')),
    bytes: st.sampled_from((b'', b'x')),
}


@st.composite
def messages(draw: st.DrawFn) -> Any:
    """Any message that the codec would let through: its columns are of one length."""
    return draw(_built(draw(st.sampled_from(get_args(Message))), draw(st.integers(0, 3))))


def _built(kind: Any, count: int) -> st.SearchStrategy[Any]:
    hints = get_type_hints(kind).items()
    return st.builds(kind, **{name: _values(hint, count) for name, hint in hints})


def _values(hint: Any, count: int) -> st.SearchStrategy[Any]:
    args = get_args(hint)
    if get_origin(hint) is list:
        return st.lists(_values(args[0], count), min_size=count, max_size=count)
    if get_origin(hint) is dict:
        return st.dictionaries(*(_values(arg, count) for arg in args), max_size=count)
    if get_origin(hint) is tuple:
        return st.tuples(*(_values(arg, count) for arg in args))
    if dataclasses.is_dataclass(hint):
        return _built(hint, count)
    return PLAIN[hint] if hint in PLAIN else st.none()


@given(st.lists(st.tuples(st.sampled_from('stx'), messages()), max_size=12))
def test_no_message_upsets_a_node(those: list[tuple[str, Any]]) -> None:
    bench = Bench()
    bench.open()
    bench.run(1, 2, 3)
    bench.tell(PeerConnected('t', ''))
    for peer, message in those:
        bench.now += 1
        bench.tell(MessageArrived(peer, message))
        bench.tell(DeadlinePassed())
    bench.tell(PeerLost('t', 'it left'))
    bench.core.next_deadline()
