"""A node's core on a bench: it is told what happens, and what it answers is looked at."""

from dataclasses import replace
from typing import Any

from nodeserver.core import effects as do
from nodeserver.core import messages as m
from nodeserver.core.events import (
    JobsReported,
    MessageArrived,
    PeerConnected,
    TemplateReady,
    WorkerForked,
)
from nodeserver.core.node import NodeCore
from nodeserver.core.nodeevents import KeptSent
from nodeserver.core.nodefacts import AT_ALL_TIMES, NodeFacts, NodeRules
from nodeserver.core.recoveryeffects import SendKept

TOKEN = b'the token of it.'


def opening(
    computation: int = 7, isolation: str = 'job', python: str = '3.11', cpus: int = 8
) -> m.OpenComputation:
    """The message with which a scheduler opens a computation."""
    who = ('compute', 'Ann at box', python)
    rest = (b'package', isolation, '', True, 5.0, cpus)
    return m.OpenComputation(computation, *who, *rest, token=TOKEN)


def claim(epoch: int = 1, **changes: Any) -> m.OpenComputation:
    """The message with which a scheduler takes it over."""
    return replace(opening(), epoch=epoch, resumes=True, **changes)


class Bench:
    """A node core, its clock, and what it has answered since the last look."""

    def __init__(self, cpus: int = 2, rules: NodeRules = AT_ALL_TIMES) -> None:
        self.core = NodeCore(NodeFacts('n', 'n', cpus, 'Linux', '3.11'), rules)
        self.now = 50.0
        self.at_once = 1000  # letters that the spool sends before there is room for more
        self.effects: list[Any] = []
        self.tell(PeerConnected('s', ''))

    def tell(self, event: Any) -> None:
        """One turn with one event."""
        effects = self.core.handle(event, self.now) + self.core.end_turn(self.now)
        self.effects += effects
        self.core.check()
        for effect in effects:
            if isinstance(effect, SendKept) and self.at_once:
                sent = effect.letters[: self.at_once]
                self.tell(KeptSent(effect.peer, effect.computation, sent))

    def hears(self, message: Any, peer: str = 's') -> None:
        """One turn with one message."""
        self.tell(MessageArrived(peer, message))

    def open(self, isolation: str = 'job', workers: int = 2) -> None:
        """Have a computation with workers that wait."""
        self.hears(opening(isolation=isolation))
        self.tell(TemplateReady(7))
        for worker in range(1, workers + 1):
            self.tell(WorkerForked(7, worker))

    def run(self, *ids: int) -> None:
        """Jobs come."""
        self.hears(m.RunJobs(7, list(ids), [1] * len(ids), [b'x'] * len(ids)))

    def reported(self, worker: int, job: int, seconds: float = 1.0) -> None:
        """A worker has ended a job."""
        self.tell(JobsReported(7, worker, [job], [False], [b'out'], [seconds]))

    def take(self, kind: type[Any]) -> list[Any]:
        """Effects of a kind, or messages sent of a kind, since the last look."""
        found = [e for e in self.effects if isinstance(e, kind)]
        sent = [e.message for e in self.effects if isinstance(e, do.Send)]
        found += [message for message in sent if isinstance(message, kind)]
        self.effects = [
            e for e in self.effects if e not in found and getattr(e, 'message', None) not in found
        ]
        return found
