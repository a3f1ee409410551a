"""What a cluster promises whatever happens (D4), each by its name, and who watches over it.

    scheduler ── RunJobs ──▶ Witness.ordered      processes ── a job begins ──▶ Witness.begun
    scheduler ── JobsDone ──▶ Witness.believed    user ◀── MarkStarted, SettleJobs ── moved, settled

The witness sees only what goes in and out of the cores.  What they keep inside is looked at where
it must be nothing: `left_in` names whatever lies in a core that a fresh one does not have.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import repeat
from typing import Any, NoReturn

from nodeserver.core.effects import GiveJobs
from nodeserver.core.messages import (
    ONE_CPU,
    JobsDone,
    JobsProvisional,
    JobsRequeued,
    JobsRetried,
    OpenComputation,
    Resources,
    RunJobs,
)
from nodeserver.core.status import ALLOWED_MOVES, SETTLED, JobStatus

MEMORY = 1 << 30  # of each node


class Promise(StrEnum):
    """Everything that a history is checked for."""

    ONCE = 'an accepted job has one outcome'
    STARTS = 'a job that is not reentrant starts at most once'
    OUTLIVES = 'a reentrant job outlives its nodes'
    MOVES = 'statuses move only as allowed, and a settled job stays settled'
    LATE = 'a late attempt is not believed'
    DATA = 'a job is given the shared data that it names'
    FILES = 'nothing begins before its files lie there'
    PIECES = 'pieces of files come in order, and each once'
    RELEASED = 'files of a job go once, when it has ended'
    ANSWERED = 'who sends a file gets an answer'
    TRUTH = 'an outcome says what the job did, or why there is none'
    PROVISIONAL = 'provisional results come in order, and all before the end'
    CPUS = 'no cpu runs two jobs'
    RESOURCES = 'each job has what it asked for, for itself'
    BOOKS = 'the books of a core balance'
    REST = 'a core rests when nothing is to do'
    PROTOCOL = 'correct peers keep to the protocol'
    ENDS = 'every job ends once the faults have ended'
    CLOSES = 'close() completes'
    SHARES = 'shares stay fair'
    NOTHING_KEPT = 'nothing is kept of what has ended'


class PromiseBroken(AssertionError):  # noqa: N818 - reads as a sentence where it is raised
    """A history in which a promise was broken."""

    def __init__(self, promise: Promise, story: str) -> None:
        super().__init__(f'broken: {promise}: {story}')
        self.promise = promise
        self.played = 0  # how many operations the history had come to


def broken(promise: Promise, story: str) -> NoReturn:
    """End the history."""
    raise PromiseBroken(promise, story)


@dataclass(frozen=True, slots=True)
class Fate:
    """What a job does when it is run; it travels as the job's payload."""

    kind: str = 'returns'
    seconds: float = 0.01
    provisionals: int = 0
    size: int = 0  # of its arguments, and of its result
    sends: int = 0  # bytes of a file that it sends, halfway

    def payload(self) -> bytes:
        """Write it as the arguments of a job."""
        head = f'{self.kind} {self.seconds!r} {self.provisionals} {self.size} {self.sends} '
        return head.encode() + bytes(self.size)

    @classmethod
    def of(cls, payload: bytes) -> 'Fate':
        """Read the arguments of a job."""
        kind, seconds, provisionals, size, sends, _ = payload.split(b' ', 5)
        return cls(kind.decode(), float(seconds), int(provisionals), int(size), int(sends))


def outcome(word: str, job: int, attempt: int, size: int) -> bytes:
    """What a job's process writes at its end."""
    return f'{word} {job} {attempt} '.encode() + bytes(size)


def provisional_result(job: int, attempt: int, number: int) -> bytes:
    """What a job's process writes on its way."""
    return f'{job} {attempt} {number}'.encode()


def shared_content(computation: int, data: int, size: int) -> bytes:
    """What lies in data that jobs share."""
    return f'{computation} {data} '.encode() + bytes(size)


