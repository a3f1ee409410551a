"""What users hold of nodes: `NodeAllocate` to choose them, `DispyNode` to look at them."""

import operator
import reprlib
import time
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Any, ClassVar

from nodeserver.core.errors import UsageError
from nodeserver.core.messages import Availability, NodeChanged
from nodeserver.core.status import NodeStatus
from nodeserver.io.netif import resolve
from nodeserver.io.udp import NODE_PORT

PIN_SECONDS = 60.0  # how long the addresses of a host name are believed
MOST_PINS = 10_000
MOST_CPUS = 1_000_000  # that anybody may speak of


class DispyNodeAvailInfo:
    """What a node has to spare; read-only.

    Attributes
    ----------
    cpu : float
        Available processor time in per cent; near 100 on an idle node (E09).
    memory : int
        Bytes that applications can use (E09).
    disk : int
        Free bytes where the node stores files (E10).
    swap : float
        Swap in use in per cent (E11).
    """

    __slots__ = ('_values',)

    def __init__(self, cpu: float, memory: int, disk: int, swap: float) -> None:
        self._values = (cpu, memory, disk, swap)

    cpu = property(lambda self: self._values[0])
    memory = property(lambda self: self._values[1])
    disk = property(lambda self: self._values[2])
    swap = property(lambda self: self._values[3])

    def __repr__(self) -> str:
        return 'DispyNodeAvailInfo(cpu={}, memory={}, disk={}, swap={})'.format(*self._values)


class NodeAllocate:
    """Which nodes to use, and how many of their cpus (E01-E07).

    Override `allocate` to decide for each node as it is found.

    Parameters
    ----------
    host : str
        Host name, IP address, or a pattern in which `*` matches part of an address.
    port : int, optional
        The node's port; 51348 by default.
    cpus : int
        Most cpus to use on each node; 0 means all that it offers, below 0: leave so many unused.
    depends : list
        Modules and paths of files to send to each node besides the cluster's; `allocate` may set
        it anew for the node it is asked for.
    setup_args : tuple
        Arguments of the cluster's `setup` on each node; `allocate` may set them likewise.

    Raises
    ------
    UsageError
        A value is of a wrong type or out of range.
    """

    def __init__(
        self,
        host: str,
        port: int | None = None,
        cpus: int = 0,
        depends: Sequence[Any] = [],
        setup_args: tuple[Any, ...] = (),
    ) -> None:
        if not isinstance(host, str) or not host.strip() or not host.isprintable():
            raise UsageError(f'host must be a host name, an address or a pattern, not {host!r}')
        is_whole = isinstance(cpus, int) and not isinstance(cpus, bool)
        if not is_whole or abs(cpus) > MOST_CPUS:
            raise UsageError(
                f'cpus must be a number: 0 for all, or how many to use, or below 0 how many to '
                f'leave unused; not {cpus!r}'
            )
        is_number = isinstance(port, int) and not isinstance(port, bool)
        if port is not None and not (is_number and 0 < port <= 65535):
            raise UsageError(f'port must be a number from 1 to 65535, not {port!r}')
        self.host = host
        self.port = port
        self.cpus = cpus
        self.depends = depends
        self.setup_args = setup_args
        self.check_extras()
        self.depends = list(depends)

    def allocate(
        self,
        cluster: Any,
        ip_addr: str,
        name: str,
        cpus: int,
        avail_info: DispyNodeAvailInfo | None = None,
        platform: str | None = None,
    ) -> int:
        """Return how many of a node's `cpus` to use; 0 leaves it unused (E04, E06, E07)."""
        if self.cpus < 0:
            return max(0, cpus + self.cpus)
        return min(cpus, self.cpus) if self.cpus else cpus

    def check_extras(self) -> None:
        """Raise `UsageError` if `depends` or `setup_args`, which `allocate` may set, is none."""
        if not isinstance(self.depends, list | tuple):
            raise UsageError(f'depends must be a list, not {self.depends!r}')
        if not isinstance(self.setup_args, tuple):
            raise UsageError(f'setup_args must be a tuple, not {self.setup_args!r}')

    @property
    def decides_itself(self) -> bool:
        """Whether it must be asked: its `allocate` is a subclass's, or it has more to give."""
        is_own = type(self).allocate is not NodeAllocate.allocate
        return is_own or bool(self.depends or self.setup_args)

    def port_or(self, node_port: int) -> int:
        """The port at which to ask for the node."""
        return self.port or node_port or NODE_PORT


