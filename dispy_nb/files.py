"""The files of one cluster: those that its nodes and jobs fetch, and those that jobs send.

HearOfFiles ──▶ FileSender, FileReceiver (on the loop's thread) ──▶ FilesToSay ──▶ scheduler
"""

import asyncio
import concurrent.futures
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dispy_nb.dependencies import NO_FILES, SourceFiles
from nodeserver.core.effects import HearOfFiles
from nodeserver.core.errors import ClusterClosed, ProtocolError
from nodeserver.core.events import Event, FilesToSay
from nodeserver.core.filemessages import (
    OWN_FILES,
    FetchFiles,
    FileBlocks,
    FileMessage,
    FilesFailed,
    FilesPlaced,
    OfferFile,
    PlaceFiles,
)
from nodeserver.io.filereceiving import FileReceiver
from nodeserver.io.filesending import FileSender, Key
from nodeserver.io.filetree import shown
from nodeserver.wire.manifest import FileEntry, decode_manifest

_log = logging.getLogger('dispy_nb')

Answer = concurrent.futures.Future[str]
"""Of a file that is sent to a node: why it was not taken, or ''."""


class ClusterFiles:
    """What a cluster offers, and what it receives; files of jobs go below `directory`."""

    def __init__(self, title: str, own: SourceFiles, post: Callable[[Event], None]) -> None:
        self.own = own
        self._title = title
        self._post = post
        self._directory = Path.cwd()
        self._lock = threading.Lock()
        self._of_nodes: dict[str, SourceFiles] = {}  # own files of nodes that have others
        self.of_jobs: dict[int, SourceFiles] = {}  # by job, of those jobs that have files
        self._sent = 0
        self._sending: dict[tuple[str, int], tuple[SourceFiles, Answer]] = {}
        self._ends: tuple[FileSender, FileReceiver] | None = None
        self._is_closed = False
        self._hear: dict[type[Any], Callable[[Any], None]] = {
            FetchFiles: self._fetched,
            FilesPlaced: self._answered,
            OfferFile: self._offered,
            FileBlocks: lambda message: self._running()[1].blocks(message),
            FilesFailed: self._failed,
        }

    # users' threads

    def assign(self, job: int, files: SourceFiles) -> None:
        """Note the files of a job that is about to be submitted."""
        self.of_jobs[job] = files

    def withdraw(self, job: int) -> None:
        """A job was not submitted after all."""
        self.of_jobs.pop(job, None)

    def assign_to_node(self, node: str, files: SourceFiles) -> bytes:
        """Note the own files of a node that has more than the others; their manifest."""
        self._of_nodes[node] = files
        return files.manifest

    def send(self, computation: int, node: str, files: SourceFiles) -> tuple[PlaceFiles, Answer]:
        """Have files placed on a node: what is to be said, and where the answer will be."""
        answer: Answer = concurrent.futures.Future()
        with self._lock:
            if self._is_closed:
                raise ClusterClosed(f'cluster {self._title} is closed: no file can be sent')
            self._sent -= 1
            self._sending[node, self._sent] = files, answer
            return PlaceFiles(computation, node, self._sent, files.manifest), answer

    # the loop's thread

    def perform(self, effect: HearOfFiles) -> None:
        """Take in what a node says of files."""
        if not self._is_closed:
            self._hear[type(effect.message)](effect.message)

    def settle(self, job: int) -> None:
        """A job has ended: nobody goes on with what was fetched of its files."""
        if self.of_jobs.pop(job, None) is not None and self._ends is not None:
            self._ends[0].forget(lambda key: key[2] == job)

    def lose(self, node: str, reason: str) -> None:
        """Nothing goes on between this cluster and a node any more.

        What is its own stays assigned: one that is busy now is opened later, without being asked.
        """
        if self._ends is not None:
            for end in self._ends:
                end.forget(lambda key: key[1] == node)
        for place in [place for place in list(self._sending) if place[0] == node]:
            self._sending.pop(place)[1].set_result(reason)

    def close(self) -> None:
        """End all transfers."""
        with self._lock:
            self._is_closed = True
        for node in {node for node, _ in list(self._sending)}:
            self.lose(node, 'the cluster was closed')
        if self._ends is not None:
            for end in self._ends:
                end.close()

    def _running(self) -> tuple[FileSender, FileReceiver]:
        if self._ends is None:
            loop = asyncio.get_running_loop()
            self._ends = (
                FileSender(loop, self._say, self._source),
                FileReceiver(loop, self._say, self._received),
            )
        return self._ends

    def _say(self, message: FileMessage) -> None:
        self._post(FilesToSay(message))

    def _source(self, key: Key) -> SourceFiles | None:
        _, node, transfer = key
        if transfer == OWN_FILES:
            return self._of_nodes.get(node, self.own)
        if transfer > OWN_FILES:
            return self.of_jobs.get(transfer)
        return self._sending.get((node, transfer), (None,))[0]

    def _fetched(self, message: FetchFiles) -> None:
        self._running()[0].fetch(message)

    def _answered(self, message: FilesPlaced) -> None:
        _, answer = self._sending.pop((message.node, message.transfer), (NO_FILES, None))
        if answer is not None:
            self._running()[0].forget(lambda key: key == _key(message))
            answer.set_result(message.reason)

    def _failed(self, message: FilesFailed) -> None:
        if message.transfer == OWN_FILES:
            self.lose(message.node, message.reason)
        else:
            self._running()[1].fail(message)

    def _offered(self, message: OfferFile) -> None:
        """A job sends a file: fetch it (H01, H02).

        It is offered again where it may not have been heard of: what was fetched is of no use.
        """
        key = _key(message)
        self._running()[1].forget(lambda other: other == key)
        try:
            entries = decode_manifest(message.manifest)
        except ProtocolError as error:
            self._received(key, f'it cannot be stored at the client: {error}')
            return
        self._running()[1].place(key, self._directory, entries, _nowhere)

    def _received(self, key: Key, reason: str) -> None:
        if reason:
            _log.warning('%s: a file that a job sends was not taken: %s', self._title, reason)
        self._say(FilesPlaced(*key, reason))


def _key(message: Any) -> Key:
    return message.computation, message.node, message.transfer


def _nowhere(entry: FileEntry) -> int:
    return -1


def describe(path: str) -> str:
    """How people are told of a file."""
    return shown(os.fsencode(path))
