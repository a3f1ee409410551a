"""What is said in one line of a job that failed."""

from nodeserver.core.errors import ProtocolError
from nodeserver.wire.outcome import decode_outcome


def last_line(text: str) -> str:
    """What a traceback comes to."""
    return text.rstrip().rpartition('\n')[2]


def failure(outcome: bytes, reason: str) -> str:
    """Why an attempt failed: what its node says of it, or what its function raised."""
    return reason or last_line(failure_text(outcome, ''))


def failure_text(outcome: bytes, reason: str) -> str:
    """The same in full: with the traceback of the user's frames, if there is one."""
    try:
        raised = decode_outcome(outcome)[0].exception if outcome else ''
    except ProtocolError as error:  # a node's fault, and no reason to try less
        raised = str(error)
    return '\n'.join(filter(None, (reason, raised)))
