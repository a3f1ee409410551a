"""Histories in which whoever runs the nodes stops, opens, resizes and takes them back."""

import random
from dataclasses import dataclass, replace

import pytest

from nodeserver.core import events as seen
from nodeserver.core.hours import ServiceHours, read_time
from tests.support.histories import History
from tests.support.operations import WEIGHTS, Operation, draw
from tests.support.operations import _node as node_of
from tests.support.operations import _one_of as one_of
from tests.support.operations import _target as target
from tests.support.world import World

HOURS = ServiceHours(read_time('17:00'), read_time('6:00'), read_time('8:00'))


@dataclass(frozen=True)
class TellNode(Operation):
    """Whoever runs a node says a word to it, or the clock on its wall does."""

    machine: int = target()
    word: str = one_of('20:00', '7:00', '9:00', 'stop', 'start', 'release', 'close', 'one', 'all')

    def apply(self, world: World) -> None:
        node = node_of(world, self.machine)
        if node is None:
            return
        if ':' in self.word:
            node.core._shift._hours = HOURS
            node.tell(seen.ClockRead(read_time(self.word)))
        else:
            node.tell(
                {
                    'stop': seen.PauseAsked(),
                    'start': seen.PauseAsked(ends=True),
                    'release': seen.ReleaseAsked(),
                    'close': seen.CloseAsked(),
                    'one': seen.CpusChosen(1),
                    'all': seen.CpusChosen(node.cpus),
                }[self.word]
            )


def history(seed: int) -> History:
    """A history with such words in it, after which all nodes take jobs."""
    rng = random.Random(seed)
    weights = WEIGHTS | {TellNode: 15}
    drawn = [draw(rng, weights) for _ in range(60)]
    opened = [TellNode(number, word) for number in range(12) for word in ('20:00', 'start', 'all')]
    return replace(History.of_seed(seed), operations=(*drawn, *opened))


@pytest.mark.parametrize('seed', range(12))
def test_nothing_is_lost_whatever_nodes_are_told(seed: int) -> None:
    history(seed).play()