@dataclass(slots=True)
class _Story:
    """What the witness knows of one job."""

    reentrant: bool
    outlives: bool  # its nodes; one with retries only so many
    pinned: bool
    fate: Fate
    data: bytes  # the beginning of those that it shares with others, if any
    status: JobStatus = JobStatus.CREATED
    order: tuple[str, int] | None = None  # the node and the attempt that count
    node: str = ''  # which was given it last, by peer id
    told: str = ''  # the machine that its user was told of last
    is_given_up: bool = False  # there: its scheduler has had the node begin anew
    is_on_record: bool = True  # that it was, at its scheduler
    is_unknown: bool = False  # to all programs: that it was given to a node
    former: tuple[str, int] | None = None  # the last that counted, while none does
    starts: int = 0
    most_starts: int = 1
    shown: tuple[str, int] | None = None  # whose provisional results were shown last
    provisionals: int = 0  # how many of these
    is_resumed: bool = False  # some may have been missed


class Witness:
    """Sees what is asked, begun and answered, and knows what must not be."""

    def __init__(self) -> None:
        self.submitted = 0
        self.settled_count = 0
        self.starts = 0
        self.forgotten: set[int] = set()  # computations whose programs were killed
        self.away: set[int] = set()  # computations whose programs were so for a while
        self.unrecorded: set[int] = set()  # of which a scheduler lost its records
        self.statuses: Counter[JobStatus] = Counter()
        self._stories: dict[tuple[int, int], _Story] = {}
        self._pending: Counter[tuple[int, bool]] = Counter()  # by computation and pinned or not
        self._waiting: Counter[tuple[int, bool]] = Counter()  # as `_pending`: not with a node
        self._longest: Counter[int] = Counter()  # seconds of the longest job of a computation
        self._running: Counter[str] = Counter()  # node -> cpus that have a job
        self._cpus: dict[str, Counter[int]] = {}  # node -> computation -> the same, for each
        self._memory: Counter[str] = Counter()  # node -> bytes that its jobs asked for
        # a node that is started again goes on with what the one before it has kept
        self.machine_of: Callable[[str], str] = lambda node: node

    def accept(
        self,
        where: tuple[int, bool],
        ids: Iterable[int],
        reentrant: tuple[bool, bool],
        fate: Fate,
        data: int = 0,
    ) -> None:
        """The user submitted jobs of a computation, for any node or (True) for one.

        They may begin again, and (as the second says) so often that they outlive all nodes but one.
        """
        content = shared_content(where[0], data, 0) if data else b''
        for job in ids:
            self._stories[where[0], job] = _Story(*reentrant, where[1], fate, content)
            self._pending[where] += 1
            self._waiting[where] += 1
            self.submitted += 1
        self._longest[where[0]] = max(self._longest[where[0]], math.ceil(fate.seconds))

    def pending(self, computation: int, pinned: bool = True) -> int:
        """How many jobs of a computation have not ended, with or without those for one node."""
        return self._pending[computation, False] + pinned * self._pending[computation, True]

    def waiting(self, computation: int) -> int:
        """How many jobs of a computation, which any node may run, are with none."""
        return self._waiting[computation, False]

    def cpus_of(self, computation: int) -> int:
        """How many cpus have a job of a computation."""
        return sum(cpus[computation] for cpus in self._cpus.values())

    def longest(self, computation: int) -> int:
        """How many seconds the longest job of a computation takes."""
        return self._longest[computation]

    def machine_with(self, computation: int, job: int) -> str:
        """The name of the machine that was given a job last."""
        story = self._stories[computation, job]
        order = story.order or story.former
        return order[0] if order is not None else ''

    def starts_of(self, computation: int, job: int) -> int:
        """How often a job was begun."""
        return self._stories[computation, job].starts

    def forget(self, computation: int) -> None:
        """The program that would be told of these jobs is gone."""
        self.forgotten.add(computation)
        for counts in (self._pending, self._waiting):
            del counts[computation, False], counts[computation, True]

    def taken_over(
        self,
        computation: int,
        places: Mapping[int, str],
        ended: Mapping[int, int],
        is_told_late: bool,
    ) -> None:
        """Another program goes on with these jobs, and has the outcomes of those that ended.

        Whoever may come back to them is told late, when they are on record; others at once.
        """
        self.forgotten.discard(computation)
        self.away.add(computation)
        for job, number in ended.items():
            story = self._stories[computation, job]
            if story.status not in SETTLED:  # on record, and not told yet
                where = computation, story.pinned
                self._pending[where] += 1
                self._waiting[where] += story.status is JobStatus.CREATED
                self.moved(computation, [job], JobStatus(number))
            elif story.status is not JobStatus(number):
                text = f'job {job} of {computation} ended as {story.status.name}, and as {number}'
                broken(Promise.ONCE, text)
        for job, place in places.items():
            story = self._stories[computation, job]
            if story.status in SETTLED:
                if is_told_late:
                    text = f'job {job} of {computation} ended as {story.status.name}'
                    broken(Promise.ONCE, f'{text}, and nothing was on record')
                self.settled_count -= 1
                self.statuses[story.status] -= 1
            story.status = JobStatus.RUNNING if place else JobStatus.CREATED
            story.is_resumed = True
            story.is_unknown |= not (place or story.is_on_record)
            self._waiting[computation, story.pinned] += not place
            self._pending[computation, story.pinned] += 1

    def collected(self, computation: int) -> None:
        """Another program fetches what there is of these jobs, and has none begin again."""
        for (number, _), story in self._stories.items():
            if number == computation:
                story.outlives = False

    def left_behind(self, computation: int, jobs: Iterable[int]) -> None:
        """Who collects has not reached these, and is told so: a later try may have them."""
        for job in jobs:
            self._pending[computation, self._stories[computation, job].pinned] -= 1

    def lost_sight(self, computation: int) -> None:
        """Its program was away for a while: provisional results are not kept for it."""
        self.away.add(computation)
        for (number, _), story in self._stories.items():
            if number == computation:
                story.is_resumed = True

    def lost_record(self, computations: set[int]) -> None:
        """Nobody knows where those of their jobs are that their users believe to wait."""
        self.unrecorded |= computations
        for (computation, _), story in self._stories.items():
            if computation in computations and story.node:
                is_told = story.status is not JobStatus.CREATED
                story.is_on_record = False
                story.is_unknown = not is_told or computation in self.forgotten

    def asked_all(self, computation: int, used: Container[str]) -> None:
        """A scheduler without records has asked nodes for jobs: the others wait from now on.

        Whatever a node has begun that was not met in time, or is gone, begins once more, and so
        does what a scheduler had given up there.
        """
        for (number, _), story in self._stories.items():
            if number == computation and story.is_unknown:
                story.is_unknown = False
                story.most_starts += story.is_given_up or story.node not in used

    # nodes

    def opened(self, node: str, message: OpenComputation) -> None:
        """The scheduler has a node begin; one that does so anew drops what it had."""
        for (computation, _), story in self._stories.items() if not message.resumes else ():
            if computation == message.computation and story.node == node:
                story.is_given_up = True

    def ordered(self, node: str, message: RunJobs) -> None:
        """The scheduler hands out attempts: from now on these are the ones that count."""
        for job, attempt in zip(message.ids, message.attempts, strict=True):
            story = self._stories[message.computation, job]
            story.order = self.machine_of(node), attempt
            story.node, story.is_on_record, story.is_given_up = node, True, False

    def withdrawn(self, message: JobsRequeued | JobsRetried) -> None:
        """The scheduler has jobs wait again: no attempt counts."""
        for job in message.ids:
            story = self._stories[message.computation, job]
            story.order, story.former = None, story.order or story.former

    def believed(self, message: JobsDone | JobsProvisional) -> None:
        """The scheduler passes on what a node says of attempts."""
        for job, attempt in zip(message.ids, message.attempts, strict=True):
            story = self._stories[message.computation, job]
            order = story.order
            if order is None and story.is_resumed:
                order = story.former  # nobody was given the job after that one was given up
            place = self.machine_of(message.node), attempt
            if message.computation in self.unrecorded and story.told == place[0]:
                story.order = order = place  # that it was given up went with its scheduler's disk
            if order != place:
                text = f'job {job}: attempt {attempt} of {message.node}, {order} counts'
                broken(Promise.LATE, text)

    def given(self, effect: GiveJobs) -> None:
        """A process is handed jobs, with the data that they share."""
        for job, contents in zip(effect.ids, effect.shared or repeat([]), strict=False):
            data = self._stories[effect.computation, job].data
            if not bytes(b''.join(contents)).startswith(data) or bool(contents) != bool(data):
                broken(Promise.DATA, f'job {job} of {effect.computation} got other data or none')

    def begun(
        self, node: str, cpus: int, computation: int, job: int, needs: Resources = ONE_CPU
    ) -> None:
        """A process has begun a job."""
        self.starts += 1
        self._running[node] += needs.cpus
        self._cpus.setdefault(node, Counter())[computation] += needs.cpus
        self._memory[node] += needs.memory
        if self._running[node] > cpus:
            broken(Promise.CPUS, f'{node} runs jobs of {self._running[node]} cpus on {cpus} cpus')
        if self._memory[node] > MEMORY:
            broken(Promise.RESOURCES, f'{node} has promised more memory than it has')
        story = self._stories[computation, job]
        story.starts += 1
        if story.starts > story.most_starts and not story.reentrant:
            broken(Promise.STARTS, f'job {job} of {computation} began again, on {node}')

    def ended(self, node: str, computation: int, needs: Resources = ONE_CPU) -> None:
        """A process has ended the job it was in, or was ended."""
        self._running[node] -= needs.cpus
        if node in self._cpus:
            self._cpus[node][computation] -= needs.cpus
        self._memory[node] -= needs.memory

    def gone(self, node: str) -> None:
        """A node has ended, with its processes."""
        self._cpus.pop(node, None)

    # what the user is told

    def started(self, computation: int, node: str, ids: Iterable[int], again: bool) -> None:
        """Jobs are with a node; a scheduler that was away says so (`again`) once more."""
        ids = list(ids)
        for job in ids:
            self._stories[computation, job].told = self.machine_of(node)
        if again or any(self._stories[computation, job].is_resumed for job in ids):
            had_begun = (JobStatus.RUNNING, JobStatus.PROVISIONAL)
            ids = [j for j in ids if self._stories[computation, j].status not in had_begun]
        self.moved(computation, ids, JobStatus.RUNNING)

    def moved(self, computation: int, ids: Iterable[int], status: JobStatus) -> None:
        """A job's status changes."""
        for job in ids:
            story = self._stories[computation, job]
            if status not in ALLOWED_MOVES[story.status]:
                promise = Promise.ONCE if {status, story.status} <= SETTLED else Promise.MOVES
                text = f'job {job} of {computation} went from {story.status.name} to {status.name}'
                broken(promise, text)
            where = computation, story.pinned
            if story.status is JobStatus.CREATED:
                self._waiting[where] -= 1
            elif status is JobStatus.CREATED:
                self._waiting[where] += 1
            story.status = status
            if status in SETTLED:
                self._pending[where] -= 1
                self.settled_count += 1
                self.statuses[status] += 1

    def settled(self, done: JobsDone) -> None:
        """Jobs ended, with what a node says of it."""
        columns = (done.ids, done.attempts, done.statuses, done.outcomes, done.reasons)
        for job, attempt, number, result, reason in zip(*columns, strict=True):
            status = JobStatus(number)
            story = self._stories[done.computation, job]
            self.moved(done.computation, [job], status)
            place = self.machine_of(done.node)
            _check_outcome(story, status, (place, job, attempt), result, reason)

    def settled_unrun(self, computation: int, ids: Iterable[int], status: int, reason: str) -> None:
        """Jobs ended of which no node reports."""
        self.moved(computation, ids, JobStatus(status))
        if not reason:
            broken(Promise.TRUTH, f'jobs {ids} of {computation} ended without a word')
        if status == JobStatus.ABANDONED or 'was lost' in reason:
            for job in ids:
                if self._stories[computation, job].outlives:
                    broken(Promise.OUTLIVES, f'job {job} of {computation} ended: {reason}')

    def shown(self, results: JobsProvisional) -> None:
        """Provisional results came."""
        for job, attempt, result in zip(
            results.ids, results.attempts, results.results, strict=True
        ):
            self.moved(results.computation, [job], JobStatus.PROVISIONAL)
            story = self._stories[results.computation, job]
            place = self.machine_of(results.node), attempt
            if story.shown != place:
                story.shown, story.provisionals = place, 0
            story.provisionals += 1
            if story.is_resumed:
                continue
            if result != provisional_result(job, attempt, story.provisionals):
                broken(Promise.PROVISIONAL, f'job {job}: {result!r} as number {story.provisionals}')


