"""What was measured, as plain values: judgements are made from these alone."""

from dataclasses import dataclass, field

from nodeserver.core.diagnosis import Diagnosis, Reach


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be examined."""

    targets: tuple[tuple[str, int], ...] = ()
    port: int = 51347
    node_port: int = 51348
    timeout: float = 1.5


@dataclass(frozen=True, slots=True)
class Versions:
    """What runs here."""

    package: str
    python: str
    missing: tuple[str, ...]  # packages
    has_curve: bool


@dataclass(frozen=True, slots=True)
class OwnName:
    """This machine's name and its addresses; `addresses` is empty where nobody knows it."""

    name: str
    addresses: tuple[str, ...]
    own: frozenset[str]  # all addresses of this machine


@dataclass(frozen=True, slots=True)
class Networks:
    """The interfaces that are up, loopback apart: name, address, broadcast address or ''."""

    rows: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class KeyState:
    """Whom this machine trusts: what kind of secret there is, or why none can be used."""

    kind: str  # 'own', 'none yet', 'passphrase', 'insecure', 'unusable'
    path: str = ''
    error: str = ''


@dataclass(frozen=True, slots=True)
class CertificateState:
    """The certificate that this side was given, if any: can it be used?"""

    kind: str = ''  # 'usable', 'unusable'; '' where none was given
    found: str = ''  # which one it is, or why it cannot be used
    warnings: tuple[str, ...] = ()  # it ends soon, others can read its key


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory that is written to; sizes in bytes, `files_free` -1 where there is no limit."""

    purpose: str
    path: str
    error: str = ''  # it cannot be used at all
    free: int = 0
    files_free: int = -1


@dataclass(frozen=True, slots=True)
class Owner:
    """Who has a port; `words` say so to people."""

    is_ours: bool  # a dispynode, or a program that may be one of ours
    is_node: bool
    words: str
    is_doctor: bool = False  # who is there for some seconds only


@dataclass(frozen=True, slots=True)
class Port:
    """A port of this machine; free if there is no owner."""

    number: int
    kind: str  # 'TCP', 'UDP'
    owner: Owner | None


@dataclass(frozen=True, slots=True)
class Dropped:
    """What a packet filter does to a port: which rule drops it ('': none), or '?' if unclear."""

    number: int
    kind: str
    rule: str


@dataclass(frozen=True, slots=True)
class Filters:
    """What this machine's packet filter says; `source` '' where it cannot be read."""

    source: str
    ports: tuple[Dropped, ...] = ()


@dataclass(frozen=True, slots=True)
class Echo:
    """A ping sent by broadcast from one of our addresses: did this machine hear it itself?"""

    interface: str
    address: str
    came_back: bool


@dataclass(frozen=True, slots=True)
class UdpAnswer:
    """What became of pings to a node."""

    reach: Reach
    port: int = 0  # TCP, of the node that answered; 0 if none did
    is_tls: bool = False
    clock: float = 0.0  # of the node, minus ours; 0.0 where it tells none
    other_key: bool = False
    node: str = ''  # its id
    is_relay: bool = False
    ext_host: str = ''  # where the node asks to be called


@dataclass(frozen=True, slots=True)
class TcpAnswer:
    """What became of a connection, and whether a program with ZeroMQ is there.

    `mechanism` is how that has its peers prove themselves: 'CURVE' by a key, 'NULL' not at all.
    """

    reach: Reach
    port: int
    words: bytes = b''
    is_zeromq: bool = False
    mechanism: str = ''
    is_tls: bool = False  # it was asked, and answered so


@dataclass(frozen=True, slots=True)
class OtherAddress:
    """The other address at which a node asks to be called, and whether it answers us there."""

    host: str
    addresses: tuple[str, ...] = ()
    answers: bool = False


@dataclass(frozen=True, slots=True)
class RelayTold:
    """What a relay says of itself: whether it carries connections, and which nodes it knows."""

    name: str
    carries: bool
    nodes: tuple[tuple[str, int], ...] = ()  # addresses, and the UDP ports that answered
    ext_place: tuple[str, int] = ('', 0)  # where it says that it carries, if elsewhere
    ext_reach: Reach = Reach.UNTRIED


@dataclass(frozen=True, slots=True)
class LinkAnswer:
    """What became of the greeting: connected, refused with a reason, or nothing in time."""

    connected: bool = False
    refusal: str = ''
    diagnosis: Diagnosis | None = None
    clock: float = 0.0  # of the node, minus ours
    token_came: bool | None = None  # None: it was not listened for
    relay: RelayTold | None = None  # where it is no node


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """All that was found out about one node, or one place where a node should be."""

    host: str  # as it was named, or its address
    address: str
    port: int  # that was asked
    was_named: bool
    udp: UdpAnswer
    tcp: TcpAnswer
    link: LinkAnswer | None = None  # None: there was nothing to greet
    neighbour: bool | None = None  # whether its network card answers; None: nobody can tell
    key: KeyState = field(default_factory=lambda: KeyState('own'))
    own: frozenset[str] = frozenset()  # addresses of this machine
    ours: Versions | None = None
    client_port: int = 51347
    certificate: CertificateState = field(default_factory=CertificateState)
    other_address: OtherAddress | None = None  # the node asks for none
    node_port: int = 51348  # where none is named

    @property
    def where(self) -> str:
        """The place as people know it."""
        place = f'[{self.address}]' if ':' in self.address else self.address
        place = f'{place} port {self.port}'
        return place if self.host == self.address else f'{self.host} ({place})'
