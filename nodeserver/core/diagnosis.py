"""What a doctor asks a node, and what the node says of itself and of the way back (Z07).

    doctor ── AskDiagnosis ──▶ NodeCore ── Diagnose ──▶ shell ── Diagnosis ──▶ doctor

It is asked over a link, so by somebody with the node's key only, and it changes nothing: a node
that another program holds answers as well.
"""

from enum import StrEnum
from typing import Final

from nodeserver.core.values import value

TOKEN_SIZE: Final = 16


class Reach(StrEnum):
    """What became of trying to reach a port."""

    UNTRIED = 'untried'
    OPEN = 'open'
    REFUSED = 'refused'
    SILENT = 'silent'  # no answer within the time
    UNREACHABLE = 'unreachable'  # the network says that there is no way
    PROHIBITED = 'prohibited'  # this side's own firewall does not let it out


@value
class AskDiagnosis:
    """How are you, and can you reach these ports at the address that you see me at?

    A port of 0 is not to be tried.  A datagram with `token` is sent to the UDP one; TCP is only
    connected to.  The address is not the asker's to choose, so that nobody else is disturbed.
    """

    tcp_port: int
    udp_port: int
    token: bytes


@value
class Diagnosis:
    """What a node says of itself; `tcp_back` is a `Reach`, as text."""

    version: str  # of dispy-nb
    python: str  # '3.11.2'
    platform: str
    clock: float  # seconds since the epoch
    directory: str  # where it keeps its files, and what is free there
    disk_free: int
    disk_size: int
    files_free: int  # that can still be made; -1: no limit is known
    standing: list[str]  # who holds it and what it does, in words
    address: str  # the asker's, as the node sees it; '' where it cannot tell
    tcp_back: str
    warnings: list[str]  # on the node's own key, in words
