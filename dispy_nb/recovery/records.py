"""What an embedded scheduler has recorded, each in the journal of its cluster."""

from typing import Any

from dispy_nb.recovery.journal import Journal
from nodeserver.core.recoveryeffects import (
    ForgetComputation,
    RecordComputation,
    RecordNode,
    RecordPlacements,
    RewritePlacements,
)
from nodeserver.io.driver import Performers


class Records:
    """The journals of the clusters of one loop, by computation."""

    def __init__(self) -> None:
        self.journals: dict[int, Journal] = {}

    def performers(self) -> Performers:
        """What the driver calls for the scheduler's core."""
        return {
            RecordComputation: lambda effect: None,  # its journal has that
            RecordNode: self._node,
            RecordPlacements: self._placements,
            RewritePlacements: self._rewrite,
            ForgetComputation: lambda effect: None,  # its cluster removes the journal
        }

    def _node(self, effect: RecordNode) -> None:
        journal = self.journals.get(effect.computation)
        if journal is not None:
            journal.record_node(effect)
            journal.file.flush()

    def _placements(self, effect: RecordPlacements) -> None:
        journals: dict[Any, None] = {}
        columns = effect.computations, effect.nodes, effect.ids, effect.attempts
        for computation, node, ids, attempts in zip(*columns, strict=True):
            journal = self.journals.get(computation)
            if journal is not None:
                journal.record_placements(node, ids, attempts)
                journals[journal] = None
        for journal in journals:
            journal.file.flush()

    def _rewrite(self, effect: RewritePlacements) -> None:
        journal = self.journals.get(effect.computation)
        if journal is not None:
            journal.rewrite(effect)
