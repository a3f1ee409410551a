"""Whether a node opens a computation, and for whom: one scheduler at a time has it (A25).

OpenComputation ──▶ is it here already, and whose? ──▶ (handover) ──▶ can it be run? ──▶ files,
                                                   └──▶ ComputationRefused               template
"""

from collections.abc import Callable

from nodeserver.core.departure import Departure
from nodeserver.core.effects import Send
from nodeserver.core.handover import Handovers, Refusal
from nodeserver.core.hosted import Hosted, HostedState
from nodeserver.core.messages import ComputationRefused, OpenComputation
from nodeserver.core.nodefacts import NodeFacts, Peer
from nodeserver.core.nodestatus import held_by
from nodeserver.core.shift import Shift


class Openings:
    """Decides over what schedulers want to open."""

    def __init__(
        self,
        handovers: Handovers,
        departure: Departure,
        shift: Shift,
        facts: Callable[[], NodeFacts],
        drop: Callable[[Hosted], None],
    ) -> None:
        self._handovers = handovers
        self._departure, self._shift = departure, shift
        self._facts, self._drop = facts, drop
        self._peers, self._hosted = handovers.peers, handovers.hosted
        self._waiting: dict[int, list[tuple[str, Peer, OpenComputation]]] = {}

    def open(self, peer: str, message: OpenComputation, now: float) -> None:
        """A scheduler wants to run jobs of a computation, or to have what is here of it."""
        if message.resumes:
            refusal = self._handovers.objection(peer, message, now)
            if refusal is None and self._ends(peer, message):
                return
            if refusal is None and self._handovers.hand_over(peer, message, self._facts().cpus):
                self._shift.client_came(peer)
                return
            if refusal is None and message.collects:
                refusal = 'empty', 'nothing of it runs here'
        else:
            before = self._hosted.get(message.computation)
            refusal = self._handovers.drops_before(peer, message)
            if before is not None and before.is_served and refusal is None:
                if before.scheduler == peer:
                    return
                refusal = 'busy', held_by(before)
        refusal = refusal or self._unfit(peer, message)
        if refusal is not None:
            self._refuse(peer, message, refusal)
        else:
            hosted = self._hosted[message.computation] = self._handovers.hosted_anew(peer, message)
            self._shift.client_came(peer)
            self._handovers.files.open(hosted)

    def _ends(self, peer: str, message: OpenComputation) -> bool:
        """Whether what runs of it is being ended: then the outcomes of that are handed over too."""
        before = self._hosted.get(message.computation)
        if before is None or before.state is not HostedState.CLOSING or not before.keeps:
            return False
        waiting = self._waiting.setdefault(message.computation, [])
        waiting.append((peer, self._peers[peer], message))
        return True

    def given_up(self, peer: str, computation: int) -> None:
        """A scheduler does not wait for it any more."""
        if computation in self._waiting:
            others = [each for each in self._waiting[computation] if each[0] != peer]
            self._waiting[computation] = others

    def closed(self, hosted: Hosted, now: float) -> None:
        """Nothing of it runs any more: who waited for that has it now, if it is still there."""
        for peer, record, message in self._waiting.pop(hosted.id, ()):
            if hosted.keeps and self._peers.get(peer) is record:
                self.open(peer, message, now)

    def _unfit(self, peer: str, message: OpenComputation) -> Refusal | None:
        """Why a computation of which nothing runs here cannot be opened (now)."""
        words = self._departure.words or self._facts().unfit(message)
        if words:
            return 'failed', words
        before = self._hosted.get(message.computation)
        if before is not None:
            if not message.resumes:
                self._drop(before)  # its scheduler lost us meanwhile, and has given it up
            return 'busy', 'it ends what it ran before the connection broke'
        rival = next((h for h in self._hosted.values() if h.scheduler != peer), None)
        words = self._shift.closed or (held_by(rival) if rival is not None else '')
        return ('busy', words) if words else None

    def _refuse(self, peer: str, message: OpenComputation, refusal: Refusal) -> None:
        kind, words = refusal
        self._peers[peer].waits = self._peers[peer].waits or kind == 'busy'
        self._handovers.emit(Send(peer, ComputationRefused(message.computation, kind, words)))