class DispyNode:
    """A node as its cluster sees it; given to `cluster_status`, accepted by `submit_node`.

    Attributes
    ----------
    ip_addr, name : str
        Where it is, and what it calls itself.
    cpus : int
        Cpus that this cluster may use.
    avail_cpus : int
        Cpus that the node offers.
    memory : int
        Bytes that jobs can have there in all; 0 if the node cannot tell.
    busy : int
        Jobs of this cluster that are with it.
    jobs_done : int
        Jobs of this cluster that ended on it.
    cpu_time : float
        Seconds that it spent in jobs of this cluster.
    tx, rx : int
        Bytes of arguments that were sent to it with jobs, and of outcomes and provisional results
        that came back.  Large arguments travel apart, once, and do not count.
    avail_info : DispyNodeAvailInfo or None
        What it had to spare at `update_time` (seconds since the epoch).
    """

    Initialized: ClassVar[int] = NodeStatus.INITIALIZED
    Closed: ClassVar[int] = NodeStatus.CLOSED
    AvailInfo: ClassVar[int] = NodeStatus.AVAIL_INFO

    def __init__(self, change: NodeChanged) -> None:
        self.node_id = change.node
        self.ip_addr = change.address
        self.port = change.port
        self.busy = 0
        self.jobs_done = 0
        self.cpu_time = 0.0
        self.tx = self.rx = 0
        self.closed = False
        self.cpus = change.cpus
        self._before = (0, 0)  # cpus before they were made fewer, and `jobs_done` at that moment
        self.update(change)

    def update(self, change: NodeChanged) -> None:
        """Take in what the scheduler tells of it."""
        if change.cpus < self.cpus:
            self._before = (self.cpus, self.jobs_done)
        self.name, self.platform = change.name, change.platform
        self.cpus = change.cpus
        self.avail_cpus = change.avail_cpus
        self.memory = change.memory
        self.closed = change.status == NodeStatus.CLOSED
        self.avail_info = avail_info(change.availability)
        self.update_time = time.time()

    def _cpus_at_work(self) -> int:
        """How many cpus jobs may have: jobs that run when there are to be fewer go on."""
        cpus, jobs_done = self._before
        return max(self.cpus, cpus - (self.jobs_done - jobs_done))

    def __repr__(self) -> str:
        return f'<DispyNode {self.name} at {self.ip_addr}, {self.cpus} cpus, {self.busy} busy>'


class PinNames:
    """What the scheduler may know nodes by; a host name is looked up once in a while only.

    Looking one up can take seconds, and a user submits many jobs for the same node.
    """

    def __init__(self, seconds: float = PIN_SECONDS, most: int = MOST_PINS) -> None:
        self._seconds = seconds
        self._most = most
        self._pins: dict[str, tuple[str, float]] = {}  # name -> pin, and when it is looked up anew

    def __len__(self) -> int:
        return len(self._pins)

    def of(self, node: object, known: Iterable[DispyNode], now: float) -> str:
        """Return a node's id, else its name and its addresses; see `pin_names`."""
        if isinstance(node, DispyNode):
            return node.node_id
        node = check_node_text(node)
        if _is_address(node) or any(node in (n.name, n.ip_addr) for n in list(known)):
            return node
        pin, until = self._pins.get(node, ('', now))
        if until <= now:
            pin = _looked_up(node)
            if len(self._pins) >= self._most:
                self._pins.clear()
            self._pins[node] = (pin, now + self._seconds)
        return pin


_PINS = PinNames()


def pin_names(node: object, known: Iterable[DispyNode]) -> str:
    """Return what the scheduler may know a node by: its id, else its name and its addresses.

    Raises
    ------
    UsageError
        It is neither a `DispyNode` nor a text.
    """
    return _PINS.of(node, known, time.monotonic())


def check_node_text(node: object) -> str:
    """Return what a user called a node, if it is a text at all."""
    if not isinstance(node, str) or not node.strip():
        raise UsageError(f'node must be a DispyNode, an address or a host name, not {node!r}')
    return node


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _looked_up(host: str) -> str:
    try:
        return '\n'.join(dict.fromkeys((host, *resolve(host))))
    except UsageError:  # it may still be what a node calls itself with `--name`
        return host


def allocated(answer: Any, offered: int) -> tuple[int, str]:
    """Return how many cpus a user's `allocate` wants, and what is wrong with it in words."""
    try:
        wanted = None if isinstance(answer, bool) else operator.index(answer)
    except TypeError:
        wanted = None
    if wanted is None:
        return 0, f'allocate() returned {reprlib.repr(answer)}, not a number of cpus'
    if wanted < 0:
        return 0, f'allocate() returned {reprlib.repr(wanted)}, less than 0'
    return min(wanted, offered), ''


def avail_info(availability: Availability | None) -> DispyNodeAvailInfo | None:
    """Return a node's figures under the names that users know."""
    if availability is None:
        return None
    a = availability
    return DispyNodeAvailInfo(a.cpu, a.memory, a.disk, a.swap)
