"""What the answers to a broadcast mean: pure."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from dispy_nb.doctor.findings import Fault, Finding, Level, fine
from nodeserver.core.events import NodeFound
from nodeserver.core.explain import KEY_ADVICE

NETWORK: Final = 'the local network'
_MOST_NAMED: Final = 10


@dataclass(slots=True)
class Around:
    """Who has answered a broadcast, and whether that matters."""

    others_named: bool  # hosts were named: nobody has to be here
    node_port: int
    nodes: dict[str, NodeFound] = field(default_factory=dict)  # by node id
    strangers: set[str] = field(default_factory=set)  # addresses that have another key


def judge_network(around: Around, named: Collection[str]) -> list[Finding]:
    """Judge who is on the local network; `named` are addresses that are told of elsewhere."""
    strangers = sorted(around.strangers - set(named))
    listed = ', '.join(strangers[:_MOST_NAMED]) + (' and others' * (len(strangers) > _MOST_NAMED))
    check = f'broadcast to UDP port {around.node_port}'
    found = []
    if around.nodes:
        found.append(fine(check, f'{_nodes(len(around.nodes))} with our key answered', NETWORK))
    elif around.others_named:
        found.append(fine(check, 'no node with our key answered; none has to be here', NETWORK))
    elif not strangers:
        advice = (
            'start `dispynode` on each machine that should run jobs; run `dispy doctor` there, '
            'and name it here: `dispy doctor HOST`'
        )
        words = 'nobody answered'
        found.append(Finding(check, Level.PROBLEM, Fault.REACH, words, advice, NETWORK))
    if strangers:
        matters = not around.nodes and not around.others_named
        level = Level.PROBLEM if matters else Level.WARNING
        words = f'nodes with another key: {listed}'
        advice = f'if they are yours: {KEY_ADVICE}; then start dispynode anew'
        found.append(Finding('key', level, Fault.KEYS, words, advice, NETWORK))
    return found


def _nodes(count: int) -> str:
    return '1 node' if count == 1 else f'{count} nodes'
