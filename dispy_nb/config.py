"""Ports and limits under the names of dispy's module `config`, for programs that set them.

Set them before a cluster is made; what a cluster is given by its parameters goes first.

`ClientPort` and `NodePort` are the `port` and `node_port` of later clusters.  `DispyPort` moves
both at once, as in dispy: `ClientPort` is the same and `NodePort` the next one, where these are
left alone.  `SharedSchedulerPort` and `HTTPServerPort` tell the documented numbers; what they
belong to is not in this version.  `MsgTimeout` and `MaxFileSize` tell those of `dispynode`, whose
options they are: setting them here has no effect, and the next cluster says so in a warning.
"""

import importlib
import sys
from typing import Any

from nodeserver.core.errors import UsageError
from nodeserver.io.udp import CLIENT_PORT, NODE_PORT

if __name__ != 'dispy_nb.config':  # imported as `dispy.config`: there is one only
    sys.modules[__name__] = importlib.import_module('dispy_nb.config')

DispyPort = CLIENT_PORT
ClientPort = CLIENT_PORT
NodePort = NODE_PORT
SharedSchedulerPort = 51349
HTTPServerPort = 8181
MsgTimeout = 5
MaxFileSize = 10 * 1024**2

_UNHEEDED = {'MsgTimeout': MsgTimeout, 'MaxFileSize': MaxFileSize}


def chosen_ports() -> dict[str, int]:
    """Return those of `port` and `node_port` that were set here.

    Raises
    ------
    UsageError
        What was set is no port.
    """
    _check_port('DispyPort', DispyPort, 65534)
    _check_port('ClientPort', ClientPort, 65535)
    _check_port('NodePort', NodePort, 65535)
    has_moved = DispyPort != CLIENT_PORT
    ports = {}
    if ClientPort != CLIENT_PORT or has_moved:
        ports['port'] = ClientPort if ClientPort != CLIENT_PORT else DispyPort
    if NodePort != NODE_PORT or has_moved:
        ports['node_port'] = NodePort if NodePort != NODE_PORT else DispyPort + 1
    return ports


def unheeded() -> list[str]:
    """Return the names of what was set here without effect."""
    return [name for name, value in _UNHEEDED.items() if globals()[name] != value]


def _check_port(name: str, value: Any, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
        raise UsageError(f'dispy.config.{name} must be a port from 1 to {most}, not {value!r}')