def _check_outcome(
    story: _Story, status: JobStatus, which: tuple[str, int, int], result: bytes, reason: str
) -> None:
    fate, (node, job, attempt) = story.fate, which
    if status is JobStatus.FINISHED:
        true = fate.kind not in ('raises', 'crashes', 'exits')
        if not true or result != outcome('returned', job, attempt, fate.size):
            broken(Promise.TRUTH, f'job {job}, {fate}: {status.name} with {result[:50]!r}')
        shown = story.provisionals if story.shown == (node, attempt) else 0
        if shown != fate.provisionals and not story.is_resumed:
            text = f'job {job}: {shown} of {fate.provisionals} before its end'
            broken(Promise.PROVISIONAL, text)
    elif result:
        if result.split(b' ')[1:3] != [b'%d' % job, b'%d' % attempt]:
            broken(Promise.TRUTH, f'job {job}, attempt {attempt}: told {result[:50]!r}')
    elif not reason:
        broken(Promise.TRUTH, f'job {job} {status.name} without a word')


def left_in(core: object, fresh: object, allowed: Container[str] = ()) -> dict[str, int]:
    """What a core keeps that a fresh one does not: where, and how many."""
    found, usual = _contents(core), _contents(fresh)
    return {
        where: count
        for where, count in found.items()
        if count > usual.get(where, 0) and where not in allowed
    }


