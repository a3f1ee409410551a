"""What a user wishes by a widget's buttons: checked, then done in a thread of its own.

button ──▶ message ──▶ Wishes.take ──▶ thread: understood, done ──▶ what is said below the bar

Messages come in the kernel's main thread or in one of its subshells, which must not wait.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any

from dispy_nb.job import DispyJob
from dispy_nb.lifetime import CLOSE_TIMEOUT
from nodeserver.core.errors import DispyError, UsageError

MOST_AT_ONCE = 8  # wishes that are being done; more are refused
MOST_JOBS = 10_000  # in one wish

_log = logging.getLogger('dispy_nb')


@dataclass(frozen=True, slots=True)
class CancelAll:
    """Cancel every job that has not ended."""


@dataclass(frozen=True, slots=True)
class CancelJobs:
    """Cancel those that the user has ticked."""

    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SetCpus:
    """Use so many cpus of a node."""

    node: str  # its id
    cpus: int


@dataclass(frozen=True, slots=True)
class Close:
    """Close the cluster: after its jobs, or at once."""

    cancels: bool


@dataclass(frozen=True, slots=True)
class Watch:
    """Show what a job prints; None: no job."""

    number: int | None


Wish = CancelAll | CancelJobs | SetCpus | Close | Watch


def understood(content: object) -> Wish:
    """Return the wish that a message is.

    Raises
    ------
    UsageError
        It is none; the text says what was given.
    """
    if not isinstance(content, dict):
        raise UsageError(f'a wish must be an object with a "wish", not {short(content)}')
    kind = content.get('wish')
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UsageError(f'a wish must be one of {", ".join(_KINDS)}; not {short(kind)}')
    names, make = _KINDS[kind]
    given = {name for name in content if name != 'wish'}
    if given != set(names):
        wanted = ' and '.join(names) or 'nothing else'
        raise UsageError(f'the wish {kind} goes with {wanted}; not with {short(sorted(given))}')
    return make(*(content[name] for name in names))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _cancel_jobs(jobs: Any) -> Wish:
    if not isinstance(jobs, list) or not jobs or not all(map(_is_whole, jobs)):
        raise UsageError(f'jobs must be a list of numbers of jobs, not {short(jobs)}')
    if len(jobs) > MOST_JOBS:
        raise UsageError(f'jobs must be {MOST_JOBS:,} at most, not {len(jobs):,}')
    return CancelJobs(tuple(dict.fromkeys(jobs)))


def _set_cpus(node: Any, cpus: Any) -> Wish:
    if not isinstance(node, str) or not node:
        raise UsageError(f'node must be the id of a node, not {short(node)}')
    if not _is_whole(cpus) or cpus < 0:
        raise UsageError(f'cpus must be a whole number from 0 on, not {short(cpus)}')
    return SetCpus(node, cpus)


def _close(pending: Any) -> Wish:
    if pending not in ('wait', 'cancel'):
        raise UsageError(f'pending must be "wait" or "cancel", not {short(pending)}')
    return Close(pending == 'cancel')


def _watch(job: Any) -> Wish:
    if job is not None and not _is_whole(job):
        raise UsageError(f'job must be the number of a job, or null; not {short(job)}')
    return Watch(job)


_KINDS: dict[str, tuple[tuple[str, ...], Callable[..., Wish]]] = {
    'cancel_all': ((), CancelAll),
    'cancel': (('jobs',), _cancel_jobs),
    'cpus': (('node', 'cpus'), _set_cpus),
    'close': (('pending',), _close),
    'watch': (('job',), _watch),
}


class Wishes:
    """Does what users wish of one cluster, and says what came of it.

    Parameters
    ----------
    cluster : JobCluster
    watch : callable
        Called with the job whose output is to be shown, or None.

    Attributes
    ----------
    say : callable
        Called with words, and whether they tell of something that was not done.
    """

    def __init__(self, cluster: Any, watch: Callable[[DispyJob | None], object]) -> None:
        self.say: Callable[[str, bool], object] = lambda text, is_error: None
        self._name = cluster.name
        self._cluster = cluster
        self._watch = watch
        self._slots = threading.BoundedSemaphore(MOST_AT_ONCE)
        self._closing = threading.Lock()  # held by the one wish that waits for the jobs

    def forget(self) -> None:
        """The cluster is closed: let go of it."""
        self._cluster = None

    def take(self, content: object) -> None:
        """Have a wish done; returns at once."""
        if not self._slots.acquire(blocking=False):
            self.say(f'Not done: {MOST_AT_ONCE} wishes are being done; try again later.', True)
            return
        thread = threading.Thread(target=self._run, args=(content,), name='dispy-wish')
        thread.daemon = True
        thread.start()

    def _run(self, content: object) -> None:
        try:
            words = self._done(understood(content))
        except DispyError as error:
            self.say(f'Not done: {error}', True)
        except Exception as error:  # noqa: BLE001 - the edge of a thread: the user is told
            _log.debug('a wish failed', exc_info=True)
            self.say(f'Not done: {type(error).__name__}: {error}', True)
        else:
            self.say(words, False)
        finally:
            self._slots.release()

    def _done(self, wish: Wish) -> str:
        cluster = self._cluster
        if isinstance(wish, Watch):
            return self._choose(cluster, wish.number)
        if cluster is None or cluster.snapshot().closed:
            raise UsageError(f'cluster {self._name} is closed.')
        match wish:
            case CancelAll():
                return self._cancel_all(cluster)
            case CancelJobs(numbers):
                return self._cancel(cluster, numbers)
            case SetCpus(node, cpus):
                return self._set_cpus(cluster, node, cpus)
            case Close(cancels):
                return self._close_now(cluster) if cancels else self._close_later(cluster)

    def _choose(self, cluster: Any, number: int | None) -> str:
        jobs = cluster._shell.jobs if cluster is not None else {}
        job = None if number is None else jobs.get(number)
        if job is None and number is not None:
            raise UsageError(f'job {number} has ended.')
        self._watch(job)
        return ''

    def _cancel_all(self, cluster: Any) -> str:
        shell = cluster._shell
        pending = cluster.snapshot().pending
        if shell.feeder is not None:
            shell.feeder.take_back()
        cluster._cancel_all(list(shell.jobs.values()))
        return f'{are_being_cancelled(pending)}.' if pending else 'No job is pending.'

    def _cancel(self, cluster: Any, numbers: tuple[int, ...]) -> str:
        pending = cluster._shell.jobs
        jobs = [job for number in numbers if (job := pending.get(number)) is not None]
        cluster._cancel_all(jobs)
        ended = len(numbers) - len(jobs)
        words = f'{are_being_cancelled(len(jobs))}.' if jobs else ''
        if ended:
            words += f' {jobs_text(ended)} had ended, or never were.'
        return words.strip()

    def _set_cpus(self, cluster: Any, node_id: str, cpus: int) -> str:
        node = cluster._shell.nodes.get(node_id)
        if node is None or node.closed:
            name = node.name if node is not None else short(node_id)
            raise UsageError(f'node {name} is not there.')
        if cpus > node.avail_cpus:
            raise UsageError(f'node {node.name} offers {cpus_text(node.avail_cpus)}, not {cpus}.')
        used = cluster.set_node_cpus(node, cpus)
        if used < 0:
            raise UsageError(f'node {node.name} is not in use now.')
        return f'{node.name} uses {cpus_text(used)} now.'

    def _close_later(self, cluster: Any) -> str:
        """Close once the jobs have ended, without the line of progress that `close` may show."""
        if not self._closing.acquire(blocking=False):
            return 'The cluster is closed when its jobs have ended.'
        try:
            pending = cluster.snapshot().pending
            if pending:
                self.say(f'The cluster is closed when {jobs_text(pending)} have ended.', False)
            cluster._shell.wait_idle(None)
            while not cluster.close(timeout=0):  # others were submitted meanwhile
                cluster._shell.wait_idle(None)
        finally:
            self._closing.release()
        return 'The cluster is closed.'

    def _close_now(self, cluster: Any) -> str:
        if cluster.snapshot().pending:
            self.say(f'{self._cancel_all(cluster)} Then the cluster is closed.', False)
            cluster._shell.wait_idle(CLOSE_TIMEOUT)
        cluster.close(timeout=0, terminate=True)
        return 'The cluster is closed.'


def jobs_text(count: int) -> str:
    """Write a number of jobs."""
    return '1 job' if count == 1 else f'{count:,} jobs'


def cpus_text(count: int) -> str:
    """Write a number of cpus."""
    return '1 cpu' if count == 1 else f'{count:,} cpus'


def are_being_cancelled(count: int) -> str:
    """Say what begins, and may take a while."""
    return f'{jobs_text(count)} {"is" if count == 1 else "are"} being cancelled'
