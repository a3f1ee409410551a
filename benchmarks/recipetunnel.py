"""A plain TLS tunnel between two ipc sockets of ZeroMQ: what our own links over TLS are held to.

    DEALER ── ipc ── TlsOut ══ TLS ══ TlsIn ── ipc ── ROUTER

asyncio protocols and transports, as one would write it who has no time to lose.
"""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

_BUFFER = 4 << 20


def tls_context(server: bool, certfile: Path) -> ssl.SSLContext:
    """Trust the one certificate in the file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certfile)
    context.load_verify_locations(certfile)
    return context


class Half(asyncio.Protocol):
    """One of the two connections that are joined."""

    def __init__(self, opened: Callable[['Half'], Any] | None = None) -> None:
        self._opened = opened
        self.transport: asyncio.Transport | None = None
        self.other: Half | None = None
        self.early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(_BUFFER)
        if self._opened is not None:
            transport.pause_reading()
            self._task = asyncio.get_running_loop().create_task(self._opened(self))

    def join(self, other: 'Half') -> None:
        """Carry what comes in here to the other one, and back."""
        self.other, other.other = other, self
        for half, target in ((self, other), (other, self)):
            for data in half.early:
                assert target.transport is not None
                target.transport.write(data)
        assert self.transport is not None
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)
        else:
            self.early.append(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


async def tls_in(host: str, path: str, certfile: Path) -> int:
    """Take TLS connections and carry them to an ipc socket; the port."""
    loop = asyncio.get_running_loop()

    async def opened(near: Half) -> None:
        _, far = await loop.create_unix_connection(Half, path)
        near.join(far)

    server = await loop.create_server(
        lambda: Half(opened), host, 0, ssl=tls_context(True, certfile)
    )
    return int(server.sockets[0].getsockname()[1])


async def tls_out(path: str, host: str, port: int, certfile: Path) -> None:
    """Take connections of an ipc socket and carry them to a TLS port."""
    loop, context = asyncio.get_running_loop(), tls_context(False, certfile)

    async def opened(near: Half) -> None:
        _, far = await loop.create_connection(Half, host, port, ssl=context, server_hostname='')
        near.join(far)

    await loop.create_unix_server(lambda: Half(opened), path)
