"""Links over TLS: who is let in, who is refused and in which words, and what breaks."""

import asyncio
import errno
import logging
import os
import socket
import ssl
import struct
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nodeserver.core.messages import Farewell, SubmitJobs
from nodeserver.io import tlsthread
from nodeserver.io.certificate import Certificate, TlsIdentity
from nodeserver.io.linkoptions import LinkOptions
from nodeserver.io.tlshandshake import introduce
from tests.contract.ends import (
    HOST,
    QUICK,
    Made,
    Proxy,
    ZmqEnd,
    make_keys,
    our_keys,
    pass_time,
    until,
    works,
)
from tests.support.certificates import needs_openssl, our_identity, self_signed, signed_by_ca
from tests.support.scarcity import busy_seconds, descriptors_below

Loop = asyncio.AbstractEventLoop

pytestmark = needs_openssl

TLS = replace(QUICK, tls=our_identity())
OTHER_SECRET = replace(QUICK, tls=TlsIdentity(our_identity().certificate, b'x' * 32))


def with_pair(path: Path) -> LinkOptions:
    return replace(QUICK, tls=TlsIdentity(Certificate(str(path)), bytes(32)))


def connected(loop: Loop, made: Made, ours: LinkOptions, theirs: LinkOptions) -> ZmqEnd:
    a, b = made(None, ours), made.listening(None, theirs)
    a.zmq.connect(b.name, HOST, b.port)
    a.send(b, Farewell('secret'))
    until(loop, lambda: b.messages or (a.refused() and not a.connected()), limit=5)
    a.other = b  # type: ignore[attr-defined]
    return a


def test_a_pair_that_a_ca_has_signed_works_without_its_ca(
    loop: Loop, made: Made, tmp_path: Path
) -> None:
    (pair,) = signed_by_ca(tmp_path, 'cluster')
    a = connected(loop, made, with_pair(pair), with_pair(pair))
    works(loop, a, a.other)  # type: ignore[attr-defined]


def test_another_pair_of_the_same_ca_is_refused_also_where_the_file_holds_the_ca(
    loop: Loop, made: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = signed_by_ca(tmp_path, 'one', 'two')
    theirs.write_text(theirs.read_text() + (tmp_path / 'ca.pem').read_text())
    a = connected(loop, made, with_pair(ours), with_pair(theirs))
    assert [event.reason for event in a.refused()] == ['it has another certificate']
    until(
        loop, lambda: 'it has another certificate, and does not accept ours' in caplog.text, limit=2
    )
    assert a.other.events == []  # type: ignore[attr-defined]


def test_the_certificate_without_its_key_is_refused(loop: Loop, made: Made, tmp_path: Path) -> None:
    b = made.listening(None, TLS)
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname = False
    stranger.load_verify_locations(cadata=_certificate_of(loop, b))
    with socket.create_connection((HOST, b.port)) as sock, stranger.wrap_socket(sock) as tls:
        words = _ended(loop, tls)
    assert 'CERTIFICATE_REQUIRED' in words
    assert b.events == []


def _certificate_of(loop: Loop, end: ZmqEnd) -> str:
    return ssl.get_server_certificate((HOST, end.port))


def _ended(loop: Loop, tls: ssl.SSLSocket) -> str:
    tls.settimeout(5)
    try:
        data = tls.recv(1)
    except OSError as error:
        return str(error).upper().replace(' ', '_')
    assert not data
    return ''


@pytest.mark.parametrize(
    'case',
    [
        (TLS, OTHER_SECRET, (None, None), 'it has the same certificate and another secret'),
        (TLS, QUICK, (None, our_keys()), 'it does not use SSL, and this side was given a cert'),
        (TLS, QUICK, (None, None), 'it does not use SSL, and this side was given a certificate'),
        (QUICK, TLS, (our_keys(), None), 'another key, or none, or uses SSL'),
        (QUICK, TLS, (None, None), 'it asks for a key or uses SSL'),
    ],
    ids=[
        'other secret',
        'they have a key only',
        'they are insecure',
        'we have a key only',
        'we are',
    ],
)
def test_whoever_is_refused_is_told_why(
    loop: Loop, made: Made, caplog: pytest.LogCaptureFixture, case: tuple[Any, ...]
) -> None:
    ours, theirs, keys, words = case
    a, b = made(keys[0], ours), made.listening(keys[1], theirs)
    a.zmq.connect(b.name, HOST, b.port)
    a.send(b, Farewell('secret'))
    until(loop, a.refused, limit=5)
    assert words in a.refused()[0].reason
    if theirs.tls:
        until(loop, lambda: 'tried to connect' in caplog.text, limit=2)
    pass_time(loop, 0.5)
    lines = [record for record in caplog.records if 'tried to connect' in record.message]
    assert len(lines) <= 1  # once a minute
    assert all(record.levelno == logging.WARNING for record in lines)
    assert len(a.events) == 1
    assert b.events == []


def test_a_program_without_ssl_is_told_apart_though_it_closes_before_its_greeting_is_read(
    loop: Loop, made: Made
) -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        thread = threading.Thread(target=_greet_if_left_alone, args=(server,), daemon=True)
        thread.start()
        a = made(None, TLS)
        a.zmq.connect('somebody', HOST, port)
        until(loop, a.refused, limit=5)
        thread.join(5)
    assert 'it does not use SSL' in a.refused()[0].reason


def _greet_if_left_alone(server: socket.socket) -> None:
    """Do as ZeroMQ does, but slowly: close the first connections at their first bytes."""
    for _ in range(2):
        sock, _ = server.accept()
        with sock:
            sock.settimeout(0.2)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            try:
                sock.recv(1)
            except TimeoutError:
                sock.sendall(b'\xff' + bytes(9))
                with suppress(OSError):
                    sock.recv(1)


def test_only_tls_1_3_is_spoken(loop: Loop, made: Made) -> None:
    b = made.listening(None, TLS)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection((HOST, b.port), 5) as sock,
        pytest.raises(ssl.SSLError, match='PROTOCOL_VERSION'),
    ):
        old.wrap_socket(sock)


