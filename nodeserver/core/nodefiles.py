"""A node's decisions about files: what must lie there before a computation or a job can begin.

    OpenComputation with a manifest ──▶ OpenFiles ──▶ FilesPlaced ──▶ OpenTemplate
    RunJobs with manifests ──▶ HearOfFiles(PlaceFiles) ──▶ FilesPlaced ──▶ the job's queue
    FileOffered by a job ──▶ OfferFile ──▶ the cluster, and again to the next one

What is said between cluster and node about a transfer passes through here; the bytes are read and
written by the shell (`io/nodefiles.py`).
"""

from collections.abc import Callable
from typing import Any

from nodeserver.core.arrivals import enqueue
from nodeserver.core.effects import (
    CloseFiles,
    Effect,
    EndTransfers,
    HearOfFiles,
    OpenFiles,
    ReleaseFiles,
    Send,
)
from nodeserver.core.events import FileOffered, FilesToSay
from nodeserver.core.filemessages import (
    OWN_FILES,
    FetchFiles,
    FileBlocks,
    FilesFailed,
    FilesPlaced,
    OfferFile,
    PlaceFiles,
)
from nodeserver.core.hosted import Hosted, HostedState, NodeJob
from nodeserver.core.nodefacts import NodeFacts
from nodeserver.core.recoveryeffects import OfferAgain, RefuseOffers
from nodeserver.core.status import JobStatus

OFFER_SECONDS = 15.0  # that a job waits for the next scheduler to take a file that it sends
_NOBODY = f'its program is gone, and none came within {OFFER_SECONDS:g} s to take it'


