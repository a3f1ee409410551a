"""What running jobs print, on its way to their client: one piece at a time.

    node ── JobsOutput ──▶ scheduler ── the current attempts ──▶ cluster
    node ◀── the same ── scheduler ◀── OutputTaken, when there is room ── cluster

A node sends the next piece of a computation once the last was taken, so that what jobs print is
never more than one small message ahead of anything else, however fast they print.
"""

from nodeserver.core.values import value


@value
class JobsOutput:
    """What running jobs have printed since the last time; a row for each stream of a job.

    `starts` says at which byte of the stream a text begins: bytes between two texts are left out.
    """

    computation: int
    node: str
    ids: list[int]
    attempts: list[int]
    streams: list[int]  # STDOUT or STDERR
    starts: list[int]
    texts: list[bytes]  # cut anywhere, also within a character


@value
class OutputTaken:
    """The node may send the next piece of this computation's output."""

    computation: int
    node: str


STDOUT, STDERR = 1, 2
