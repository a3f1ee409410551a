"""What a cluster is made with: the documented parameters, checked and gathered."""

import inspect
import logging
import os
import re
import reprlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dispy_nb.callbacks import ARGUMENTS, check_callback
from dispy_nb.depends import checked_depends
from dispy_nb.local import with_local_nodes
from dispy_nb.nodes import DispyNode, NodeAllocate
from nodeserver.core.errors import UsageError
from nodeserver.core.pulses import PULSE_INTERVAL
from nodeserver.core.values import Resources
from nodeserver.io.keys import Secret
from nodeserver.io.netif import own_addresses
from nodeserver.io.udp import CLIENT_PORT, NODE_PORT
from nodeserver.io.workdir import check_dest_path
from nodeserver.wire.beacon import CALLBACK_LIMIT, MOST_CALLBACK_HOSTS, callback_bytes

ISOLATIONS = ('job', 'worker')
LONGEST_NAME = 200
MOST_WHOLE = 1_000_000
MOST_MEMORY = 1 << 60
_AMOUNT = re.compile(r'(\d{1,20}(?:\.\d{1,9})?)\s*([bkmgtp]?)(?:i?b)?')
MOST_LEVEL = 100  # above CRITICAL, for those who want to hear nothing


@dataclass(slots=True)
class ClusterOptions:
    """The parameters of `JobCluster`, under its names; `check()` says what is wrong with them."""

    computation: Callable[..., Any] | str
    nodes: Sequence[Any]
    depends: Sequence[Any] = ()
    callback: Callable[..., Any] | None = None
    cluster_status: Callable[..., Any] | None = None
    ip_addr: str | list[str] | None = None
    ext_ip_addr: str | Sequence[str] | None = None
    port: int | None = CLIENT_PORT
    node_port: int | None = NODE_PORT
    recover_file: str | None = None
    dest_path: str | None = None
    loglevel: int = logging.WARNING
    setup: Callable[..., Any] | None = None
    cleanup: bool | Callable[..., Any] = True
    pulse_interval: float | None = None
    ping_interval: float | None = None
    reentrant: bool = False
    secret: str = field(default='', repr=False)  # in no log and no traceback
    keyfile: str | None = None
    certfile: str | None = None
    isolation: str = 'job'
    insecure: bool = False
    name: str | None = None
    progress: bool | None = None
    cpus: int = 1
    memory: int | str | None = None
    gpus: int = 0
    ipv4_udp_multicast: bool = False
    exclusive: bool = False  # of clusters that share a scheduler
    allocations: list[NodeAllocate] = field(default_factory=list)
    trusted: Secret | None = None  # in place of `secret`: what a recovery file has kept

    def check(self) -> None:
        """Raise `UsageError` for a wrong value."""
        self.nodes = self.with_own_nodes(['*'] if self.nodes is None else self.nodes)
        if isinstance(self.computation, str):
            _check_program(self.computation)
        elif not callable(self.computation):
            raise UsageError(
                f'computation must be a function or the path of a program, not '
                f'{self.computation!r} ({type(self.computation).__name__})'
            )
        for name in ARGUMENTS:
            check_callback(name, getattr(self, name))
        self.port = check_port('port', self.port, 0)
        self.node_port = check_port('node_port', self.node_port, NODE_PORT)
        _seconds('pulse_interval', self.pulse_interval, 1, 600)
        _seconds('ping_interval', self.ping_interval, 1, 86_400)
        self.depends = checked_depends('depends', self.depends)
        if self.setup is not None and not callable(self.setup):
            raise UsageError(f'setup must be a function or None, not {self.setup!r}')
        if not isinstance(self.cleanup, bool) and not callable(self.cleanup):
            raise UsageError(f'cleanup must be True, False or a function, not {self.cleanup!r}')
        for name in ('setup', 'cleanup'):
            _check_runs(name, getattr(self, name))
        for name in ('reentrant', 'insecure', 'ipv4_udp_multicast'):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f'{name} must be True or False, not {getattr(self, name)!r}')
        if self.isolation not in ISOLATIONS:
            raise UsageError(f"isolation must be 'job' or 'worker', not {self.isolation!r}")
        self.recover_file = _path('recover_file', self.recover_file)
        self.certfile = _path('certfile', self.certfile)
        self.keyfile = _path('keyfile', self.keyfile)
        _check_dest_path(self.dest_path)
        if self.progress is not None and not isinstance(self.progress, bool):
            raise UsageError(f'progress must be a bool or None, not {self.progress!r}')
        _check_name(self.name)
        _check_level(self.loglevel)
        self.resources()
        self.ip_addr = _addresses(self.ip_addr)
        self.ext_ip_addr = _external(self.ext_ip_addr)
        self.allocations = [as_allocation(element) for element in _elements(self.nodes)]

    @property
    def pulse(self) -> float:
        """Seconds between pulses (D17)."""
        return float(self.pulse_interval or PULSE_INTERVAL)

    def resources(self) -> Resources:
        """What each job needs of its node (Z12)."""
        cpus = _whole('cpus', self.cpus, 1)
        return Resources(cpus, bytes_of(self.memory), _whole('gpus', self.gpus, 0))

    def with_own_nodes(self, nodes: Any) -> Any:
        """Add the nodes that this program has started, where any nodes are asked for."""
        return with_local_nodes(nodes)