class NodeFiles:
    """Passes on what is said of files, and keeps back what waits for some."""

    def __init__(
        self,
        facts: NodeFacts,
        hosted: dict[int, Hosted],
        emit: Callable[[Effect], None],
        failed: Callable[[Hosted, str], None],
    ) -> None:
        self._node_id = facts.id
        self._limit = facts.max_file_size
        self._hosted = hosted
        self._emit = emit
        self._failed = failed  # called where a computation's own files cannot be had
        self.events: dict[type[Any], Callable[[Any, float], None]] = {
            FilesToSay: self._to_say,
            FileOffered: self._offered,
        }
        self.messages: dict[type[Any], Callable[[str, Any, float], None]] = dict.fromkeys(
            (PlaceFiles, FetchFiles, FileBlocks, FilesPlaced, FilesFailed), self._heard
        )

    def open(self, hosted: Hosted) -> None:
        """Have the computation's own files, then its template."""
        opened = hosted.opened
        if opened.manifest:
            self._emit(
                OpenFiles(opened.computation, opened.name, opened.dest_path, opened.manifest)
            )
            hosted.has_files = hosted.awaits_files = True
        else:
            self._emit(hosted.order())

    def place(self, hosted: Hosted, job: NodeJob, manifest: bytes) -> None:
        """Have the files of a job, after those of an attempt at it that is being stopped here."""
        self._have_place(hosted)
        job.awaits_files = True
        if hosted.has_files_of(job.id):
            job.manifest = manifest
        else:
            self._place_now(hosted, job, manifest)

    def _place_now(self, hosted: Hosted, job: NodeJob, manifest: bytes) -> None:
        job.has_files, job.manifest = True, b''
        self._emit(HearOfFiles(PlaceFiles(hosted.id, self._node_id, job.id, manifest)))

    def _have_place(self, hosted: Hosted) -> None:
        """Have the shell know of the directory, which is there since the template was made."""
        if not hosted.has_files:
            opened = hosted.opened
            self._emit(OpenFiles(opened.computation, opened.name, opened.dest_path, b''))
            hosted.has_files = True

    def release(self, hosted: Hosted) -> None:
        """Let go of the files of jobs that have left or ended in this turn."""
        if hosted.released:
            transfers, hosted.released = hosted.released, []
            self._emit(ReleaseFiles(hosted.id, transfers))
            for transfer in transfers:
                job = hosted.data.lacking.get(transfer)
                if job is not None and job.manifest and not hosted.has_files_of(job.id):
                    self._place_now(hosted, job, job.manifest)

    def lose_holder(self, hosted: Hosted) -> None:
        """End all transfers of a computation, but leave what its jobs have here."""
        if hosted.awaits_files:
            self.close(hosted)
            hosted.has_files = False  # whoever takes it over sends them anew
        elif hosted.has_files:
            self._emit(EndTransfers(hosted.id))

    def fetch_again(self, hosted: Hosted) -> None:
        """What was asked for while the cluster was away, nobody has heard: have it anew."""
        if hosted.awaits_files and hosted.is_served:
            self.close(hosted)
            self.open(hosted)

    def offer_again(self, hosted: Hosted) -> None:
        """Who takes the files of its jobs may know nothing of those that were offered before."""
        if hosted.has_files:
            self._emit(OfferAgain(hosted.id))

    def refuse_offers(self, hosted: Hosted) -> None:
        """Its jobs have waited long enough for somebody who takes their files."""
        hosted.offers_wait = False
        if hosted.has_files:
            self._emit(RefuseOffers(hosted.id, _NOBODY))

    def close(self, hosted: Hosted) -> None:
        """End all transfers of a computation."""
        if hosted.has_files:
            removes = hosted.awaits_files and hosted.opened.cleanup
            self._emit(CloseFiles(hosted.id, removes))

    # what is said

    def _heard(self, peer: str, message: Any, now: float) -> None:
        """The cluster says something, of a computation that is here."""
        hosted = self._hosted.get(message.computation)
        if hosted is None or hosted.scheduler != peer or hosted.state is HostedState.CLOSING:
            if isinstance(message, PlaceFiles):
                self._answer(peer, message, 'the computation is not open on this node')
        elif hosted.state is HostedState.OPENING and isinstance(message, PlaceFiles):
            self._answer(peer, message, 'the node is not ready for this cluster yet')
        else:
            self._have_place(hosted)
            self._emit(HearOfFiles(message))

    def _answer(self, peer: str, message: PlaceFiles, reason: str) -> None:
        said = FilesPlaced(message.computation, message.node, message.transfer, reason)
        self._emit(Send(peer, said))

    def _to_say(self, event: FilesToSay, now: float) -> None:
        message = event.message
        hosted = self._hosted.get(message.computation)
        if hosted is None or hosted.state is HostedState.CLOSING or hosted.orphaned:
            return
        if isinstance(message, FilesPlaced) and message.transfer >= OWN_FILES:
            self._placed(hosted, message)
        else:
            self._emit(Send(hosted.scheduler, message))

    def _placed(self, hosted: Hosted, message: FilesPlaced) -> None:
        if message.transfer == OWN_FILES:
            if hosted.state is HostedState.OPENING:
                if message.reason:
                    self._failed(hosted, message.reason)
                elif hosted.awaits_files:
                    hosted.awaits_files = False
                    self._emit(hosted.order())
            return
        job = hosted.data.lacking.get(message.transfer)
        if job is None or not job.awaits_files or job.manifest:
            return
        job.awaits_files = False
        if message.reason:
            del hosted.data.lacking[job.id]
            reason = f'its dependencies are not on the node: {message.reason}'
            hosted.record(job, JobStatus.TERMINATED, reason=reason)
        elif hosted.data.is_ready(job):
            del hosted.data.lacking[job.id]
            enqueue(hosted, job)

    # what jobs send

    def _offered(self, event: FileOffered, now: float) -> None:
        hosted = self._hosted.get(event.computation)
        worker = hosted.workers.get(event.worker) if hosted else None
        why = ''
        if hosted is None or worker is None or not worker.held:
            why = 'its job has ended'
        elif 0 < self._limit < event.size:
            why = (
                f'it has {event.size:,} bytes and this node sends files of at most '
                f'{self._limit:,}: start dispynode with a larger --max_file_size'
            )
        elif hosted.orphaned:
            self._have_place(hosted)
            why = '' if hosted.offers_wait else _NOBODY
        else:
            job, there = worker.held[0], (event.transfer, worker.held[0].id)
            offer = OfferFile(hosted.id, self._node_id, *there, job.attempt, event.manifest)
            self._have_place(hosted)
            self._emit(Send(hosted.scheduler, offer))
        if why:
            answer = FilesPlaced(event.computation, self._node_id, event.transfer, why)
            self._emit(HearOfFiles(answer))
