"""The files of a node: what its computations and jobs need, and what its jobs send.

manifest ──▶ limits, places of other jobs' files ──▶ FileReceiver ──▶ FilesPlaced
OfferedFile of a job ──▶ FileSender ──▶ FilesPlaced ──▶ the job goes on
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from nodeserver.core.effects import CloseFiles, EndTransfers, HearOfFiles, OpenFiles, ReleaseFiles
from nodeserver.core.errors import ProtocolError, UsageError
from nodeserver.core.events import Event, FileOffered, FilesToSay
from nodeserver.core.filemessages import (
    OWN_FILES,
    FetchFiles,
    FileBlocks,
    FileMessage,
    FilesFailed,
    FilesPlaced,
    PlaceFiles,
)
from nodeserver.core.recoveryeffects import OfferAgain, RefuseOffers
from nodeserver.io.directories import Directories
from nodeserver.io.filereceiving import FileReceiver, refusal
from nodeserver.io.filesending import FileSender, Key
from nodeserver.io.filetree import FileTree, open_origin, shown
from nodeserver.io.offeredfile import OfferedFile
from nodeserver.wire.manifest import FileEntry, decode_manifest, encode_manifest

_log = logging.getLogger(__name__)


class _Lying:
    """A file in a computation's directory that was put there."""

    __slots__ = ('entry', 'is_here', 'users')

    def __init__(self, entry: FileEntry) -> None:
        self.entry = entry
        self.users: set[int] = set()  # transfers
        self.is_here = False


class _Place:
    """A computation's directory, and the files that were put into it."""

    def __init__(self, root: Path, base: Path | None) -> None:
        self.root, self.base = root, base  # the one above that `FileTree` may trust
        self.files: dict[bytes, _Lying] = {}
        self._used: dict[int, list[_Lying]] = {}  # by each transfer
        self.waiting: deque[tuple[Key, list[FileEntry]]] = deque()

    def obstacle(self, transfer: int, entries: Sequence[FileEntry]) -> tuple[bool, str]:
        """Whether a transfer has to wait for another one; or why it cannot be at all."""
        waits = False
        for entry in entries:
            lying = self.files.get(entry.path)
            if lying is None or transfer <= OWN_FILES:
                continue
            if lying.is_here and lying.entry.digest == entry.digest:
                continue
            if any(user <= OWN_FILES for user in lying.users):  # they stay as long as it does
                return False, f"{shown(entry.path)} would replace the computation's own file"
            waits = True
        return waits, ''

    def enter(self, transfer: int, entries: Sequence[FileEntry]) -> None:
        """Note who uses these files."""
        used = self._used[transfer] = []
        for entry in entries:
            lying = self.files.get(entry.path)
            if lying is None or lying.entry.digest != entry.digest:
                lying = self.files[entry.path] = _Lying(entry)
            lying.users.add(transfer)
            used.append(lying)

    def arrived(self, transfer: int) -> None:
        """All files of a transfer lie in their places."""
        for lying in self._used.get(transfer, ()):
            lying.is_here = True

    def leave(self, transfer: int) -> list[bytes]:
        """Forget a user; the files that nobody uses any more."""
        unused = []
        for lying in self._used.pop(transfer, ()):
            lying.users.discard(transfer)
            path = lying.entry.path
            if not lying.users and self.files.get(path) is lying:
                del self.files[path]
                unused.append(path)
        return unused


