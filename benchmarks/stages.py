"""Where a job's time goes: microseconds per job and stage, and CPU time by thread and process.

    python -m benchmarks.stages [--quick]

The first table walks batches of jobs through the real code of every stage in one thread, without
sockets and processes: submit ─ client core ─ scheduler core ─ wire ─ node core ─ lane ─ worker,
and back to the job's result.  The second runs whole clusters and asks the kernel who worked.
"""

import argparse
import io
import os
import statistics
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any, TypeVar

import psutil

import dispy_nb
from benchmarks.functions import same
from benchmarks.scheduling import declaration
from dispy_nb.callbacks import CallbackThread
from dispy_nb.dependencies import NO_FILES
from dispy_nb.files import ClusterFiles
from dispy_nb.job import DispyJob
from dispy_nb.options import ClusterOptions
from dispy_nb.shareddata import DataBook
from dispy_nb.shell import ClusterShell
from nodeserver.core.cluster import ClusterCore
from nodeserver.core.effects import ForkWorkers, GiveJobs, OpenTemplate, Send
from nodeserver.core.events import (
    JobsReported,
    JobsSubmitted,
    MessageArrived,
    NodeFound,
    PeerConnected,
    TemplateReady,
    WorkerForked,
)
from nodeserver.core.messages import Message
from nodeserver.core.node import NodeCore
from nodeserver.core.nodefacts import NodeFacts
from nodeserver.core.scheduler import SchedulerCore
from nodeserver.payload import dump_call, dump_result, load_call
from nodeserver.wire import lane
from nodeserver.wire.envelope import Kind, read_greeting
from nodeserver.wire.outcome import encode_outcome
from nodeserver.wire.session import Limits, Session

CLIENT, SCHEDULER, NODE = 'client', 'scheduler', 'n' * 32
COMPUTATION = 7
CPUS = 2
STAGES = {
    'submit': 'submit: pickle, handle, outbox',
    'client': "client's core",
    'scheduler': "scheduler's core",
    'wire': 'encode, number, decode',
    'node': "node's core",
    'lane': 'lane to the worker and back',
    'worker': 'worker: unpickle, seed, call, pickle',
    'settle': 'settle: mark started, settle',
    'result': 'open the result',
}
BATCHES = {1: 2000, 10: 500, 100: 100, 1000: 20}
Value = TypeVar('Value')


