"""`recover_jobs`: the results of a program that was killed, fetched by another one (section I).

    journal ──▶ jobs that were scheduled ──▶ their nodes ──▶ outcomes, into the journal
                                                  handed out, struck from the journal ◀──┘

An outcome is in the journal before its node forgets it, and leaves it when it is handed out: a
program that is killed while it recovers loses nothing either.
"""

import logging
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dispy_nb.cluster import Cluster
from dispy_nb.job import DispyJob, check_timeout
from dispy_nb.recovery.fileformat import OUTCOME, packed
from dispy_nb.recovery.journal import PUT_ENDED, Journal, keep_outcomes
from dispy_nb.recovery.journalfile import FIND_EPOCH, PUT_FACT
from dispy_nb.recovery.places import remove_journal
from dispy_nb.recovery.recorded import Recorded, opened, read
from dispy_nb.recovery.reopening import reopened
from dispy_nb.recovery.resumption import Resumption, made, settle
from nodeserver.core.errors import UsageError
from nodeserver.core.status import SETTLED, JobStatus, Unrun

_log = logging.getLogger('dispy_nb')

CANCEL_SECONDS = 15.0  # that nodes may take to end jobs
LOOK_SECONDS = 0.05


def recover_jobs(
    recover_file: str | os.PathLike[str],
    timeout: float | None = None,
    terminate_pending: bool = False,
) -> list[DispyJob]:
    """Return the jobs of a program that was killed, with their results (I04-I11).

    All that is needed is in the file: nodes, keys, certificates.  Each job is returned once; with
    the last one the nodes are released and the file is removed.

    Parameters
    ----------
    recover_file : path
        What the program's cluster had as `recover_file`, or the file that it made.
    timeout : float, optional
        Seconds to wait at most; jobs that run then go on, for a later call.
    terminate_pending : bool
        Whether jobs that have not ended then are ended, and returned as such.

    Raises
    ------
    UsageError
        There is no such file, or an argument has a wrong value.
    DatabaseError
        The file cannot be used: its program runs, or it is damaged, or open to other users.
    """
    seconds = None if timeout is None else check_timeout(timeout)
    if not isinstance(terminate_pending, bool):
        raise UsageError(f'terminate_pending must be True or False, not {terminate_pending!r}')
    recovery = _Recovery(read(_checked(recover_file)))
    try:
        recovery.wait(seconds, lambda job: job.status in SETTLED)
        if terminate_pending:
            recovery.terminate()
        return recovery.hand_out()
    finally:
        recovery.end()


def fault_recover_jobs(
    fault_recover_file: str | os.PathLike[str],
    ip_addr: str | None = None,
    secret: str = '',
    node_port: int = 51348,
    certfile: str | None = None,
    keyfile: str | None = None,
) -> list[DispyJob]:
    """Return the jobs of a program that was killed; those that run still, as `Running` (I13).

    The older form of `recover_jobs`.  It waits for no job; those that run are returned by a later
    call again.  What the other arguments say is in the file, and they have no effect.
    """
    recovery = _Recovery(read(_checked(fault_recover_file)))
    try:
        recovery.wait(None, lambda job: job.status != JobStatus.CREATED)
        return recovery.hand_out() + recovery.running()
    finally:
        recovery.end()


def _checked(path: Any) -> Path:
    if not isinstance(path, str | os.PathLike) or not os.fspath(path) or b'\0' in os.fsencode(path):
        raise UsageError(f'recover_file must be the path of a file, not {path!r}')
    return Path.cwd() / Path(os.fsdecode(path))


