"""Letters: a node's `JobsDone`, which it keeps until the client has acknowledged it (D4)."""

from dataclasses import replace
from itertools import compress
from typing import Any

from nodeserver.core.messages import AcknowledgeOutcomes, JobsDone


def acknowledgement(letter: JobsDone) -> AcknowledgeOutcomes:
    """The answer that lets a node forget a letter."""
    return AcknowledgeOutcomes(letter.computation, letter.node, [letter.letter])


def part_of(letter: JobsDone, keep: list[bool]) -> JobsDone:
    """A letter with only those of its jobs that are to be believed."""

    def kept(column: list[Any]) -> list[Any]:
        return list(compress(column, keep))

    return replace(
        letter,
        ids=kept(letter.ids),
        attempts=kept(letter.attempts),
        statuses=kept(letter.statuses),
        outcomes=kept(letter.outcomes),
        reasons=kept(letter.reasons),
        seconds=kept(letter.seconds),
    )
