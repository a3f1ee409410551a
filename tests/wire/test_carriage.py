"""The first bytes of a connection that a relay carries."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeserver.wire import carriage as c
from tests.contract.ends import make_keys

PROGRAM, NODE = os.urandom(16).hex(), os.urandom(16).hex()
NONCE, CHALLENGE = os.urandom(16), os.urandom(16)
KEY = c.carriage_key(make_keys())
HELLO = c.Hello(PROGRAM, NONCE)


def test_a_request_that_was_made_for_a_challenge_is_proven() -> None:
    data = c.write_hello(PROGRAM, NONCE)
    assert data[0] != c.ZMTP_FIRST
    assert c.read_hello(data) == HELLO
    data = c.write_request(HELLO, CHALLENGE, NODE, KEY)
    assert len(data) == c.REQUEST_SIZE
    request = c.read_request(data)
    assert request.node == NODE
    assert c.is_proven(HELLO, CHALLENGE, request, KEY)


@pytest.mark.parametrize('changed', ['program', 'nonce', 'challenge', 'node', 'key', 'proof'])
def test_a_proof_is_good_for_nothing_else(changed: str) -> None:
    request = c.read_request(c.write_request(HELLO, CHALLENGE, NODE, KEY))
    hello, challenge, key = HELLO, CHALLENGE, KEY
    other = os.urandom(16)
    match changed:
        case 'program':
            hello = c.Hello(other.hex(), NONCE)
        case 'nonce':
            hello = c.Hello(PROGRAM, other)
        case 'challenge':  # as in a recording that is played again
            challenge = other
        case 'node':
            request = c.Request(other.hex(), request.proof)
        case 'key':
            key = c.carriage_key(make_keys())
        case 'proof':
            request = c.Request(NODE, bytes(32))
    assert not c.is_proven(hello, challenge, request, key)


def test_the_key_of_the_proof_is_none_of_the_link() -> None:
    keys = make_keys()
    assert c.carriage_key(keys) not in (keys.server_secret, keys.client_secret)
    assert len({c.carriage_key(keys), c.carriage_key(make_keys()), c.carriage_key(None)}) == 3


@given(st.binary(max_size=64))
def test_nothing_else_is_taken_for_a_hello(data: bytes) -> None:
    hello = c.read_hello(data)
    assert hello is None or c.write_hello(hello.program, hello.nonce) == data