class NodeFiles:
    """Puts files into the directories of computations, and sends those of jobs."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        post: Callable[[Event], None],
        directories: Directories,
        node_id: str,
        limit: int,  # bytes of a file; 0: none
    ) -> None:
        self._loop, self._post = loop, post
        self._directories, self._node_id, self._limit = directories, node_id, limit
        self._places: dict[int, _Place] = {}
        self._offers: dict[tuple[int, int], OfferedFile] = {}  # computation, transfer
        self._numbers = count(1)
        self._receiver = FileReceiver(loop, self._say, self._placed, makes_roots=True)
        self._sender = FileSender(loop, self._say, self._offered)
        self._hear: dict[type[Any], Callable[[Any], None]] = {
            PlaceFiles: self._place,
            FileBlocks: self._receiver.blocks,
            FilesFailed: self._receiver.fail,
            FetchFiles: self._sender.fetch,
            FilesPlaced: self._taken,
        }

    # what the core wants

    def open(self, effect: OpenFiles) -> None:
        """Make the computation's directory, and have its own files put there."""
        key = (effect.computation, self._node_id, OWN_FILES)
        try:
            root = self._directories.make(effect.computation, effect.name, effect.dest_path)
        except (OSError, UsageError) as error:
            self._placed(key, f'no directory for it: {error}')
            return
        base = self._directories.base(root) if self._directories.is_shared else None
        self._places[effect.computation] = _Place(root, base)
        self._place(PlaceFiles(*key, effect.manifest))

    def hear(self, effect: HearOfFiles) -> None:
        """Take in what the other side says of files."""
        self._hear[type(effect.message)](effect.message)

    def release(self, effect: ReleaseFiles) -> None:
        """Remove the files of jobs that have ended, but for those that others use (F13)."""
        place = self._places.get(effect.computation)
        if place is None:
            return
        computation, transfers = effect.computation, set(effect.transfers)
        self._receiver.forget(lambda key: key[0] == computation and key[2] in transfers)
        place.waiting = deque(w for w in place.waiting if w[0][2] not in transfers)
        self._leave(place, effect.transfers)

    def _leave(self, place: _Place, transfers: Sequence[int]) -> None:
        """Remove what only these transfers have put there."""
        unused = [path for transfer in transfers for path in place.leave(transfer)]
        if unused:
            removed = self._receiver.then(lambda: _remove(place, unused))
            removed.add_done_callback(lambda _: self._go_on(place))

    def end_transfers(self, effect: EndTransfers | CloseFiles) -> None:
        """End what is under way, in both directions; what jobs offer waits."""
        computation = effect.computation
        self._receiver.forget(lambda key: key[0] == computation)
        self._sender.forget(lambda key: key[0] == computation)

    def close_computation(self, effect: CloseFiles) -> None:
        """End all transfers of a computation; its directory goes with its template."""
        computation = effect.computation
        place = self._places.pop(computation, None)
        self.end_transfers(effect)
        self._answer_all(computation, 'the client has closed the cluster, or is gone')
        if place is not None and effect.removes:
            paths, directories = place.leave(OWN_FILES), self._directories
            self._receiver.then(lambda: _remove_all(place, paths, directories))
            directories.leave(computation)

    def offer(self, computation: int, worker: int, fd: int) -> None:
        """A job waits at the other end of a socket for a file to be sent."""
        try:
            file = OfferedFile(fd, next(self._numbers), worker)
        except (OSError, ValueError, msgspec.DecodeError) as error:
            _log.warning('a file that a job sends cannot be taken: %s', error)
            return
        self._offers[computation, file.number] = file
        self._loop.add_reader(file.fileno(), self._withdrawn, (computation, file.number))
        self._tell(computation, file)

    def offer_again(self, effect: OfferAgain) -> None:
        """Have all files taken that wait for it, from their beginning."""
        for offer in [offer for offer in self._offers if offer[0] == effect.computation]:
            self._stop_sending(offer)
            self._tell(effect.computation, self._offers[offer])

    def refuse_offers(self, effect: RefuseOffers) -> None:
        """Let jobs go on whose files nobody takes."""
        self._answer_all(effect.computation, effect.reason)

    def close(self) -> None:
        """End everything."""
        for offer in list(self._offers):
            self._pop_offer(offer).answer('the node ends')
        self._sender.close()
        self._receiver.close()

    # inside

    def _say(self, message: FileMessage) -> None:
        self._post(FilesToSay(message))

    def _place(self, message: PlaceFiles) -> None:
        key, place = _key(message), self._places.get(message.computation)
        try:
            entries = decode_manifest(message.manifest)
        except ProtocolError as error:
            self._placed(key, str(error))
            return
        why = refusal(entries, self._limit, 'this node')
        if place is None or why:
            self._placed(key, why or 'the computation is not open on this node')
            return
        place.waiting.append((key, entries))
        self._go_on(place)

    def _go_on(self, place: _Place) -> None:
        """Begin the transfers that need not wait for others' files to go."""
        waiting, place.waiting = place.waiting, deque()
        for key, entries in waiting:
            waits, why = place.obstacle(key[2], entries)
            if why:
                self._placed(key, why)
            elif waits:
                place.waiting.append((key, entries))
            else:
                self._begin(key, place, entries)

    def _begin(self, key: Key, place: _Place, entries: list[FileEntry]) -> None:
        place.enter(key[2], entries)
        others = [other for other in self._places.values() if other is not place]

        def elsewhere(entry: FileEntry) -> int:
            return _open_copy(others, entry)

        self._receiver.place(key, place.root, entries, elsewhere, place.base)

    def _placed(self, key: Key, reason: str) -> None:
        place = self._places.get(key[0])
        if place is not None:
            if not reason:
                place.arrived(key[2])
            elif key[2] > OWN_FILES:
                self._leave(place, [key[2]])  # a job's, of which some may lie there
            elif key[2] < OWN_FILES:
                place.leave(key[2])  # whatever had its name before is still there
            self._go_on(place)
        self._say(FilesPlaced(*key, reason))

    # what jobs send

    def _offered(self, key: Key) -> OfferedFile | None:
        return self._offers.get((key[0], key[2]))

    def _taken(self, message: FilesPlaced) -> None:
        self._end_offer((message.computation, message.transfer), message.reason)

    def _withdrawn(self, offer: tuple[int, int]) -> None:
        """The job has ended, or waits no longer: its file must not appear later (C12)."""
        computation, transfer = offer
        self._end_offer(offer, '')
        reason = 'the job has ended, or does not wait for it any more'
        self._say(FilesFailed(computation, self._node_id, transfer, reason))

    def _tell(self, computation: int, file: OfferedFile) -> None:
        manifest, size = encode_manifest(file.entries), file.entries[0].size
        self._post(FileOffered(computation, file.worker, file.number, manifest, size))

    def _answer_all(self, computation: int, reason: str) -> None:
        for offer in [offer for offer in self._offers if offer[0] == computation]:
            self._pop_offer(offer).answer(reason)

    def _end_offer(self, offer: tuple[int, int], reason: str) -> None:
        if offer in self._offers:
            self._stop_sending(offer)
            self._pop_offer(offer).answer(reason)

    def _stop_sending(self, offer: tuple[int, int]) -> None:
        self._sender.forget(lambda key: (key[0], key[2]) == offer)

    def _pop_offer(self, offer: tuple[int, int]) -> OfferedFile:
        file = self._offers.pop(offer)
        self._loop.remove_reader(file.fileno())
        return file


def _key(message: Any) -> Key:
    return message.computation, message.node, message.transfer


def _open_copy(places: Sequence[_Place], entry: FileEntry) -> int:
    """Open what should have this content: the sender's file, if it can be reached, or a copy.

    Whoever reads it compares the digest.
    """
    if not entry.digest:
        return -1
    if entry.origin:
        fd = open_origin(entry)
        if fd >= 0:
            return fd
    for place in places:
        lying = place.files.get(entry.path)
        if lying is not None and lying.is_here and lying.entry.digest == entry.digest:
            tree = FileTree(place.root, base=place.base)
            try:
                return tree.open(entry.path)
            except OSError:
                continue
            finally:
                tree.close()
    return -1


def _remove(place: _Place, paths: Sequence[bytes]) -> None:
    try:
        tree = FileTree(place.root, base=place.base)
        for path in paths:
            tree.remove(path)
        tree.close()
    except OSError:  # the whole directory is gone
        return


def _remove_all(place: _Place, paths: Sequence[bytes], directories: Directories) -> None:
    _remove(place, paths)
    directories.remove_empty(place.root)