class _Recovery:
    """One call of it: the cluster of then, opened once more to collect what it had scheduled."""

    def __init__(self, recorded: Recorded) -> None:
        self._recorded = recorded
        self._resumption = Resumption(recorded, collects=True)
        self._cluster: Cluster | None = None
        self._handed: list[int] = []
        self._kept: set[int] = set()  # jobs whose results could not be unpickled here
        self._is_over = False  # nothing is left to be recovered
        if not self._resumption.messages:  # all that there is, is in the file
            self._jobs = [made(recorded, None, each.number) for each in recorded.ended]
            for job, each in zip(self._jobs, recorded.ended, strict=True):
                settle(job, each)
            return
        cluster = reopened(self._resumption)
        cluster._journal_ends = self._strike
        self._cluster = cluster
        self._jobs = self._resumption.jobs

    def wait(self, seconds: float | None, is_done: Callable[[DispyJob], bool]) -> None:
        """Wait until all jobs are as they should be, at most so long."""
        deadline = float('inf') if seconds is None else time.monotonic() + seconds
        left = [job for job in self._jobs if not is_done(job)]
        while left and time.monotonic() < deadline:
            self._check_claim()
            left[0]._wait(min(LOOK_SECONDS, max(0.0, deadline - time.monotonic())))
            left = [job for job in left if not is_done(job)]

    def _check_claim(self) -> None:
        """Raise the words of a node that serves the program whose jobs these are: it runs."""

    def terminate(self) -> None:
        """End the jobs that have not ended."""
        if self._cluster is not None:
            self._cluster._cancel_all(self.running())
            self.wait(CANCEL_SECONDS, lambda job: job.status in SETTLED)

    def running(self) -> list[DispyJob]:
        """Return the jobs that have not ended."""
        return [job for job in self._jobs if job.status not in SETTLED]

    def hand_out(self) -> list[DispyJob]:
        """Return those that have ended, and see to it that they are never returned again."""
        ended = [job for job in self._jobs if job.status in SETTLED]
        left = self._cluster._shell.left if self._cluster is not None else {}
        unreached = [job for job in ended if left.get(job._number) == Unrun.UNREACHED]
        runnable = [
            job
            for job in ended  # that have waited at a shared scheduler, and can run by the file
            if left.get(job._number) == Unrun.UNSTARTED and job._number in self._recorded.jobs
        ]
        left_there = {*unreached, *runnable}
        wanted = [job for job in ended if job not in left_there]
        unstarted = len(self._recorded.unstarted) + len(runnable)
        self._tell(unreached, unstarted)
        # user code runs in it, and may fail: before they are struck
        unreadable = [job for job in wanted if job._decoded().is_unreadable]
        self._tell_unreadable(unreadable)
        self._kept = {job._number for job in unreadable}
        handed = [job for job in wanted if job._number not in self._kept]
        self._is_over = len(handed) == len(self._jobs) and not unstarted
        self._handed = [job._number for job in handed]
        if self._cluster is None:
            self._strike_alone()
        elif self.running():
            self._cluster._leave()
        else:
            self._cluster.close()
        return handed

    def end(self) -> None:
        """Let go of the nodes and of the file, whatever happened."""
        if self._cluster is not None and not self._cluster._is_closed:
            self._handed = []
            self._cluster._leave()

    def _strike(self, journal: Journal) -> None:
        """Strike what is handed out, the last thing before the file is let go of."""
        if self._is_over:
            journal.file.remove()
            return
        if self._handed:
            journal.file.flush()
            journal.file.change(self._strike_in)
        journal.leave()

    def _strike_in(self, connection: sqlite3.Connection) -> None:
        if self._kept:
            keep_outcomes(connection, self._kept)
        else:
            connection.execute('DELETE FROM outcomes')
            connection.execute('DELETE FROM large WHERE kind = ?', (OUTCOME,))
        connection.execute(PUT_ENDED, (packed(self._handed),))

    def _strike_alone(self) -> None:
        path, epoch = self._recorded.path, self._recorded.epoch
        with opened(path) as connection:
            (found,) = connection.execute(FIND_EPOCH).fetchone()
            if int(found) != epoch:
                raise UsageError(f'{path} was taken over by another program just now')
            connection.execute(PUT_FACT, ('epoch', str(epoch + 1).encode()))
            self._strike_in(connection)
        if self._is_over:
            remove_journal(path)

    def _tell(self, unreached: list[DispyJob], unstarted: int) -> None:
        """Say what stays behind."""
        path = self._recorded.path
        reasons = Counter(job.reason for job in unreached)
        for reason, count in reasons.items():
            text = '%s: %d %s not recovered: %s; %s stays for a later try'
            jobs = 'job was' if count == 1 else 'jobs were'
            _log.warning(text, self._recorded.name, count, jobs, reason, path)
        if unstarted:
            _log.warning(
                '%s: %d jobs had not been started: dispy_nb.attach(%r) runs them',
                self._recorded.name,
                unstarted,
                str(path),
            )

    def _tell_unreadable(self, jobs: list[DispyJob]) -> None:
        """Say whose results need something that this program has not."""
        if jobs:
            _log.warning(
                '%s: %s cannot be unpickled here, %s %r: %s; import or define what is missing, '
                'and try again: %s stays for that',
                self._recorded.name,
                '1 result' if len(jobs) == 1 else f'{len(jobs)} results',
                'that of job' if len(jobs) == 1 else 'the first of them that of job',
                jobs[0].id,
                jobs[0].exception,
                self._recorded.path,
            )
