"""A wire that is cut is told from a program that reads nothing."""

import socket
import time
from contextlib import ExitStack

import pytest

from nodeserver.io.wirewatch import CAN_TELL, is_cut
from tests.support.netns import Host, Lan
from tests.support.programs import eventually

pytestmark = [pytest.mark.netns, pytest.mark.skipif(not CAN_TELL, reason='only Linux can tell')]


def _connected(stack: ExitStack, here: Host, there: Host) -> tuple[socket.socket, socket.socket]:
    listening = stack.enter_context(there.call(socket.create_server, (str(there.ip), 7000)))
    ours = stack.enter_context(here.call(socket.create_connection, (str(there.ip), 7000)))
    theirs = stack.enter_context(listening.accept()[0])
    ours.setblocking(False)
    return ours, theirs


def _fill(sock: socket.socket) -> None:
    try:
        while True:
            sock.send(bytes(65536))
    except BlockingIOError:
        return


def test_who_reads_nothing_is_there_and_who_confirms_nothing_is_not() -> None:
    with Lan(2) as lan, ExitStack() as stack:
        here, there = lan
        ours, _ = _connected(stack, here, there)
        _fill(ours)
        for _ in range(20):  # a second in which the other system says that it has no room
            assert not is_cut(ours, 0.7)
            time.sleep(0.05)
        there.cut()
        eventually(lambda: is_cut(ours, 0.7), 10)
        assert not is_cut(ours, 60)


def test_an_idle_connection_is_not_cut() -> None:
    with Lan(2) as lan, ExitStack() as stack:
        here, there = lan
        ours, _ = _connected(stack, here, there)
        ours.send(b'a word')
        time.sleep(0.3)  # nothing is waited for, however long it is quiet
        assert not is_cut(ours, 0.1)
