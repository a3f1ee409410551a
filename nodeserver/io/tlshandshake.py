"""The beginning of a TLS connection: handshake and proof of the secret, on sockets that never wait.

Who fails either is a `PeerRefused` in words; what the network does is an `OSError`.
"""

import asyncio
import contextlib
import hashlib
import secrets
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

from nodeserver.core.errors import PeerRefused
from nodeserver.io.certificate import Pair, TlsIdentity
from nodeserver.wire import proof

_TLS_RECORD: Final = b'\x16'
_ZMTP: Final = b'\xff'
_EXPIRED, _NOT_YET, _PURPOSE = 10, 9, 26  # OpenSSL's X509_V_ERR_...
_OTHER_CERTIFICATE = 'it has another certificate'
_NO_SSL = (
    'it does not use SSL, and this side was given a certificate: give both the same '
    '(--certfile, certfile=), or none'
)
_REASONS = {
    'PEER_DID_NOT_RETURN_A_CERTIFICATE': 'it has no certificate',
    'UNSUPPORTED_PROTOCOL': 'it speaks an older version than TLS 1.3',
    'WRONG_VERSION_NUMBER': _NO_SSL,
    'RECORD_LAYER_FAILURE': _NO_SSL,
    'UNEXPECTED_MESSAGE': _NO_SSL,
    'HTTP_REQUEST': _NO_SSL,
}
_ALERTS = {
    'CERTIFICATE_EXPIRED': 'it finds that our certificate has expired',
    'CERTIFICATE_REQUIRED': 'it asks for a certificate',
    'PROTOCOL_VERSION': 'it speaks an older version than TLS 1.3',
}

Result = TypeVar('Result')


class TlsStream:
    """A TLS socket whose operations wait without holding up the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: ssl.SSLSocket) -> None:
        self._loop, self.sock = loop, sock

    async def handshake(self) -> None:
        """Agree on keys, and see each other's certificate."""
        await self._do(self.sock.do_handshake)

    async def write(self, data: bytes) -> None:
        """Send a message that fits into one record."""
        await self._do(lambda: self.sock.send(data))

    async def read(self, size: int) -> bytes:
        """Receive so many bytes."""
        data = b''
        while left := size - len(data):
            more = await self._do(partial(self.sock.recv, left))
            if not more:
                raise ConnectionResetError('the connection was closed while it was made')
            data += more
        return data

    def connection(self, ours: bytes) -> proof.Connection:
        """What proofs are bound to; TLS 1.3 has each side's first message end in it."""
        channel = self.sock.get_channel_binding('tls-unique')
        certificate = self.sock.getpeercert(binary_form=True)
        if not channel or not certificate:
            raise PeerRefused('it has no certificate')
        theirs = hashlib.sha256(certificate).digest()
        server, client = (ours, theirs) if self.sock.server_side else (theirs, ours)
        return proof.Connection(channel, server, client)

    async def _do(self, operation: Callable[[], Result]) -> Result:
        while True:
            try:
                return operation()
            except ssl.SSLWantReadError:
                await ready(self._loop.add_reader, self._loop.remove_reader, self.sock)
            except ssl.SSLWantWriteError:
                await ready(self._loop.add_writer, self._loop.remove_writer, self.sock)


async def ready(watch: Any, unwatch: Any, sock: socket.socket) -> None:
    """Wait until a socket can be read, or written."""
    future = asyncio.get_running_loop().create_future()

    def tell() -> None:
        if not future.done():
            future.set_result(None)

    watch(sock, tell)
    try:
        await future
    finally:
        unwatch(sock)


async def admit(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, identity: TlsIdentity
) -> ssl.SSLSocket:
    """Have the one who connected prove itself; the socket is closed if it does not."""
    try:
        await _see_beginning(loop, sock)
    except BaseException:
        sock.close()
        raise
    pair = identity.certificate.pair()
    stream = _wrap(loop, sock, pair.as_server, is_server=True)
    try:
        await _shake_hands(stream)
        await _prove_as_server(stream, identity.proof_key, pair)
    except BaseException:
        stream.sock.close()
        raise
    return stream.sock