class Chain:
    """Every stage of a job's way, in one thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.spent: defaultdict[str, float] = defaultdict(float)
        self._numbers = 0
        self._workers = 0
        self._outbox: deque[tuple[int, bytes]] = deque()
        self._events: deque[tuple[str, Any]] = deque()
        options = ClusterOptions(same, [])
        data = DataBook('bench', lambda event: None, lambda call: None)
        files = ClusterFiles('bench', NO_FILES, lambda event: None)
        self._shell = ClusterShell(None, data, files, options, CallbackThread())
        self._performers = self._shell.performers()
        self._links = _sessions()
        facts = NodeFacts(NODE, 'node', CPUS, 'Linux', '3.11')
        declared = declaration(COMPUTATION, 'worker')
        self._cores: dict[str, Any] = {
            'client': ClusterCore(SCHEDULER, declared),
            'scheduler': SchedulerCore(),
            'node': NodeCore(facts),
        }
        self._take_in('client', self._cores['client'].end_turn(0.0))
        self._events += [
            ('scheduler', NodeFound(NODE, '127.0.0.1', 51348, '')),
            ('scheduler', PeerConnected(NODE, '127.0.0.1')),
            ('node', PeerConnected(SCHEDULER, '127.0.0.1')),
        ]
        self._work_off()

    def run(self, count: int) -> None:
        """Send a batch all the way, and check its results."""
        first, self._numbers = self._numbers + 1, self._numbers + count
        numbers = range(first, first + count)
        jobs = self._timed('submit', self._submit, numbers)
        ids, payloads = map(list, zip(*self._outbox, strict=True))
        self._outbox.clear()
        self._events.append(('client', JobsSubmitted('', ids, payloads)))
        self._work_off()
        results = self._timed('result', lambda: [job.result for job in jobs])
        if results != list(numbers):
            raise AssertionError(f'wrong results: {str(results)[:200]}')

    def _timed(self, stage: str, act: Callable[..., Value], *args: Any) -> Value:
        began = self._clock()
        value = act(*args)
        self.spent[stage] += self._clock() - began
        return value

    def _submit(self, numbers: range) -> list[DispyJob]:
        jobs = []
        for number in numbers:
            payload = dump_call((number,), {})
            job = DispyJob(None, number)
            self._shell.add(job, number)
            self._outbox.append((number, payload))
            jobs.append(job)
        return jobs

    def _work_off(self) -> None:
        """Turn after turn, until no core has anything left to say."""
        while self._events:
            while self._events:
                role, event = self._events.popleft()
                self._take_in(role, self._timed(role, self._cores[role].handle, event, 1.0))
            for role in ('scheduler', 'node'):
                self._take_in(role, self._timed(role, self._cores[role].end_turn, 1.0))

    def _take_in(self, role: str, effects: list[Any]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self._send(role, effect.peer, effect.message)
            elif isinstance(effect, GiveJobs):
                self._events.append(('node', self._work(effect)))
            elif isinstance(effect, OpenTemplate):
                self._events.append(('node', TemplateReady(COMPUTATION)))
            elif isinstance(effect, ForkWorkers):
                for _ in range(effect.count):
                    self._workers += 1
                    self._events.append(('node', WorkerForked(COMPUTATION, self._workers)))
            elif role == 'client':
                self._timed('settle', self._performers[type(effect)], effect)

    def _send(self, role: str, peer: str, message: Message) -> None:
        if role == 'client':
            self._events.append(('scheduler', MessageArrived(CLIENT, message)))
        elif peer == CLIENT:
            self._events.append(('client', MessageArrived(SCHEDULER, message)))
        else:
            here, there = self._links if role == 'scheduler' else reversed(self._links)
            name, to = (SCHEDULER, 'node') if role == 'scheduler' else (NODE, 'scheduler')
            for arrived in self._timed('wire', _across, here, there, message):
                self._events.append((to, MessageArrived(name, arrived)))

    def _work(self, order: GiveJobs) -> JobsReported:
        pieces = self._timed('lane', _there, order)
        reports = self._timed('worker', _worked, pieces)
        reported = self._timed('lane', lane.ReportReader().feed, reports)
        kinds, ids, seconds, bodies = zip(*reported, strict=True)
        return JobsReported(
            COMPUTATION,
            order.worker,
            list(ids),
            [kind == lane.RAISED for kind in kinds],
            list(bodies),
            list(seconds),
        )


def _sessions() -> tuple[Session, Session]:
    near, far = (Session((name * 32, 'bench'), name, Limits()) for name in 'ab')
    near.connected()
    far.greeted(*read_greeting(near.greeting(Kind.HELLO)))
    near.greeted(*read_greeting(far.greeting(Kind.WELCOME)))
    return near, far


def _across(here: Session, there: Session, message: Message) -> list[Message]:
    here.send(message)
    return [arrived for frames in here.due() for arrived in there.receive(frames)]


def _there(order: GiveJobs) -> list[lane.Order]:
    data = b''.join(lane.encode_batch(order.ids, order.attempts, order.payloads))
    return lane.read_batch(io.BytesIO(data))


def _worked(batch: list[lane.Order]) -> bytes:
    """Do what a worker does for each job, but for its system calls."""
    reports = []
    for job, _, payload, *_ in batch:
        began = perf_counter()
        args, kwargs = load_call(payload)
        result = dump_result(same(*args, **(kwargs or {})))
        seconds = perf_counter() - began
        body = encode_outcome(result, '', '', '')
        assert isinstance(body, bytes)
        reports.append(lane.REPORT_HEAD.pack(lane.RETURNED, job, seconds, len(body)) + body)
    return b''.join(reports)


def by_stage(count: int, batches: int) -> dict[str, float]:
    """Microseconds per job of each stage: medians over many batches."""
    # cpu time leaves out what others did meanwhile; reading it takes long beside a single job
    chain = Chain(thread_time if count >= 100 else perf_counter)
    for _ in range(max(5, batches // 10)):
        chain.run(count)
    found: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for _ in range(batches):
        chain.spent.clear()
        chain.run(count)
        for stage, times in found.items():
            times.append(chain.spent[stage] / count * 1e6)
    return {stage: statistics.median(times) for stage, times in found.items()}


def stage_table(batches: dict[int, int]) -> Iterator[str]:
    """The lines of the first table."""
    columns = {count: by_stage(count, number) for count, number in batches.items()}
    yield "### stages: microseconds per job in one thread, by jobs per batch (isolation='worker')"
    yield ''
    yield '| stage | ' + ' | '.join(f'{count:,}' for count in columns) + ' |'
    yield '| --- |' + ' --- |' * len(columns)
    for stage, title in STAGES.items():
        yield f'| {title} | ' + ' | '.join(f'{c[stage]:.2f}' for c in columns.values()) + ' |'
    sums = (f'{sum(column.values()):.1f}' for column in columns.values())
    yield '| **sum without system calls** | ' + ' | '.join(sums) + ' |'
    yield ''


# whole clusters

_TICK = os.sysconf('SC_CLK_TCK')


def _cpu(stat: Path, children: bool = False) -> float:
    """Seconds of cpu that a task has used, or the children it has reaped."""
    fields = stat.read_text().rpartition(')')[2].split()
    return sum(map(int, fields[13:15] if children else fields[11:13])) / _TICK


def who_works(node: int) -> dict[str, float]:
    """Seconds of cpu so far: threads of this program and of the node, and its processes."""
    used: defaultdict[str, float] = defaultdict(float)
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    for task in Path('/proc/self/task').iterdir():
        name = names.get(int(task.name), 'ZeroMQ')
        used[f'program: {_TITLES.get(name, name)}'] += _cpu(task / 'stat')
    for task in Path(f'/proc/{node}/task').iterdir():
        name = 'its loop' if int(task.name) == node else 'ZeroMQ and others'
        used[f'node: {name}'] += _cpu(task / 'stat')
    for process in psutil.Process(node).children(recursive=True):
        stat = Path(f'/proc/{process.pid}/stat')
        try:
            name = 'workers' if process.name() in _WORKERS else 'zygote and template'
            own, of_children = _cpu(stat), _cpu(stat, children=True)
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile: its template has its time
        used[f'node: {name}'] += own
        used['node: processes of jobs that have ended'] += of_children
    return used


_TITLES = {'MainThread': "the user's thread", 'dispy-loop': 'its loop'}
_WORKERS = ('dispy worker',)


def whole_run(isolation: str, count: int) -> tuple[float, dict[str, float]]:
    """Jobs per second, and microseconds of cpu per job, by who spent them."""
    with (
        dispy_nb.LocalNodes(1, cpus=CPUS) as local,
        dispy_nb.JobCluster(
            same, nodes=local.nodes, ip_addr='127.0.0.1', isolation=isolation, progress=False
        ) as cluster,
    ):
        for number in range(CPUS):
            cluster.submit(number)
        cluster.wait()
        before, began = who_works(local.pids[0]), perf_counter()
        jobs = [cluster.submit(number) for number in range(count)]
        cluster.wait()
        seconds = perf_counter() - began
        after = who_works(local.pids[0])
        if [job.result for job in jobs] != list(range(count)):
            raise AssertionError('results are missing or wrong')
    return count / seconds, {
        who: (after[who] - before.get(who, 0.0)) / count * 1e6 for who in after
    }


def run_table(counts: dict[str, int]) -> Iterator[str]:
    """The lines of the second table."""
    runs = {isolation: whole_run(isolation, count) for isolation, count in counts.items()}
    yield '### stages: microseconds of cpu per job in a whole run, by who spent them'
    yield ''
    yield '| who | ' + ' | '.join(f"isolation='{isolation}'" for isolation in runs) + ' |'
    yield '| --- |' + ' --- |' * len(runs)
    for who in dict.fromkeys(who for _, spent in runs.values() for who in spent):
        yield f'| {who} | ' + ' | '.join(f'{s.get(who, 0):,.1f}' for _, s in runs.values()) + ' |'
    sums = (f'{sum(spent.values()):,.1f}' for _, spent in runs.values())
    yield '| **sum** | ' + ' | '.join(sums) + ' |'
    yield '| jobs/s | ' + ' | '.join(f'{rate:,.0f}' for rate, _ in runs.values()) + ' |'
    yield ''


def main() -> None:
    """Print both tables."""
    words = argparse.ArgumentParser(description='Where the time of a job goes.')
    words.add_argument('--quick', action='store_true', help='fewer jobs')
    quick = words.parse_args().quick
    part = 10 if quick else 1
    for line in stage_table({count: max(2, number // part) for count, number in BATCHES.items()}):
        print(line)
    for line in run_table({'worker': 50_000 // part, 'job': 3_000 // part}):
        print(line)


if __name__ == '__main__':
    main()