def _check_runs(name: str, function: Any) -> None:
    """Refuse functions whose call runs nothing: nobody waits for a coroutine on the node."""
    kinds = inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction
    while isinstance(function, partial):
        function = function.func
    if any(is_kind(function) for is_kind in kinds):
        raise UsageError(
            f'{name} must be an ordinary function, not {function!r}: a call of that runs nothing'
        )


def _check_program(path: str) -> None:
    if Path(path).is_dir():
        raise UsageError(f'computation {path!r} is a directory, and no program')
    if not Path(path).is_file():
        raise UsageError(f'computation {path!r}: there is no such file')
    if not os.access(path, os.X_OK):
        raise UsageError(f'computation {path!r} is not executable: `chmod +x` it')


def _check_name(name: Any) -> None:
    """Names stand in log lines and tables of other people's programs."""
    if name is None:
        return
    if not isinstance(name, str):
        raise UsageError(f'name must be a str or None, not {name!r}')
    if not name.strip() or not name.isprintable() or len(name) > LONGEST_NAME:
        raise UsageError(
            f'name must have 1 to {LONGEST_NAME} printable characters, not {reprlib.repr(name)}'
        )


def _check_level(level: Any) -> None:
    if isinstance(level, bool) or not isinstance(level, int) or not 0 <= level <= MOST_LEVEL:
        raise UsageError(
            f'loglevel must be one of dispy.logger.DEBUG, INFO, WARNING, ERROR and CRITICAL, or '
            f'a number from 0 to {MOST_LEVEL}, not {level!r}'
        )


def _path(name: str, path: Any) -> str | None:
    """Return the path of a file as text; what can be done with it is found out later."""
    if path is None or path == '':
        return None
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise UsageError(f'{name} must be the path of a file or None, not {path!r}')
    if '\0' in os.fspath(path):
        raise UsageError(f'{name} must be the path of a file or None, not {path!r}')
    return os.fspath(path)


def _check_dest_path(path: Any) -> None:
    """Refuse here what each node would refuse."""
    if path is not None and not isinstance(path, str):
        raise UsageError(f'dest_path must be a string or None, not {path!r}')
    if path:
        check_dest_path(path)


def as_allocation(element: Any) -> NodeAllocate:
    """Turn an element of `nodes` into a `NodeAllocate` (A08-A10).

    Raises
    ------
    UsageError
        It is neither a host, a `(host, port)` pair, a `NodeAllocate`, a dictionary of its
        parameters, nor a node that another cluster had.
    """
    if isinstance(element, NodeAllocate):
        return element
    if isinstance(element, DispyNode):
        return NodeAllocate(element.ip_addr, element.port or None)
    if isinstance(element, str):
        return NodeAllocate(element)
    if isinstance(element, dict):
        return _allocation_of(element)
    if isinstance(element, tuple | list) and 1 <= len(element) <= 3:
        return NodeAllocate(*element)
    raise UsageError(
        f'an element of nodes must be a host name, an IP address, a pattern with *, '
        f'a (host, port) tuple or a NodeAllocate, not {element!r}'
    )