async def introduce(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, identity: TlsIdentity
) -> ssl.SSLSocket:
    """Prove ourselves to the one we have connected to; the socket is closed if that fails."""
    pair = identity.certificate.pair()
    stream = _wrap(loop, sock, pair.as_client, is_server=False)
    try:
        await _shake_hands(stream)
        await _prove_as_client(stream, identity.proof_key, pair)
    except BaseException:
        stream.sock.close()
        raise
    return stream.sock


async def hear_first(loop: asyncio.AbstractEventLoop, sock: socket.socket, seconds: float) -> None:
    """Tell a program that does not use SSL by what it says unasked: an SSL server says nothing.

    The socket is closed if it is one.
    """
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await ready(loop.add_reader, loop.remove_reader, sock)
            if sock.recv(1, socket.MSG_PEEK) == _ZMTP:
                raise PeerRefused(_NO_SSL)
    except BaseException:
        sock.close()
        raise


def _wrap(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, context: ssl.SSLContext, is_server: bool
) -> TlsStream:
    wrapped = context.wrap_socket(
        sock, server_side=is_server, do_handshake_on_connect=False, suppress_ragged_eofs=False
    )
    return TlsStream(loop, wrapped)


async def _see_beginning(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    """Tell a program that does not use SSL by its first byte: OpenSSL would have odd words."""
    await ready(loop.add_reader, loop.remove_reader, sock)
    first = sock.recv(1, socket.MSG_PEEK)
    if not first:
        raise ConnectionResetError('the connection was closed while it was made')
    if first == _ZMTP:
        raise PeerRefused(_NO_SSL)
    if first != _TLS_RECORD:
        raise PeerRefused('it is another program: it does not speak SSL')


async def _shake_hands(stream: TlsStream) -> None:
    try:
        await stream.handshake()
    except ssl.SSLError as error:
        raise _judged(error) from error


async def _prove_as_server(stream: TlsStream, key: bytes, pair: Pair) -> None:
    ours = proof.ServerProof(
        key, secrets.token_bytes(proof.NONCE_SIZE), stream.connection(pair.fingerprint)
    )
    try:
        await stream.write(ours.answer(await stream.read(proof.HELLO_SIZE)))
        verdict, is_good = ours.verdict(await stream.read(proof.PROOF_SIZE))
        await stream.write(verdict)
    except ssl.SSLError as error:
        raise _judged(error) from error
    if not is_good:
        raise PeerRefused(proof.OTHER_SECRET)


async def _prove_as_client(stream: TlsStream, key: bytes, pair: Pair) -> None:
    ours = proof.ClientProof(
        key, secrets.token_bytes(proof.NONCE_SIZE), stream.connection(pair.fingerprint)
    )
    try:
        await stream.write(ours.hello())
        # the handshake of TLS 1.3 ends here before the server has judged our certificate
        proven, is_good = ours.prove(await stream.read(proof.ANSWER_SIZE))
        await stream.write(proven)
        is_good = is_good and proof.is_accepted(await stream.read(proof.VERDICT_SIZE))
    except ssl.SSLError as error:
        raise _judged(error) from error
    if not is_good:
        raise PeerRefused(proof.OTHER_SECRET)


def _judged(error: ssl.SSLError) -> PeerRefused | OSError:
    """Say in words what OpenSSL objects to; an end of the connection is the network's doing."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return PeerRefused(_words_of_verdict(error))
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError):
        return ConnectionResetError('the connection was closed while it was made')
    reason = error.reason or ''
    if reason in _REASONS:
        return PeerRefused(_REASONS[reason])
    if 'ALERT' in reason:
        for part, words in _ALERTS.items():
            if reason.endswith(part):
                return PeerRefused(words)
        return PeerRefused('it has another certificate, and does not accept ours')
    return PeerRefused(f'no SSL connection can be made with it ({reason or error})')


def _words_of_verdict(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == _EXPIRED:
        return 'its certificate has expired'
    if error.verify_code == _NOT_YET:
        return 'its certificate is not valid yet: are the clocks of both machines right?'
    if error.verify_code == _PURPOSE:
        return 'its certificate is not for this purpose: it needs serverAuth and clientAuth'
    return _OTHER_CERTIFICATE
