"""What is said in one line of a job that failed."""

from nodeserver.core.errors import ProtocolError
from nodeserver.wire.outcome import decode_outcome


def last_line(text: str) -> str:
    """What a traceback comes to."""
    return text.rstrip().rpartition('\n')[2]


def failure(outcome: bytes, reason: str) -> str:
    """Why an attempt failed: what its node says of it, or what its function raised."""
    try:
        return reason or last_line(decode_outcome(outcome)[0].exception)
    except ProtocolError as error:  # a node's fault, and no reason to try less
        return str(error)
