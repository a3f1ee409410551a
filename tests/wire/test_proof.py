"""Both sides of a TLS connection prove the secret; nothing that is said is of use elsewhere."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeserver.core.errors import PeerRefused
from nodeserver.wire.proof import (
    ANSWER_SIZE,
    HELLO_SIZE,
    PROOF_SIZE,
    VERDICT_SIZE,
    ClientProof,
    Connection,
    ServerProof,
    is_accepted,
)

KEY, OTHER = bytes(32), b'o' * 32
HERE = Connection(b'channel', b's' * 32, b'c' * 32)


def client(
    key: bytes = KEY, connection: Connection = HERE, nonce: bytes = b'1' * 32
) -> ClientProof:
    return ClientProof(key, nonce, connection)


def server(
    key: bytes = KEY, connection: Connection = HERE, nonce: bytes = b'2' * 32
) -> ServerProof:
    return ServerProof(key, nonce, connection)


def test_who_know_the_same_secret_accept_each_other() -> None:
    a, b = client(), server()
    hello = a.hello()
    answer = b.answer(hello)
    proof, knows = a.prove(answer)
    verdict, accepts = b.verdict(proof)
    assert knows
    assert accepts
    assert is_accepted(verdict)
    sizes = [len(message) for message in (hello, answer, proof, verdict)]
    assert sizes == [HELLO_SIZE, ANSWER_SIZE, PROOF_SIZE, VERDICT_SIZE]


ELSEWHERE = [
    Connection(b'another', HERE.server, HERE.client),
    Connection(HERE.channel, b'x' * 32, HERE.client),
    Connection(HERE.channel, HERE.server, b'x' * 32),
]


@pytest.mark.parametrize(
    'other',
    [lambda: server(OTHER), *(lambda place=place: server(connection=place) for place in ELSEWHERE)],
)
def test_another_secret_or_connection_is_seen_by_both(other: Callable[[], ServerProof]) -> None:
    a, b = client(), other()
    proof, knows = a.prove(b.answer(a.hello()))
    assert not knows
    assert not any(proof)  # nothing that a guess could be checked with
    verdict, accepts = b.verdict(proof)
    assert not accepts
    assert not is_accepted(verdict)


def test_neither_a_recording_nor_a_mirror_is_believed() -> None:
    a, b = client(), server()
    answer = b.answer(a.hello())
    proof, _ = a.prove(answer)
    later = server(nonce=b'3' * 32)
    later.answer(a.hello())
    assert not later.verdict(proof)[1]
    assert not client(nonce=b'4' * 32).prove(answer)[1]
    mirrored = server()
    mine = mirrored.answer(a.hello())
    assert not mirrored.verdict(b'\x01' + mine[-32:])[1]


@given(st.binary(max_size=100))
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(PeerRefused):
        server().answer(data)
    with pytest.raises(PeerRefused):
        client().prove(data)
    b = server()
    b.answer(client().hello())
    assert not b.verdict(data)[1]
    assert not is_accepted(b'\x01' + data) or not data
