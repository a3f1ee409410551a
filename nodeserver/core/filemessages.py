"""Messages about files, which travel between a cluster and a node through the scheduler.

Who has files offers them by a *manifest* (`wire.manifest`), who is to get them fetches what it
lacks, as much at a time as it can take, and says when all lie in their places.  Both directions
speak the same way:

    cluster ── OpenComputation, RunJobs, PlaceFiles: manifests ──▶ node     depends, send_file
            ◀── FetchFiles: these, so many bytes ──
            ── FileBlocks ──▶            ... ◀── FetchFiles: so many bytes more ──
            ◀── FilesPlaced ──           or ── FilesFailed ──▶

    cluster ◀── OfferFile: manifest ── node                                 dispy_send_file
            ── FetchFiles ──▶  ◀── FileBlocks ──  ── FilesPlaced ──▶

A transfer is named by whoever offers: a cluster's own files are 0, a job's files have the job's
id, those of `send_file` count down from -1; a node numbers what its jobs send.  The same one may
be fetched again, when a job comes back to a node: the receiver numbers its fetchings, and what was
sent for an earlier one is not meant for it.
"""

from nodeserver.core.values import value

OWN_FILES = 0  # the transfer of what belongs to the computation itself


@value
class OfferFile:
    """A job sends a file to its client (H01)."""

    computation: int
    node: str
    transfer: int
    job: int
    attempt: int
    manifest: bytes


@value
class PlaceFiles:
    """Have these files in the computation's directory on a node (H07)."""

    computation: int
    node: str
    transfer: int
    manifest: bytes


@value
class FetchFiles:
    """Send these files of a manifest, or go on with what was asked for; so many bytes more."""

    computation: int
    node: str
    transfer: int
    wanted: list[int]
    credit: int
    fetching: int = 0


@value
class FileBlocks:
    """Pieces of files, in order; `ids` are places in the manifest."""

    computation: int
    node: str
    transfer: int
    ids: list[int]
    offsets: list[int]
    contents: list[bytes]
    fetching: int = 0


@value
class FilesPlaced:
    """All files lie in their places, or (`reason`) they do not and will not be."""

    computation: int
    node: str
    transfer: int
    reason: str


@value
class FilesFailed:
    """What was offered cannot be sent after all."""

    computation: int
    node: str
    transfer: int
    reason: str
    fetching: int = 0  # 0: whichever it is; who withdraws an offer knows of no fetching


FileMessage = OfferFile | PlaceFiles | FetchFiles | FileBlocks | FilesPlaced | FilesFailed
