"""What programs ask of a relay about the nodes of its network, and what it tells them (M10).

program ── AskNodes, now and then ──▶ relay
program ◀── RelayDetails, NodesSeen, NodesGone ── relay
"""

from nodeserver.core.values import value

# program -> relay


@value
class AskNodes:
    """Tell of the nodes that answer at these UDP ports, from now on; repeated as a sign of life."""

    ports: list[int]


# relay -> program


@value
class RelayDetails:
    """What the relay is called, and where it carries connections to its nodes.

    `port` 0 means that it carries none; `host` '' that it does so where it is reached.
    """

    name: str
    host: str
    port: int


@value
class NodesSeen:
    """Nodes that answered on the relay's network: columns of what each one's answer said."""

    ids: list[str]
    addresses: list[str]
    ports: list[int]
    asked_ports: list[int]  # the UDP ports that answered
    asked: list[str]  # addresses that answered, of those which want another to be used
    tls: list[bool]


@value
class NodesGone:
    """Nodes that do not answer the relay any more."""

    ids: list[str]


RelayMessage = AskNodes | RelayDetails | NodesSeen | NodesGone
