"""What a scheduler keeps of one job."""

from nodeserver.core.values import ORDINARY, JobOptions

NO_DATA: list[int] = []


class JobRecord:
    """A job that was tried, is being stopped or has a wish of its own.

    All others are an id and their bytes, also while they are with a node: thousands of records
    cost the garbage collector more than the jobs cost the core.
    """

    __slots__ = (
        'attempt',
        'failures',
        'manifest',
        'options',
        'payload',
        'pinned',
        'shared',
        'stopping',
    )

    def __init__(
        self,
        payload: bytes,
        pinned: str,
        options: JobOptions = ORDINARY,
        shared: list[int] = NO_DATA,
        manifest: bytes = b'',
    ) -> None:
        self.payload = payload
        self.pinned = pinned
        self.options = options
        self.shared = shared  # ids of its data
        self.manifest = manifest  # of its files
        self.attempt = 0
        self.failures = 0  # retries that are used up
        self.stopping = False


Entry = bytes | JobRecord


def payload_of(entry: Entry) -> bytes:
    """The arguments of a job; b'' if they are not at hand any more."""
    return entry.payload if isinstance(entry, JobRecord) else entry