# where cores and sessions keep what belongs to jobs that have not ended
_OF_JOBS = (
    *(
        '.waiting',
        '.jobs',
        '.queue',
        '.pinned',
        '._pending',
        '.held',
        '.letters',
        '._kills',
        '.shared',
        '._held',
        '.lacking',
        '._contents',
        '._awaited',
        '.released',
        '._asked',
    ),
    *('._asked', '._kept', '._small', '._bulk'),
)


def jobs_left_in(thing: object) -> dict[str, int]:
    """What a core or a session keeps of jobs: nothing, once they have ended."""
    return {where: n for where, n in _contents(thing).items() if n and where.endswith(_OF_JOBS)}


def _contents(core: object) -> Counter[str]:
    """Sizes of all containers that a core leads to, by the attributes on the way."""
    found: Counter[str] = Counter()
    seen: set[int] = set()
    ways: deque[tuple[str, Any]] = deque([('', core)])  # the shortest way names a thing
    while ways:
        where, thing = ways.popleft()
        if id(thing) in seen or callable(thing) or isinstance(thing, str | bytes | type):
            continue
        seen.add(id(thing))
        if isinstance(thing, dict):
            ways += [(where, value) for value in thing.values()]
        elif hasattr(thing, '__len__') and hasattr(thing, '__iter__'):
            ways += [(where, value) for value in thing]
        elif type(thing).__module__.startswith(('nodeserver', 'tests')):
            names = [*getattr(thing, '__dict__', ()), *getattr(type(thing), '__slots__', ())]
            ways += [(f'{where}.{name}', getattr(thing, name, None)) for name in names]
            continue
        else:
            continue
        found[where] += sum(1 for entry in thing if not _is_empty(thing, entry))
    return found


def _is_empty(container: Any, entry: Any) -> bool:
    value = container[entry] if isinstance(container, dict) else entry
    return isinstance(value, dict | list | set) and not value
