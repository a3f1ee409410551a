"""Computations whose scheduler is gone, and how the next one takes them over (D4, D8).

    PeerLost ──▶ orphaned: what is here goes on ──▶ nothing runs ──▶ template closed, letters kept
    OpenComputation(resumes) ──▶ HandoverBegun, letters, JobsReturned, JobsHeld ──▶ new holder

What is told of a computation that resumes is complete: a job that was here and is not told of
has not survived.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from math import inf
from typing import Any

from nodeserver.core import levels
from nodeserver.core.effects import Effect, ReadOutput, Report, Send
from nodeserver.core.hosted import Hosted, HostedState
from nodeserver.core.kept import Kept, Shelf
from nodeserver.core.messages import (
    AcknowledgeOutcomes,
    CloseComputation,
    ComputationClosed,
    ComputationReady,
    JobsReturned,
    NodeNotice,
    OpenComputation,
)
from nodeserver.core.nodeevents import KeptFound, KeptSent
from nodeserver.core.nodefacts import Peer
from nodeserver.core.nodefiles import OFFER_SECONDS, NodeFiles
from nodeserver.core.recoverymessages import (
    HandoverBegun,
    JobsHeld,
    KeepOutcomes,
    ResendLetters,
)
from nodeserver.core.resending import Resending

GRACE = 10.0  # how long a template waits for the next scheduler, when nobody waits for the node
SIGN_PULSES = 3  # without a sign of life for that long, a scheduler may be one that is gone
SIGN_SECONDS = 15.0  # at least
_UNSENT = 'its files were not sent before its program was away'
_WILL_NOT_RUN = 'what it needs had not come when its scheduler was gone'

Refusal = tuple[str, str]  # kind and words of a `ComputationRefused`
_ANOTHERS: Refusal = ('failed', 'another program has a computation of that number here')


class Handovers:
    """Keeps what a lost scheduler leaves behind, and hands it over to who may have it."""

    def __init__(
        self,
        node_id: str,
        peers: dict[str, Peer],
        hosted: dict[int, Hosted],
        files: NodeFiles,
        emit: Callable[[Effect], None],
    ) -> None:
        self.shelf = Shelf(emit)
        self.resending = Resending(self.shelf, emit)
        self._node_id = node_id
        self.peers = peers
        self.hosted = hosted
        self.files = files
        self.emit = emit
        self.events: dict[type[Any], Callable[[Any, float], None]] = {
            KeptFound: self.shelf.found,
            KeptSent: self.resending.sent,
        }
        self.messages: dict[type[Any], Callable[[str, Any, float], None]] = {
            AcknowledgeOutcomes: self._acknowledged,
            KeepOutcomes: self._keep_outcomes,
            ResendLetters: self._resend,
        }

    # a scheduler is gone

    def lose_holder(self, hosted: Hosted) -> None:
        """All that needs nothing but a cpu goes on; letters are kept from this turn on."""
        if hosted.state is HostedState.CLOSING:  # it was closed, or kept already
            hosted.orphaned = True
            if hosted.keeps:  # it may not have heard of those that came back as it was closed
                hosted.returned.update(hosted.given_back.take())
            return
        hosted.lose_holder()
        self.files.lose_holder(hosted)

    def peer_lost(self, peer: str, held: Iterable[Hosted]) -> None:
        """What it had is free for the next one."""
        self.resending.peer_lost(peer)
        for hosted in held:
            self.lose_holder(hosted)
        for kept in self.shelf.of(peer):
            kept.is_claimed = False
            if kept.unwanted_by:
                self._forget(kept)

    def farewell(self, peer: str) -> None:
        """A scheduler leaves in peace: what is kept for it can go, unless it was to be collected.

        Who only collects, and leaves before all has arrived, will try again.  What it had left, or
        has lost with an earlier connection, is for whoever has the token.
        """
        self.resending.peer_lost(peer)
        for kept in self.shelf.of(peer):
            if kept.unwanted_by or (kept.is_claimed and not kept.opened.collects):
                self._forget(kept)
            else:
                kept.is_claimed = False

    def idle(self, now: float, is_wanted: bool) -> Iterator[Hosted]:
        """Orphans of which nothing runs or waits any more, and that wait for nobody.

        What runs of the others and wants to send a file does not wait for ever.
        """
        for hosted in self.hosted.values():
            if not hosted.orphaned or hosted.state is HostedState.CLOSING:
                continue
            hosted.alone_at = min(hosted.alone_at, now)
            if hosted.offers_wait and now >= hosted.alone_at + OFFER_SECONDS:
                self.files.refuse_offers(hosted)
            if hosted.running or hosted.waiting:
                hosted.idle_at = inf
                continue
            hosted.idle_at = min(hosted.idle_at, now)
            if is_wanted or now >= hosted.idle_at + GRACE:
                yield hosted

    def deadline(self) -> float:
        """When an orphan has waited long enough, or something was kept for too long."""
        due = self.shelf.deadline()
        for hosted in self.hosted.values():
            if hosted.orphaned and hosted.state is not HostedState.CLOSING:
                refuses_at = hosted.alone_at + OFFER_SECONDS if hosted.offers_wait else inf
                due = min(due, hosted.idle_at + GRACE, refuses_at)
        return due

    def retire(self, hosted: Hosted, now: float) -> None:
        """Its template is about to be closed: what is to be handed over stays."""
        hosted.keeps = True  # also what ends with its template
        self.shelf.retire(hosted, now)
        kept = self.shelf.get(hosted.id)
        if kept is not None and kept.outcomes and hosted.orphaned:
            self.emit(Report(levels.WARNING, f'this node {kept.words}, whose program is gone'))

    def closed(self, hosted: Hosted, now: float) -> None:
        """Nothing of a computation runs any more: what ended last is kept with the rest."""
        if hosted.keeps:
            hosted.take_letter(self._node_id)
            self.shelf.retire(hosted, now)
            self._tell_provisional(hosted)
        self.shelf.last_letter = max(self.shelf.last_letter, hosted.last_letter)

    def left(self, peer: str, computation: int) -> Hosted | None:
        """A scheduler uses it no more, as its client is gone: what is here goes on, and is kept.

        Unless that client has closed it through another one meanwhile: what is to be ended then.
        """
        hosted, kept = self.hosted.get(computation), self.shelf.held_by(peer, computation)
        if kept is not None and kept.unwanted_by:
            self._forget(kept)
        elif kept is not None:
            kept.is_claimed = False
        if hosted is None or hosted.scheduler != peer:
            return None
        if hosted.unwanted_by:
            return hosted
        self.lose_holder(hosted)
        return None

    # it is closed, by its scheduler or through another one by the client that has its token

    def may_close(self, peer: str, hosted: Hosted, message: CloseComputation) -> bool:
        """Whether it ends now; if not, it may end with a scheduler that is only taken for alive."""
        if hosted.scheduler == peer:
            return True
        if not _is_told(message, hosted.opened):
            return False
        if hosted.scheduler in self.peers and not hosted.orphaned:
            hosted.unwanted_by = peer
            return False
        hosted.scheduler = peer
        return True

    def close_kept(self, peer: str, message: CloseComputation) -> None:
        """A client wants nothing of this any more."""
        kept = self.shelf.get(message.computation)
        if kept is None or not (kept.holder == peer or _is_told(message, kept.opened)):
            return
        if kept.holder != peer and kept.holder in self.peers:
            kept.unwanted_by = peer
        else:
            self.shelf.forget(message.computation)

    def closing_waits(self, peer: str, computation: int) -> bool:
        """Whether what this one has closed goes only when the scheduler that has it is gone.

        It is on no disk: after a restart of the node, whoever has not heard that it is gone may say
        so again.
        """
        here = self.hosted.get(computation) or self.shelf.get(computation)
        return here is not None and here.unwanted_by == peer

    def _forget(self, kept: Kept) -> None:
        """What its client has closed through another scheduler is gone, which is told so."""
        computation = kept.opened.computation
        self.shelf.forget(computation)
        if kept.unwanted_by in self.peers and computation not in self.hosted:
            self.emit(Send(kept.unwanted_by, ComputationClosed(computation)))

    # another one comes

    def objection(self, peer: str, message: OpenComputation, now: float) -> Refusal | None:
        """Why a scheduler may not have what is here of a computation; None if it may."""
        hosted, kept = self.hosted.get(message.computation), self.shelf.get(message.computation)
        here = hosted or kept
        if here is None:
            return None
        if not message.token or message.token != here.opened.token:
            return _ANOTHERS
        holder = here.scheduler if isinstance(here, Hosted) else here.holder
        heard = self.peers.get(holder)
        if holder == peer or heard is None or (hosted is not None and hosted.orphaned):
            return None
        if message.yields and not _is_silent(heard, here.opened, now):
            return 'busy', f'it is used by a program that runs ({here.opened.owner})'
        if message.epoch <= here.opened.epoch:
            return 'busy', f'it was taken over by another program ({here.opened.owner})'
        return None

    def drops_before(self, peer: str, message: OpenComputation) -> Refusal | None:
        """A scheduler opens a computation as a new one: what is kept of it was given up."""
        hosted, kept = self.hosted.get(message.computation), self.shelf.get(message.computation)
        here = hosted or kept
        if here is not None and here.opened.token != message.token:
            return _ANOTHERS
        if kept is not None and hosted is None and not (kept.holder == peer and kept.is_claimed):
            self.shelf.forget(message.computation)
        return None

    def hand_over(self, peer: str, message: OpenComputation, cpus: int) -> bool:
        """Tell a new holder of everything that is here; whether there is a template for it."""
        hosted, kept = self.hosted.get(message.computation), self.shelf.get(message.computation)
        here = (each for each in (hosted, kept) if each is not None and each.formerly)
        formerly = next((each.formerly for each in here), ())
        self.emit(Send(peer, HandoverBegun(message.computation, formerly)))
        if kept is not None:
            self._hand_over_kept(peer, kept, message)
        if hosted is None or hosted.state is HostedState.CLOSING:
            returned = dict(kept.returned) if kept is not None else {}
            self._tell_jobs(peer, message.computation, returned, {})
            self.shelf.handed_over(message.computation)
            return False
        self._change_holder(peer, hosted, message)
        hosted.takes_all = message.cpus >= cpus
        returned = hosted.returned | (kept.returned if kept is not None else {})
        held = {job.id: job.attempt for job in hosted.held_jobs()}
        hosted.returned = {}
        self._tell_jobs(peer, hosted.id, returned, held)
        self.shelf.handed_over(hosted.id)
        if hosted.awaits_files:
            self.files.open(hosted)
        if hosted.is_usable:
            self.emit(Send(peer, ComputationReady(hosted.id)))
        self.files.offer_again(hosted)
        return True

    def hosted_anew(self, peer: str, message: OpenComputation) -> Hosted:
        """A computation that is to be opened here, whether or not something is kept of it."""
        hosted = Hosted(peer, message, self.shelf.last_letter)
        kept = self.shelf.get(message.computation)
        if kept is not None:
            hosted.formerly = kept.formerly
        return hosted

    def _hand_over_kept(self, peer: str, kept: Kept, message: OpenComputation) -> None:
        kept.holder, kept.is_claimed, kept.unwanted_by = peer, True, ''
        kept.opened = replace(
            kept.opened, epoch=message.epoch, owner=message.owner, collects=message.collects
        )
        if kept.letters:
            self.resending.begin(peer, message.computation, kept.letters)

    def _change_holder(self, peer: str, hosted: Hosted, message: OpenComputation) -> None:
        """Follow a scheduler, and send it the letters that nobody has acknowledged."""
        if not hosted.orphaned:
            self.lose_holder(hosted)  # what the former one was about to send does not come any more
        hosted.scheduler, hosted.orphaned, hosted.keeps = peer, False, False
        hosted.unwanted_by = ''
        hosted.opened = replace(
            hosted.opened,
            owner=message.owner,
            epoch=message.epoch,
            collects=message.collects,
            cpus=message.cpus,
            pulse_interval=message.pulse_interval,
            manifest=message.manifest,
        )
        self._tell_provisional(hosted)
        hosted.take_letter(self._node_id)  # jobs that have ended in this turn are not held
        for letter in hosted.letters.values():
            self.emit(Send(peer, letter))
        self.emit(ReadOutput(hosted.id))  # the former one's word for it may not come any more

    def _tell_provisional(self, hosted: Hosted) -> None:
        """Results of jobs that are held follow; say how many others nobody will have."""
        hosted.provisional.keep_of({job.id for job in hosted.held_jobs()})
        loss = hosted.provisional.loss(hosted.opened.name)
        if loss:
            self.emit(Report(levels.WARNING, loss))
            if hosted.is_served:
                self.emit(Send(hosted.scheduler, NodeNotice(hosted.id, levels.WARNING, loss)))

    def _tell_jobs(
        self, peer: str, computation: int, returned: dict[int, int], held: dict[int, int]
    ) -> None:
        if returned:
            jobs = list(returned), list(returned.values())
            self.emit(Send(peer, JobsReturned(computation, *jobs, _WILL_NOT_RUN)))
        self.emit(Send(peer, JobsHeld(computation, list(held), list(held.values()))))

    def may_be_gone(self, hosted: Hosted, now: float) -> bool:
        """Whether letters are on their way to a scheduler that may be there no more."""
        if hosted.unwanted_by:
            return False
        heard = self.peers.get(hosted.scheduler)
        is_alone = heard is None or _is_silent(heard, hosted.opened, now)
        return hosted.keeps or (is_alone and bool(hosted.letters))

    # what the holder says of letters

    def _acknowledged(self, peer: str, message: AcknowledgeOutcomes, now: float) -> None:
        hosted = self.hosted.get(message.computation)
        if hosted is not None and hosted.scheduler == peer:
            for letter in message.letters:
                hosted.letters.pop(letter, None)
        if len(self.shelf):
            self.shelf.acknowledged(peer, message.computation, message.letters)

    def _keep_outcomes(self, peer: str, message: KeepOutcomes, now: float) -> None:
        """The client is away: its letters are kept, although its scheduler is here."""
        hosted = self.hosted.get(message.computation)
        if hosted is not None and hosted.scheduler == peer:
            self._set_keeps(hosted, True)

    def _resend(self, peer: str, message: ResendLetters, now: float) -> None:
        """The client is back."""
        hosted = self.hosted.get(message.computation)
        kept = self.shelf.held_by(peer, message.computation)
        if kept is not None:
            numbers = [number for number in message.letters if number in kept.letters]
            if numbers:
                self.resending.begin(peer, message.computation, numbers)
        if hosted is not None and hosted.scheduler == peer:
            self._set_keeps(hosted, hosted.orphaned)
            self._tell_provisional(hosted)
            self.files.fetch_again(hosted)
            self.files.offer_again(hosted)
            self._return_unsent(hosted)
            for number in message.letters:
                if number in hosted.letters:
                    self.emit(Send(peer, hosted.letters[number]))

    def _set_keeps(self, hosted: Hosted, keeps: bool) -> None:
        """Whether its letters are kept; for one that is being closed that is settled."""
        if hosted.state is not HostedState.CLOSING:
            hosted.keeps = keeps

    def _return_unsent(self, hosted: Hosted) -> None:
        """Jobs whose files were asked for while the client was away, which nobody heard."""
        jobs = [job for job in hosted.data.lacking.values() if job.awaits_files]
        if jobs:
            for job in jobs:
                hosted.take_out(job)
            hosted.send_back(jobs)
            ids, attempts = [job.id for job in jobs], [job.attempt for job in jobs]
            self.emit(Send(hosted.scheduler, JobsReturned(hosted.id, ids, attempts, _UNSENT)))


def _is_told(message: CloseComputation, opened: OpenComputation) -> bool:
    """Whether its client has closed it, and nobody has taken it over since."""
    is_right = bool(message.token) and message.token == opened.token
    return is_right and message.epoch >= opened.epoch


def _is_silent(peer: Peer, opened: OpenComputation, now: float) -> bool:
    """Whether a scheduler has given no sign of life for some time."""
    return now - peer.heard_at >= max(SIGN_PULSES * opened.pulse_interval, SIGN_SECONDS)