def test_the_core_is_told_the_address_of_the_far_end(loop: Loop, made: Made) -> None:
    a, b = made(None, TLS), made(None, TLS)
    port = b.zmq.listen('', 0)
    a.zmq.connect(b.name, HOST, port)
    until(loop, lambda: a.connected() and b.connected())
    assert b.connected()[0].address == HOST
    assert a.connected()[0].address == f'{HOST}:{port}'


def test_nothing_is_lost_when_connections_break(loop: Loop, made: Made) -> None:
    a, b = made(None, TLS), made.listening(None, TLS)
    proxy = Proxy(loop, b.port)
    a.zmq.connect(b.name, HOST, proxy.port)
    said = [Farewell(f'{number} {"x" * 2000}') for number in range(3000)]
    for place, message in enumerate(said):
        a.send(b, message)
        if place % 1000 == 500:
            until(loop, lambda: len(b.messages) > 100)
            proxy.cut()
    until(loop, lambda: len(b.messages) >= len(said))
    assert b.messages == said
    assert a.lost() == b.lost() == []
    proxy.close()


def test_a_peer_that_dies_is_lost_at_once(loop: Loop, made: Made) -> None:
    a, b = made(None, TLS), made.listening(None, TLS)
    a.zmq.connect(b.name, HOST, b.port)
    until(loop, a.connected)
    b.zmq._around.tls.close(0)  # type: ignore[union-attr] - its connections and its port are gone
    until(loop, a.lost, limit=2)
    assert a.lost()[0].reason == 'connection refused'
    b.zmq._tls = None
    b.zmq._listeners.clear()


def test_a_dialer_whose_connection_closes_is_lost_to_the_listener(loop: Loop, made: Made) -> None:
    a, b = made(None, TLS), made.listening(None, TLS)
    proxy = Proxy(loop, b.port)
    a.zmq.connect(b.name, HOST, proxy.port)
    until(loop, lambda: a.connected() and b.connected())
    proxy.close()
    until(loop, lambda: a.lost() and b.lost(), limit=5)


def test_a_reader_that_is_slow_holds_up_the_sender(loop: Loop, made: Made) -> None:
    a, b = made(None, TLS), made.listening(None, TLS)
    proxy = Proxy(loop, b.port)
    a.zmq.connect(b.name, HOST, proxy.port)
    until(loop, b.connected)
    proxy.hold()
    before = proxy.carried
    large = SubmitJobs(1, '', [1], [os.urandom(60_000_000)])
    a.send(b, large)
    pass_time(loop, 0.5)
    assert proxy.carried - before < 30_000_000  # credit, and what the system buffers
    proxy.let_go()
    until(loop, lambda: b.messages)
    assert b.messages == [large]
    a.close()
    b.close()
    proxy.close()


