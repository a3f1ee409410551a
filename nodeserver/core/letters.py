"""Letters: a node's `JobsDone`, which it keeps until the client has acknowledged it (D4)."""

from dataclasses import fields, replace
from itertools import compress
from typing import Any, TypeVar

from nodeserver.core.messages import (
    AcknowledgeOutcomes,
    JobsDone,
    JobsOutput,
    JobsProvisional,
    SubmitJobs,
)

Columns = TypeVar('Columns', bound=JobsDone | JobsProvisional | JobsOutput | SubmitJobs)


def acknowledgement(letter: JobsDone) -> AcknowledgeOutcomes:
    """The answer that lets a node forget a letter."""
    return AcknowledgeOutcomes(letter.computation, letter.node, [letter.letter])


def part_of(message: Columns, keep: list[bool]) -> Columns:
    """A message with only those of its jobs that are to be believed."""
    columns: dict[str, Any] = {}
    for field in fields(message):
        value = getattr(message, field.name)
        if isinstance(value, list):
            columns[field.name] = list(compress(value, keep))
    return replace(message, **columns)
