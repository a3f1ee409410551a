"""Everything that passes an interface of a host of `tests.support.netns`."""

import socket
import struct
from types import TracebackType
from typing import NamedTuple, Self

from tests.support.netns import Host

_ALL = 3  # ETH_P_ALL
_BUFFER = 64 << 20
_LARGEST_FRAME = 1 << 17
_FORCED_RECEIVE_BUFFER = 33  # SO_RCVBUFFORCE


class Datagram(NamedTuple):
    """One UDP packet, over IPv4 or IPv6."""

    source: str
    source_port: int
    target: str
    target_port: int
    data: bytes


class Capture:
    """Sees all frames of one interface, in both directions, before any filter drops them."""

    def __init__(self, host: Host, ifname: str = 'eth0') -> None:
        self._frames: list[bytes] = []
        self._socket = host.call(_listening, ifname)

    def frames(self) -> list[bytes]:
        """Answer what was seen so far."""
        while True:
            try:
                self._frames.append(self._socket.recv(_LARGEST_FRAME))
            except BlockingIOError:
                return self._frames

    def datagrams(self, target_port: int = 0) -> list[Datagram]:
        """Answer the UDP packets seen so far, all or those to one port."""
        found = [datagram for frame in self.frames() if (datagram := _datagram(frame))]
        return [d for d in found if target_port in (0, d.target_port)]

    def addresses(self) -> set[tuple[str, str]]:
        """Answer the pairs of source and target of all IPv4 packets seen so far."""
        packets = [frame[14:] for frame in self.frames() if frame[12:14] == b'\x08\x00']
        return {(_address(packet[12:16]), _address(packet[16:20])) for packet in packets}

    def close(self) -> None:
        """Look no more."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _listening(ifname: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
    sock.setsockopt(socket.SOL_SOCKET, _FORCED_RECEIVE_BUFFER, _BUFFER)
    sock.bind((ifname, 0))
    sock.setblocking(False)
    return sock


def _datagram(frame: bytes) -> Datagram | None:
    packet = frame[14:]
    if frame[12:14] == b'\x86\xdd' and packet[6] == socket.IPPROTO_UDP:
        source_port, target_port, length = struct.unpack_from('!HHH', packet, 40)
        source, target = (socket.inet_ntop(socket.AF_INET6, packet[at : at + 16]) for at in (8, 24))
        return Datagram(source, source_port, target, target_port, packet[48 : 40 + length])
    if frame[12:14] != b'\x08\x00' or frame[23] != socket.IPPROTO_UDP:
        return None
    start = (packet[0] & 0x0F) * 4
    source_port, target_port, length = struct.unpack_from('!HHH', packet, start)
    source, target = _address(packet[12:16]), _address(packet[16:20])
    return Datagram(source, source_port, target, target_port, packet[start + 8 : start + length])


def _address(packed: bytes) -> str:
    return socket.inet_ntoa(packed)