def test_connections_that_prove_nothing_are_bounded_and_ended(
    loop: Loop, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tlsthread, 'HANDSHAKE_SECONDS', 1.0)
    a, b = made(None, TLS), made.listening(None, TLS)
    idle = [socket.create_connection((HOST, b.port)) for _ in range(80)]
    try:
        many = len(idle) - tlsthread.MOST_UNPROVEN_OF_ONE  # above the limit: the oldest go
        until(loop, lambda: all(map(_is_closed, idle[:many])), limit=0.9)
        assert not _is_closed(idle[-1])
        kept = [sock for sock in idle if not _is_closed(sock)]
        assert 0 < len(kept) <= tlsthread.MOST_UNPROVEN_OF_ONE
        until(loop, lambda: all(map(_is_closed, kept)), limit=5)
    finally:
        for sock in idle:
            sock.close()
    a.zmq.connect(b.name, HOST, b.port)
    until(loop, b.connected, limit=5)


def test_silent_connections_keep_nobody_out(
    loop: Loop, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tlsthread, 'MOST_UNPROVEN', 20)
    monkeypatch.setattr(tlsthread, 'MOST_UNPROVEN_OF_ONE', 8)
    a, b = made(None, TLS), made.listening(None, TLS)
    sources = [('127.0.0.' + str(3 + number % 5), 0) for number in range(30)]
    with ExitStack() as stack:
        for source in [*sources, *[('127.0.0.1', 0)] * 20]:
            stack.enter_context(socket.create_connection((HOST, b.port), source_address=source))
        a.zmq.connect(b.name, HOST, b.port)
        until(loop, b.connected, limit=tlsthread.HANDSHAKE_SECONDS / 2)


