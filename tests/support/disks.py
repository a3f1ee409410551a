"""What programs of a world in one thread keep on disks: it outlives them, and power cuts as well.

    NodeProgram ── KeepLetters ... ──▶ Spool ──▶ KeptFound      as `io/spool.py`
    SchedulerProgram ── Record... ──▶ State ──▶ PlacementsKnown      as `io/schedulerstate.py`

What an effect writes is there when the next one is performed: a program that dies in the middle of
its turn leaves what it has performed until then.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from nodeserver.core import recoveryeffects as keep
from nodeserver.core.messages import JobsDone, KnownNode, Message, OpenComputation
from nodeserver.core.nodeevents import KeptFound
from nodeserver.core.recoveryevents import PlacementsKnown

Performers = dict[type[Any], Callable[[Any], None]]


@dataclass
class _Kept:
    opened: OpenComputation
    since: float
    nodes: list[str]
    letters: dict[int, JobsDone] = field(default_factory=dict)


class Spool:
    """The outcomes that the nodes of one machine keep, one after the other."""

    def __init__(self) -> None:
        self.computations: dict[int, _Kept] = {}

    def found(self, node: str, now: float) -> list[KeptFound]:
        """What a node that starts finds; one without a letter was never written."""
        self.computations = {c: kept for c, kept in self.computations.items() if kept.letters}
        found = []
        for kept in self.computations.values():
            jobs = [len(letter.ids) for letter in kept.letters.values()]
            former = tuple(kept.nodes)
            found.append(KeptFound(kept.opened, [*kept.letters], jobs, now - kept.since, former))
            kept.nodes.append(node)
        return found

    def performers(self, node: str, clock: Any, send: Callable[[str, Message], None]) -> Performers:
        """What is called for each effect of a node."""

        def keep_computation(effect: keep.KeepComputation) -> None:
            kept = _Kept(effect.opened, clock.now, [node])
            self.computations.setdefault(effect.opened.computation, kept)

        def keep_letters(effect: keep.KeepLetters) -> None:
            kept = self.computations[effect.computation]
            kept.letters.update((letter.letter, letter) for letter in effect.letters)

        def forget_letters(effect: keep.ForgetLetters) -> None:
            for letter in effect.letters:
                self.computations[effect.computation].letters.pop(letter, None)

        def send_kept(effect: keep.SendKept) -> None:
            kept = self.computations.get(effect.computation)
            letters = kept.letters if kept is not None else {}
            for number in effect.letters or sorted(letters):
                if number in letters:
                    send(effect.peer, replace(letters[number], node=node))

        return {
            keep.KeepComputation: keep_computation,
            keep.KeepLetters: keep_letters,
            keep.ForgetLetters: forget_letters,
            keep.ForgetKept: lambda effect: self.computations.pop(effect.computation, None),
            keep.SendKept: send_kept,
        }


@dataclass
class _Recorded:
    token: bytes
    epoch: int
    nodes: dict[str, KnownNode] = field(default_factory=dict)
    places: list[str] = field(default_factory=list)
    ids: list[list[int]] = field(default_factory=list)


class State:
    """What a scheduler has put on record of its computations."""

    def __init__(self) -> None:
        self.computations: dict[int, _Recorded] = {}

    def found(self) -> list[PlacementsKnown]:
        """What a scheduler that starts finds: the epoch is counted up before it opens anything."""
        found = []
        for computation, known in self.computations.items():
            known.epoch += 1
            nodes = [*known.nodes.values()]
            columns = [*known.places], [[*ids] for ids in known.ids]
            found.append(PlacementsKnown(computation, known.token, known.epoch, nodes, *columns))
        return found

    def performers(self) -> Performers:
        """What is called for each effect of a scheduler."""

        def declared(effect: keep.RecordComputation) -> None:
            new = effect.declared
            known = self.computations.setdefault(new.computation, _Recorded(new.token, new.epoch))
            known.token, known.epoch = new.token, max(known.epoch, new.epoch)

        def node(effect: keep.RecordNode) -> None:
            self.computations[effect.computation].nodes[effect.node.node] = effect.node

        def placed(effect: keep.RecordPlacements) -> None:
            columns = effect.computations, effect.nodes, effect.ids
            for computation, where, ids in zip(*columns, strict=True):
                known = self.computations[computation]
                known.places.append(where)
                known.ids.append([*ids])

        def rewritten(effect: keep.RewritePlacements) -> None:
            known = self.computations[effect.computation]
            known.places, known.ids = [*effect.nodes], [[*ids] for ids in effect.ids]

        return {
            keep.RecordComputation: declared,
            keep.RecordNode: node,
            keep.RecordPlacements: placed,
            keep.RewritePlacements: rewritten,
            keep.ForgetComputation: lambda e: self.computations.pop(e.computation, None),
        }
