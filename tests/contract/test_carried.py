"""What a link that a relay carries promises when the relay or the node goes."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from nodeserver.core.messages import Farewell
from nodeserver.io.linkoptions import LinkOptions
from tests.contract.carried import Relay
from tests.contract.ends import HOST, QUICK, Made, ZmqEnd, make_keys, our_keys, until, works
from tests.support.certificates import our_identity

MakeRelay = Callable[[], Relay]


@pytest.fixture
def relay(loop: asyncio.AbstractEventLoop) -> Iterator[MakeRelay]:
    """Make relays that are closed after the test."""
    with ExitStack() as stack:

        def make() -> Relay:
            made = Relay(loop, our_keys())
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture(params=['CURVE', 'TLS'])
def options(request: pytest.FixtureRequest) -> LinkOptions:
    """Answer what the two ends speak to each other: the relay need not know."""
    return QUICK if request.param == 'CURVE' else replace(QUICK, tls=our_identity())


def pair(made: Made, relay: Relay, options: LinkOptions) -> tuple[ZmqEnd, ZmqEnd]:
    """Make a program and a node, and connect them through the relay."""
    program, node = made(our_keys(), options), made.listening(our_keys(), options)
    relay.serve(program, node)
    program.zmq.connect(node.name, HOST, node.port, via=relay.name)
    until(program.loop, lambda: program.connected() and node.connected())
    return program, node


def test_a_relay_that_comes_back_costs_no_message_and_no_session(
    made: Made, relay: MakeRelay, options: LinkOptions
) -> None:
    first = relay()
    program, node = pair(made, first, options)
    works(program.loop, program, node)
    first.close()
    program.zmq.use_relay(first.name, '', 0)
    for number in range(100):
        program.send(node, Farewell(f'{number}'))
    second = relay()
    second.serve(program, node)
    program.zmq.connect(node.name, HOST, node.port, via=second.name)
    until(program.loop, lambda: len(node.messages) == 101)
    assert node.messages[1:] == [Farewell(f'{number}') for number in range(100)]
    assert len(program.connected()) == len(node.connected()) == 1
    assert not program.lost()


def test_a_node_that_ends_behind_a_relay_is_lost_in_words(
    made: Made, relay: MakeRelay, options: LinkOptions
) -> None:
    program, node = pair(made, relay(), options)
    node.close()
    until(program.loop, program.lost)
    assert program.lost()[0].peer == node.name


def test_a_node_that_is_gone_without_a_word_is_lost_by_what_the_relay_finds(
    made: Made, relay: MakeRelay, options: LinkOptions
) -> None:
    carrying = relay()
    program, node = pair(made, carrying, options)
    for listener in node.zmq._listeners:  # its process is killed: sockets close, and say nothing
        listener._shut(0)
    node.zmq._listeners.clear()
    until(program.loop, program.lost)
    reason = program.lost()[0].reason
    assert reason == f'the relay at {HOST} port {carrying.port} finds nobody listening there'


def test_who_cannot_be_carried_is_told_why_and_gets_through_once_it_can(
    made: Made, relay: MakeRelay, options: LinkOptions
) -> None:
    carrying = relay()
    program, node = made(our_keys(), options), made.listening(our_keys(), options)
    program.zmq.use_relay(carrying.name, HOST, carrying.port)
    program.zmq.connect(node.name, HOST, node.port, via=carrying.name)
    until(program.loop, program.refused)
    assert 'does not know this program' in program.refused()[0].reason
    carrying.serve(program, node)
    until(program.loop, program.connected)
    works(program.loop, program, node)


def test_a_node_with_another_key_is_none_through_a_relay_either(
    made: Made, relay: MakeRelay, options: LinkOptions
) -> None:
    carrying = relay()
    program, node = made(our_keys()), made.listening(make_keys())
    carrying.serve(program, node)
    program.zmq.connect(node.name, HOST, node.port, via=carrying.name)
    until(program.loop, program.refused)
    assert program.refused()[0].reason == 'it has another key, or none, or uses SSL'


def test_what_was_said_last_arrives_although_the_program_ends_at_once(
    made: Made, relay: MakeRelay, options: LinkOptions
) -> None:
    program, node = pair(made, relay(), options)
    program.send(node, Farewell('the last'))
    program.close()
    until(node.loop, node.lost)
    assert node.messages == [Farewell('the last')]
    assert node.lost()[0].reason == 'it ended'


def test_a_connection_that_is_closed_is_carried_no_more(
    made: Made, relay: MakeRelay, options: LinkOptions
) -> None:
    carrying = relay()
    program, node = pair(made, carrying, options)
    assert carrying.counts[-1] == 1
    program.zmq.disconnect(node.name)
    until(program.loop, lambda: carrying.counts[-1] == 0)


@pytest.mark.parametrize('host', ['a' * 300, 'a\0b', 'no such host.invalid'])
def test_a_relay_that_names_an_impossible_host_is_told_of_and_tried_again(
    host: str, made: Made, relay: MakeRelay, options: LinkOptions
) -> None:
    carrying = relay()
    program, node = made(our_keys(), options), made.listening(our_keys(), options)
    program.zmq.use_relay(carrying.name, host, 5)
    program.zmq.connect(node.name, HOST, node.port, via=carrying.name)
    until(program.loop, program.refused)
    assert 'cannot be reached' in program.refused()[0].reason
    carrying.serve(program, node)
    until(program.loop, program.connected)


@pytest.mark.slow
def test_a_name_server_that_does_not_answer_holds_up_no_end(
    made: Made, relay: MakeRelay, options: LinkOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for such a name server: the system's look-up takes as long as the test wants."""
    asked, answered, numbers = [], threading.Event(), socket.getaddrinfo

    def look(host: str, *details: Any, **more: Any) -> Any:
        if host != 'gate.example.org':
            return numbers(host, *details, **more)
        asked.append(host)
        answered.wait(15)
        raise socket.gaierror('no answer')

    monkeypatch.setattr(socket, 'getaddrinfo', look)
    carrying = relay()
    program, node = made(our_keys(), options), made.listening(our_keys(), options)
    program.zmq.use_relay(carrying.name, 'gate.example.org', 5)
    program.zmq.connect(node.name, HOST, node.port, via=carrying.name)
    try:
        until(program.loop, program.refused)  # and it is not asked again as long as it is silent
        assert asked == ['gate.example.org']
        begun = time.monotonic()
        program.close()
        assert time.monotonic() - begun < 3
    finally:
        answered.set()
