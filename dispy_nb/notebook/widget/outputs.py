"""The last lines that one job, which the user has chosen, has printed."""

import re
import threading
from typing import Any

from dispy_nb.job import DispyJob
from dispy_nb.outcomes import OpenedOutcome
from dispy_nb.shortened import id_text
from nodeserver.core.errors import ProtocolError
from nodeserver.core.status import SETTLED
from nodeserver.wire.outcome import decode_outcome

MOST_LINES = 200  # of both streams together, as the next
MOST_BYTES = 8192

NOTHING: dict[str, Any] = {'job': None}

# colours and movements of the cursor mean nothing here; what moves back to the line's begin does
_ESCAPES = re.compile(r'\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])')
_CONTROLS = re.compile('[^\\S \t\n]|[\x00-\x08\x0e-\x1f\x7f]')


class Watched:
    """The job that a cluster's widget watches; chosen and looked at by different threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._job: DispyJob | None = None  # while it is pending: nobody may hold an ended one (C25)
        self._shown = NOTHING

    def choose(self, job: DispyJob | None) -> None:
        """Watch this job from now on, or none."""
        with self._lock:
            self._job, self._shown = job, NOTHING

    def look(self) -> dict[str, Any]:
        """Return what it has printed so far, and in the end all of it; the last lines."""
        with self._lock:
            job = self._job
            if job is not None:
                status = job.status  # first: once it has ended, the output is all that there is
                stdout, stderr = _tails(*_printed(job))
                self._shown = {
                    'job': job._number,
                    'id': id_text(job),
                    'status': status.name.lower() if status in SETTLED else '',
                    'stdout': stdout,
                    'stderr': stderr,
                }
                if status in SETTLED:
                    self._job = None
            return self._shown


def last_lines(text: str, lines: int, size: int) -> str:
    """Return so many last lines of a text at most, of so many bytes, without what is no text."""
    text = _ESCAPES.sub('', text[-4 * size :])
    rows = text.replace('\r\n', '\n').split('\n')
    rows = [row.rstrip('\r').rpartition('\r')[2] for row in rows]
    ends = rows and not rows[-1]
    text = '\n'.join(rows[-lines - (1 if ends else 0) :])
    data = _CONTROLS.sub('\ufffd', text).encode('utf-8', 'replace')[-size:]
    return data.decode('utf-8', 'ignore')


def _tails(stdout: str, stderr: str) -> tuple[str, str]:
    parts = 2 if stdout and stderr else 1
    lines, size = MOST_LINES // parts, MOST_BYTES // parts
    return last_lines(stdout, lines, size), last_lines(stderr, lines, size)


def _printed(job: DispyJob) -> tuple[str, str]:
    """Read both streams, and not the result: its own code would run in this thread."""
    outcome = job._outcome
    if job.status not in SETTLED:
        return job.stdout or '', job.stderr or ''
    if isinstance(outcome, OpenedOutcome):
        return str(outcome.stdout or ''), str(outcome.stderr or '')
    try:
        opened = decode_outcome(outcome if isinstance(outcome, bytes) else b'')[0]
    except ProtocolError:  # a node's fault, which job.exception tells
        return '', ''
    return opened.stdout, opened.stderr