def _allocation_of(parameters: dict[Any, Any]) -> NodeAllocate:
    """Make one of a dictionary, as dispy 4.15 takes it."""
    names = list(inspect.signature(NodeAllocate).parameters)
    unknown = [name for name in parameters if name not in names]
    if unknown or 'host' not in parameters:
        wrong = f'{unknown[0]!r} is none' if unknown else 'host is missing'
        raise UsageError(
            f'an element of nodes that is a dict has the keys {", ".join(names)}: {wrong}'
        )
    return NodeAllocate(**parameters)


def _elements(nodes: Any) -> Iterable[Any]:
    if isinstance(nodes, str | NodeAllocate | dict) or not isinstance(nodes, Iterable):
        hint = 'give its `nodes`' if hasattr(nodes, 'nodes') else f'write [{nodes!r}]'
        is_one = isinstance(nodes, str | NodeAllocate | dict) or hasattr(nodes, 'nodes')
        raise UsageError(f'nodes must be a list, not {nodes!r}' + (f': {hint}' if is_one else ''))
    elements = list(nodes)
    if not elements:
        raise UsageError("nodes is empty: no node would be used; leave it out, or give ['*']")
    return elements


def _addresses(value: Any) -> list[str] | None:
    """Resolve the client's own addresses (A18)."""
    if value is None:
        return None
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list | tuple) or not all(isinstance(a, str) for a in given):
        raise UsageError(f'ip_addr must be a string or a list of strings, not {value!r}')
    if not given:
        raise UsageError('ip_addr is empty: leave it out to use every interface')
    return list(dict.fromkeys(own for address in given for own in own_addresses(address)))


def _external(value: Any) -> tuple[str, ...] | None:
    """Check where nodes are told to connect to (A20); what a name means is for them to find out."""
    if value is None:
        return None
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list | tuple) or not all(isinstance(a, str) for a in given):
        raise UsageError(f'ext_ip_addr must be a string or a list of strings, not {value!r}')
    if not given:
        raise UsageError('ext_ip_addr is empty: leave it out, or give the address of your gateway')
    hosts = tuple(dict.fromkeys(given))
    try:
        callback_bytes(hosts)
    except ValueError as exc:
        raise UsageError(
            f'ext_ip_addr must be a host name or an IP address, or up to {MOST_CALLBACK_HOSTS} of '
            f'them with {CALLBACK_LIMIT} characters together, not {reprlib.repr(value)}'
        ) from exc
    return hosts


def check_port(name: str, value: Any, default: int) -> int:
    """Return a port; None means the default.

    Raises
    ------
    UsageError
        It is no number of a port.
    """
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 65535:
        raise UsageError(f'{name} must be a number from 0 to 65535, not {value!r}')
    return value


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MOST_WHOLE:
        raise UsageError(f'{name} must be a whole number from {least} on, not {value!r}')
    return value


def bytes_of(memory: Any) -> int:
    """Read an amount of memory: a number of bytes, or text such as '4g'; None means no demand.

    Raises
    ------
    UsageError
        It is neither, or nothing.
    """
    if memory is None:
        return 0
    count = memory
    if isinstance(memory, str):
        match = _AMOUNT.fullmatch(memory.strip().lower())
        count = int(float(match[1]) * 1024 ** 'bkmgtp'.index(match[2] or 'b')) if match else 0
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count < MOST_MEMORY:
        raise UsageError(
            "memory must be a number of bytes, text such as '4g' or '512M' (of 1024), or None, "
            f'not {memory!r}'
        )
    return count


def _seconds(name: str, value: Any, least: float, most: float) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise UsageError(f'{name} must be from {least} to {most} seconds, not {value!r}')