def test_a_connection_is_tried_again_where_no_descriptor_was_left(
    loop: Loop, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = iter([OSError(errno.EMFILE, 'Too many open files')])
    real = socket.socketpair

    def socketpair(*what: Any) -> Any:
        for error in pairs:
            raise error
        return real(*what)

    a, b = made(None, TLS), made.listening(None, TLS)
    monkeypatch.setattr(socket, 'socketpair', socketpair)
    a.zmq.connect(b.name, HOST, b.port)
    until(loop, lambda: a.connected() and b.connected(), limit=5)


def test_connections_beyond_the_most_are_closed_and_the_others_go_on(
    loop: Loop, made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    with descriptors_below(70):  # the link leaves 64 alone, and needs three for each connection
        b = made.listening(None, TLS)
    first, second, late = made(None, TLS), made(None, TLS), made(None, TLS)
    for end in (first, second):
        end.zmq.connect(b.name, HOST, b.port)
    until(loop, lambda: len(b.connected()) == 2 and first.connected() and second.connected())
    for _ in range(5):
        with socket.create_connection((HOST, b.port)) as sock:
            until(loop, lambda sock=sock: _is_closed(sock), limit=5)  # type: ignore[misc]
    late.zmq.connect(b.name, HOST, b.port)
    until(loop, late.refused)
    assert told(caplog) == ['there are 2 connections: others are closed']  # once a minute
    for end in (first, second):
        works(loop, end, b)
        works(loop, b, end)
    assert b.lost() == []
    first.close()
    until(loop, late.connected)
    works(loop, late, b)


def test_a_connection_waits_while_no_descriptor_is_left_and_is_taken_afterwards(
    loop: Loop, made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = made(None, TLS), made.listening(None, TLS)
    a.zmq.connect(b.name, HOST, b.port)
    until(loop, lambda: a.connected() and b.connected())
    with socket.socket() as waiting:
        with descriptors_below(1):
            waiting.connect((HOST, b.port))
            until(loop, lambda: told(caplog), limit=5)
            before = busy_seconds('dispy-tls')
            pass_time(loop, 1.2)  # it looks again twice
            assert busy_seconds('dispy-tls') - before < 0.1
            works(loop, a, b)
        waiting.setblocking(False)
        loop.run_until_complete(_introduced(loop, waiting)).close()
    words = 'Too many open files: connections have to wait (see `ulimit -n`)'
    assert told(caplog) == [words]  # once a minute


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records]


async def _introduced(loop: Loop, sock: socket.socket) -> ssl.SSLSocket:
    """Prove ourselves at a connection that the far end takes soon."""
    assert TLS.tls is not None
    async with asyncio.timeout(5):
        return await introduce(loop, sock, TLS.tls)


def _is_closed(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return not sock.recv(1)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    'data',
    [b'GET / HTTP/1.0\r\n\r\n', b'\xff' + bytes(64), b'\x16\x03\x01', bytes(5000), b'\x05\x01'],
    ids=['http', 'ZMTP', 'half of TLS', 'zeros', 'SOCKS'],
)
def test_noise_is_told_once_and_harms_nothing(
    loop: Loop, made: Made, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    a, b = made(None, TLS), made.listening(None, TLS)
    for _ in range(5):
        with socket.create_connection((HOST, b.port)) as sock:
            sock.sendall(data)
            with suppress(OSError):  # it is closed already
                sock.shutdown(socket.SHUT_WR)
            until(loop, lambda sock=sock: _is_closed(sock), limit=5)  # type: ignore[misc]
    assert caplog.text.count('tried to connect') <= 1
    a.zmq.connect(b.name, HOST, b.port)
    until(loop, b.connected, limit=5)


def test_one_who_has_the_certificate_and_not_the_secret_cannot_stand_between(
    loop: Loop, made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    """A stand-in for an attacker who carries the proofs from one connection to another."""
    a, b = made(None, TLS), made.listening(None, TLS)
    pair = our_identity().certificate.pair()
    with socket.create_server((HOST, 0)) as listening:
        middle = threading.Thread(target=_stand_between, args=(listening, b.port, pair))
        middle.start()
        a.zmq.connect(b.name, HOST, listening.getsockname()[1])
        a.send(b, Farewell('secret'))
        until(loop, a.refused, limit=5)
        middle.join(10)
    assert 'another secret' in a.refused()[0].reason
    assert b.events == []


def _stand_between(listening: socket.socket, port: int, pair: object) -> None:
    there = socket.create_connection((HOST, port))
    here, _ = listening.accept()
    for sock in (here, there):
        sock.settimeout(5)
    with (
        pair.as_server.wrap_socket(here, server_side=True) as victim,  # type: ignore[attr-defined]
        pair.as_client.wrap_socket(there) as target,  # type: ignore[attr-defined]
    ):
        try:
            target.sendall(victim.recv(100))
            victim.sendall(target.recv(100))
            target.sendall(victim.recv(100))
            victim.sendall(target.recv(100))
        except OSError:
            return


def test_a_pair_that_was_replaced_is_used_for_new_connections(
    loop: Loop, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('nodeserver.io.certificate.LOOK_INTERVAL', 0.0)
    path = self_signed(tmp_path / 'pair.pem')
    options = with_pair(path)
    assert options.tls is not None
    first = options.tls.certificate.pair().fingerprint
    a, b = made(None, options), made.listening(None, options)
    a.zmq.connect(b.name, HOST, b.port)
    until(loop, b.connected)
    path.write_text('half of a file')
    assert options.tls.certificate.pair().fingerprint == first
    self_signed(path)
    assert options.tls.certificate.pair().fingerprint != first
    works(loop, a, b)  # what is connected stays
    late = made(None, with_pair(path))
    late.zmq.connect(b.name, HOST, b.port)
    until(loop, lambda: len(b.connected()) == 2, limit=5)


def test_closing_does_not_wait_for_a_peer_that_reads_nothing(loop: Loop, made: Made) -> None:
    a, b = made(None, TLS), made.listening(None, TLS)
    proxy = Proxy(loop, b.port)
    a.zmq.connect(b.name, HOST, proxy.port)
    until(loop, b.connected)
    proxy.hold()
    a.send(b, SubmitJobs(1, '', [1], [bytes(20_000_000)]))
    pass_time(loop, 0.2)
    begun = time.monotonic()
    a.close()
    assert time.monotonic() - begun < 3
    proxy.let_go()
    b.close()
    proxy.close()


def test_keys_and_certificates_have_nothing_to_show(loop: Loop) -> None:
    shown = repr(our_identity()) + repr(OTHER_SECRET)
    assert 'x' * 32 not in shown
    assert 'proof_key' not in shown
    assert make_keys() != our_keys()


def test_nobody_takes_the_place_of_a_peer_whose_id_it_knows(loop: Loop, made: Made) -> None:
    a, b = made(None, TLS), made.listening(None, TLS)
    a.zmq.connect(b.name, HOST, b.port)
    until(loop, lambda: a.connected() and b.connected())
    liar = made(None, TLS, a.name)
    liar.zmq.connect(b.name, HOST, b.port)
    until(loop, liar.refused, limit=5)
    assert 'a program with this id is connected already' in liar.refused()[0].reason
    works(loop, a, b)
    works(loop, b, a)
    assert b.lost() == []
