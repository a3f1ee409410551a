"""Files in a world of one thread: the shells of `io/nodefiles.py` and `dispy_nb/files.py`.

    ClusterFiles: Sender ── FileBlocks ──▶ Receiver :NodeFiles      own files, jobs', send_file
                  Receiver ◀── FileBlocks ── Sender                 what jobs send

There is no disk, and a manifest is the sizes of its files, as b'100,5000'.  What arrives is
compared with what was sent; looking and writing take a moment each, as in their thread one after
the other.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from nodeserver.core import effects as do
from nodeserver.core import events as seen
from nodeserver.core import filemessages as f
from nodeserver.core import recoveryeffects as keep
from nodeserver.core.errors import ProtocolError
from nodeserver.core.transfer import Incoming, Outgoing, Piece
from tests.support.agenda import Agenda, Program
from tests.support.promises import Promise, broken

WINDOW = 4000  # bytes, instead of some MiB
_MOMENT = 0.003
_GONE = 'these files are not offered any more'

Key = tuple[int, str, int]  # computation, node, transfer
Say = Callable[[f.FileMessage], None]


def sizes_of(manifest: bytes) -> list[int]:
    """The sizes of the files that are offered."""
    return [int(size) for size in manifest.split(b',')] if manifest else []


def _key(message: Any) -> Key:
    return message.computation, message.node, message.transfer


def _content(key: Key, piece: Piece) -> bytes:
    file, offset, length = piece
    return f'{key[0]} {key[2]} {file} {offset} '.encode()[:length].ljust(length)


@dataclass
class Mishaps:
    """How often a disk is full or a file was changed, in all programs of a world."""

    random: random.Random
    chance: float = 0.02

    def happen(self) -> bool:
        """Whether one does, now."""
        return self.chance > 0 and self.random.random() < self.chance


@dataclass
class Manifests:
    """What everything in a world needs of files."""

    own: dict[int, bytes] = field(default_factory=dict)  # of computations
    of_jobs: dict[tuple[int, int], bytes] = field(default_factory=dict)


class _Thread:
    """Does one thing after the other, each in a moment."""

    def __init__(self, agenda: Agenda, program: Program, mishaps: Mishaps) -> None:
        self.agenda, self.program, self.mishaps = agenda, program, mishaps
        self._free_at = 0.0

    def then(self, call: Callable[..., object], *args: Any) -> None:
        """Do something after all that was given to it."""
        now = self.agenda.now
        self._free_at = max(now, self._free_at) + self.mishaps.random.uniform(0.0001, _MOMENT)
        self.agenda.later(self._free_at - now, self.program, call, *args)


class _Arrival:
    """One transfer on its way."""

    def __init__(self, sizes: list[int], fetching: int) -> None:
        self.sizes, self.fetching = sizes, fetching
        self.incoming: Incoming | None = None
        self.ungranted = self.owed = 0


class Receiver:
    """As `io/filereceiving.py`."""

    def __init__(self, thread: _Thread, say: Say, placed: Callable[[Key, str], None]) -> None:
        self._thread, self._say, self._placed = thread, say, placed
        self.arrivals: dict[Key, _Arrival] = {}
        self._fetchings = count(1)

    def place(self, key: Key, sizes: list[int]) -> None:
        """Have these files; `placed` is told."""
        if key in self.arrivals:
            broken(Promise.PIECES, f'transfer {key} is begun while it is going on')
        arrival = self.arrivals[key] = _Arrival(sizes, next(self._fetchings))
        self._thread.then(self._looked, key, arrival)

    def _looked(self, key: Key, arrival: _Arrival) -> None:
        if self.arrivals.get(key) is not arrival:
            return
        draw = self._thread.mishaps.random
        wanted = [file for file in range(len(arrival.sizes)) if draw.random() < 0.9]
        arrival.incoming = Incoming(arrival.sizes, wanted)
        arrival.ungranted = sum(arrival.sizes[file] for file in wanted)
        if wanted:
            self._grant(key, arrival, wanted, WINDOW)
        else:
            self._end(key, arrival, '')

    def blocks(self, message: f.FileBlocks) -> None:
        """Take pieces; those of a transfer that has ended are dropped."""
        key, arrival = self._meant(message)
        if arrival is not None:
            self._thread.then(self._write, key, arrival, message)

    def _write(self, key: Key, arrival: _Arrival, message: f.FileBlocks) -> None:
        if self.arrivals.get(key) is not arrival:
            return
        if self._thread.mishaps.happen():
            self._end(key, arrival, 'the disk is full')
            return
        if arrival.incoming is None:
            broken(Promise.PIECES, f'transfer {key}: something came before it was asked for')
        rows = zip(message.ids, message.offsets, message.contents, strict=True)
        for file, offset, content in rows:
            try:
                arrival.incoming.take(file, offset, len(content))
            except ProtocolError as error:
                broken(Promise.PIECES, f'transfer {key}: {error}')
            if bytes(content) != _content(key, (file, offset, len(content))):
                broken(Promise.PIECES, f'transfer {key}: wrong content at {offset} of {file}')
        if arrival.incoming.is_done:
            self._end(key, arrival, '')
            return
        arrival.owed += sum(map(len, message.contents))
        if arrival.ungranted and arrival.owed >= WINDOW // 4:
            self._grant(key, arrival, [], arrival.owed)

    def _grant(self, key: Key, arrival: _Arrival, wanted: list[int], credit: int) -> None:
        arrival.owed = 0
        arrival.ungranted = max(0, arrival.ungranted - credit)
        self._say(f.FetchFiles(*key, wanted, credit, arrival.fetching))

    def _end(self, key: Key, arrival: _Arrival, reason: str) -> None:
        del self.arrivals[key]
        self._thread.then(self._placed, key, reason)

    def fail(self, message: f.FilesFailed) -> None:
        """End a transfer, because of the other side."""
        key, arrival = self._meant(message)
        if arrival is not None:
            self._end(key, arrival, message.reason)

    def _meant(self, message: f.FileBlocks | f.FilesFailed) -> tuple[Key, _Arrival | None]:
        key = _key(message)
        arrival = self.arrivals.get(key)
        is_meant = arrival is not None and arrival.fetching == message.fetching
        return key, arrival if is_meant else None

    def forget(self, wanted: Callable[[Key], bool]) -> None:
        """End the transfers that are meant; nobody is told."""
        for key in [key for key in self.arrivals if wanted(key)]:
            del self.arrivals[key]


class _Reader:
    """Reads an offer for one receiver."""

    def __init__(self, sizes: list[int], fetching: int) -> None:
        self.fetching = fetching
        self.outgoing = Outgoing(sizes)
        self.is_reading = False


class Sender:
    """As `io/filesending.py`."""

    def __init__(self, thread: _Thread, say: Say, find: Callable[[Key], bytes | None]) -> None:
        self._thread, self._say, self._find = thread, say, find
        self.readers: dict[Key, _Reader] = {}

    def fetch(self, message: f.FetchFiles) -> None:
        """Send what is asked for, as far as the credit goes."""
        key = _key(message)
        reader = self.readers.get(key)
        if reader is None or reader.fetching != message.fetching:
            manifest = self._find(key)
            if manifest is None or max(message.wanted, default=-1) >= len(sizes_of(manifest)):
                self._say(f.FilesFailed(*key, _GONE, message.fetching))
                return
            reader = self.readers[key] = _Reader(sizes_of(manifest), message.fetching)
        reader.outgoing.grant(message.wanted, message.credit)
        self._go_on(key, reader)

    def _go_on(self, key: Key, reader: _Reader) -> None:
        if reader.is_reading:
            return
        pieces = reader.outgoing.take()
        if pieces:
            reader.is_reading = True
            self._thread.then(self._read, key, reader, pieces)
        elif reader.outgoing.is_done:
            del self.readers[key]

    def _read(self, key: Key, reader: _Reader, pieces: list[Piece]) -> None:
        reader.is_reading = False
        if self.readers.get(key) is not reader:
            return
        if self._thread.mishaps.happen():
            del self.readers[key]
            reason = 'it was changed before it was sent'
            self._say(f.FilesFailed(*key, reason, reader.fetching))
            return
        files, offsets, _ = zip(*pieces, strict=True)
        columns = list(files), list(offsets), [_content(key, piece) for piece in pieces]
        self._say(f.FileBlocks(*key, *columns, reader.fetching))
        self._go_on(key, reader)

    def forget(self, wanted: Callable[[Key], bool]) -> None:
        """End the transfers that are meant."""
        for key in [key for key in self.readers if wanted(key)]:
            del self.readers[key]


_Ends = tuple[Sender, Receiver]


def _left(named: dict[str, dict[Any, Any]]) -> dict[str, int]:
    return {name: len(things) for name, things in named.items() if things}


class NodeFiles:
    """The files of a node: as `io/nodefiles.py`, and it watches what the core wants of it."""

    def __init__(
        self,
        around: tuple[Agenda, Program, Mishaps],
        node: str,
        manifests: Manifests,
        post: Callable[[seen.Event], None],
        is_held: Callable[[int, int], bool],  # whether a job's process may still need its files
    ) -> None:
        self._node, self._manifests, self._post, self._is_held = node, manifests, post, is_held
        thread = _Thread(*around)
        self.sender = Sender(thread, self._say, self._offered)
        self.receiver = Receiver(thread, self._say, self._placed)
        self._mishaps = around[2]
        self._places: dict[int, dict[int, str]] = {}  # by computation: how each transfer stands
        self._offers: dict[tuple[int, int], tuple[seen.FileOffered, Callable[[], None]]] = {}
        self._count = 0
        self._hear: dict[type[Any], Callable[[Any], None]] = {
            f.PlaceFiles: self._place,
            f.FileBlocks: self.receiver.blocks,
            f.FilesFailed: self.receiver.fail,
            f.FetchFiles: self.sender.fetch,
            f.FilesPlaced: self._taken,
        }

    def performers(self) -> dict[type[Any], Callable[[Any], None]]:
        """What is called for each effect."""
        return {
            do.OpenFiles: self._open,
            do.HearOfFiles: lambda e: self._hear[type(e.message)](e.message),
            do.ReleaseFiles: self._release,
            do.EndTransfers: self._end_transfers,
            do.CloseFiles: self._close,
            keep.OfferAgain: self._offer_again,
            keep.RefuseOffers: lambda e: self._answer_all(e.computation),
        }

    def offer(self, computation: int, worker: int, size: int, go_on: Callable[[], None]) -> None:
        """A job sends a file, and waits for the answer."""
        self._count += 1
        manifest = b'%d' % size
        offered = seen.FileOffered(computation, worker, self._count, manifest, size)
        self._offers[computation, self._count] = offered, go_on
        self._post(offered)

    def look_at_template(self, computation: int) -> None:
        """A template is about to be made."""
        if self._manifests.own.get(computation) and not self._is_here(computation, f.OWN_FILES):
            broken(Promise.FILES, f'{computation} is opened before its own files are there')

    def look_at_jobs(self, computation: int, jobs: Iterable[int]) -> None:
        """Jobs are given to a process, or one is begun."""
        for job in jobs:
            if (computation, job) in self._manifests.of_jobs and not self._is_here(
                computation, job
            ):
                broken(Promise.FILES, f'job {job} of {computation} does not find its files')

    def left(self) -> dict[str, int]:
        """What is kept of transfers and offers."""
        coming = {'arrivals': self.receiver.arrivals, 'readers': self.sender.readers}
        jobs = {
            (computation, transfer): state
            for computation, place in self._places.items()
            for transfer, state in place.items()
            if transfer > f.OWN_FILES
        }
        return _left({**coming, 'offers': self._offers, 'files of jobs': jobs})

    @property
    def places(self) -> int:
        """How many computations have a directory here."""
        return len(self._places)

    def _is_here(self, computation: int, transfer: int) -> bool:
        return self._places.get(computation, {}).get(transfer) == 'here'

    def _say(self, message: f.FileMessage) -> None:
        self._post(seen.FilesToSay(message))

    def _open(self, effect: do.OpenFiles) -> None:
        key = effect.computation, self._node, f.OWN_FILES
        if effect.computation in self._places:
            broken(Promise.FILES, f'the directory of {effect.computation} is made twice')
        if self._mishaps.happen():
            self._placed(key, 'no directory for it')
            return
        self._places[effect.computation] = {}
        self._place(f.PlaceFiles(*key, effect.manifest))

    def _place(self, message: f.PlaceFiles) -> None:
        place = self._places.get(message.computation)
        if place is None:
            self._placed(_key(message), 'the computation is not open on this node')
            return
        if place.get(message.transfer, 'failed') != 'failed':
            broken(Promise.RELEASED, f'transfer {_key(message)} comes again before it was released')
        place[message.transfer] = 'coming'
        self.receiver.place(_key(message), sizes_of(message.manifest))

    def _placed(self, key: Key, reason: str) -> None:
        place = self._places.get(key[0])
        if place is not None and place.get(key[2]) == 'coming':
            place[key[2]] = 'failed' if reason else 'here'
        self._say(f.FilesPlaced(*key, reason))

    def _release(self, effect: do.ReleaseFiles) -> None:
        computation, transfers = effect.computation, set(effect.transfers)
        place = self._places.get(computation)
        self.receiver.forget(lambda key: key[0] == computation and key[2] in transfers)
        for transfer in effect.transfers:
            if self._is_held(computation, transfer):
                broken(Promise.RELEASED, f'job {transfer} of {computation} needs its files yet')
            if place is not None and place.pop(transfer, None) is None:
                broken(Promise.RELEASED, f'files of {transfer} of {computation} cannot go')

    def _close(self, effect: do.CloseFiles) -> None:
        self._places.pop(effect.computation, None)
        self._end_transfers(effect)
        self._answer_all(effect.computation)

    def _end_transfers(self, effect: do.EndTransfers | do.CloseFiles) -> None:
        computation = effect.computation
        self.receiver.forget(lambda key: key[0] == computation)
        self.sender.forget(lambda key: key[0] == computation)

    def _offer_again(self, effect: keep.OfferAgain) -> None:
        for offer in [offer for offer in self._offers if offer[0] == effect.computation]:
            self._stop_sending(offer)
            self._post(self._offers[offer][0])

    def _answer_all(self, computation: int) -> None:
        for offer in [offer for offer in self._offers if offer[0] == computation]:
            self._offers.pop(offer)[1]()

    def _offered(self, key: Key) -> bytes | None:
        offered, _ = self._offers.get((key[0], key[2]), (None, None))
        return offered.manifest if offered is not None else None

    def _taken(self, message: f.FilesPlaced) -> None:
        offer = message.computation, message.transfer
        _, go_on = self._offers.pop(offer, (None, None))
        if go_on is not None:
            self._stop_sending(offer)
            go_on()

    def _stop_sending(self, offer: tuple[int, int]) -> None:
        self.sender.forget(lambda key: (key[0], key[2]) == offer)


class ClusterFiles:
    """The files of a cluster: as `dispy_nb/files.py`."""

    def __init__(
        self,
        around: tuple[Agenda, Program, Mishaps],
        computation: int,
        manifests: Manifests,
        post: Callable[[seen.Event], None],
    ) -> None:
        self._computation, self._post, self._manifests = computation, post, manifests
        thread = _Thread(*around)
        self.sender = Sender(thread, self._say, self._source)
        self.receiver = Receiver(thread, self._say, self._received)
        self.sending: dict[tuple[str, int], bytes] = {}
        self._of_jobs: dict[int, bytes] = {}
        self._left_behind: dict[int, bytes] = {}  # of jobs that another program may collect
        self._of_nodes: dict[str, bytes] = {}
        self._sent = 0
        self.is_closed = False
        self._hear: dict[type[Any], Callable[[Any], None]] = {
            f.FetchFiles: self.sender.fetch,
            f.FilesPlaced: self._answered,
            f.OfferFile: self._offered,
            f.FileBlocks: self.receiver.blocks,
            f.FilesFailed: self._failed,
        }

    def assign(self, jobs: Iterable[int], manifest: bytes) -> None:
        """Note the files of jobs that are about to be submitted.

        A job of that number may have been lost with a program that was killed before it had put
        it on record: it had files, or had none.
        """
        for job in jobs:
            self._manifests.of_jobs.pop((self._computation, job), None)
            if manifest:
                self._of_jobs[job] = manifest
                self._manifests.of_jobs[self._computation, job] = manifest

    def inherit(self, before: 'ClusterFiles', jobs: Iterable[int]) -> None:
        """Offer the files of jobs of a cluster of before: they lie where they lay."""
        known = before._of_jobs | before._left_behind
        self._of_jobs = {job: known[job] for job in jobs if job in known}
        self._sent = before._sent

    def assign_to_node(self, node: str) -> bytes:
        """Have a node get one file more than the others; its manifest."""
        own = self._manifests.own.get(self._computation, b'')
        self._of_nodes[node] = own + b',70' if own else b''
        return self._of_nodes[node]

    def settle(self, jobs: Iterable[int]) -> None:
        """Jobs have ended."""
        for job in jobs:
            if self._of_jobs.pop(job, None) is not None:
                self.sender.forget(lambda key, job=job: key[2] == job)

    def leave(self, jobs: list[int]) -> None:
        """Jobs were not reached: their files lie where they lay."""
        known = self._of_jobs
        self._left_behind.update((job, known[job]) for job in jobs if job in known)
        self.settle(jobs)

    def send(self, node: str, manifest: bytes) -> None:
        """Have files placed on a node, as `send_file` does."""
        self._sent -= 1
        self.sending[node, self._sent] = manifest
        self._say(f.PlaceFiles(self._computation, node, self._sent, manifest))

    def perform(self, effect: do.HearOfFiles) -> None:
        """Take in what a node says of files."""
        if not self.is_closed:
            self._hear[type(effect.message)](effect.message)

    def close(self) -> None:
        """End all transfers."""
        self.is_closed = True
        self.sending.clear()
        self.sender.forget(lambda key: True)
        self.receiver.forget(lambda key: True)

    def left(self) -> dict[str, int]:
        """What is kept of transfers that have ended."""
        coming = {'arrivals': self.receiver.arrivals, 'readers': self.sender.readers}
        return _left({**coming, 'sending': self.sending, 'files of jobs': self._of_jobs})

    def _say(self, message: f.FileMessage) -> None:
        if not self.is_closed:
            self._post(seen.FilesToSay(message))

    def _source(self, key: Key) -> bytes | None:
        _, node, transfer = key
        if transfer == f.OWN_FILES:
            return self._of_nodes.get(node) or self._manifests.own.get(self._computation, b'')
        if transfer > f.OWN_FILES:
            return self._of_jobs.get(transfer)
        return self.sending.get((node, transfer))

    def _answered(self, message: f.FilesPlaced) -> None:
        self.sending.pop((message.node, message.transfer), None)

    def _failed(self, message: f.FilesFailed) -> None:
        if message.transfer != f.OWN_FILES:
            self.receiver.fail(message)
            return
        node = message.node
        for end in (self.sender, self.receiver):
            end.forget(lambda key: key[1] == node)
        for place in [place for place in self.sending if place[0] == node]:
            del self.sending[place]

    def _offered(self, message: f.OfferFile) -> None:
        key = _key(message)
        self.receiver.forget(lambda other: other == key)
        self.receiver.place(_key(message), sizes_of(message.manifest))

    def _received(self, key: Key, reason: str) -> None:
        self._say(f.FilesPlaced(*key, reason))
