"""Which workloads there are, on which systems, and what is asked of dispy-nb in them."""

from dataclasses import dataclass

from benchmarks import workloads as w
from benchmarks.workloads import Workload

OURS = ('dispy-worker', 'dispy-job')
PEERS = ('ray', 'dask', 'ipyparallel', 'parsl')
_SLOW = {'ray': 4_000, 'dask': 1_000, 'ipyparallel': 1_000, 'parsl': 2_000}

WORKLOADS: dict[str, Workload] = {
    'submits': Workload(
        'single submits of a job that does nothing',
        'jobs/s',
        w.submits,
        (*OURS, 'pool', 'pool-fresh', 'executor', 'joblib', *PEERS),
        20_000,
        {'dispy-job': 2_000, 'pool-fresh': 600, **_SLOW},
    ),
    'map': Workload(
        'one map over many values',
        'calls/s',
        w.bulk,
        ('dispy-worker', 'pool', 'executor', 'joblib', *PEERS),
        100_000,
        {'ray': 4_000, 'dask': 2_000, 'parsl': 2_000},
    ),
    'lone': Workload(
        'one job alone, submitted and waited for',
        'us',
        w.lone,
        (*OURS, 'pool', 'executor', 'joblib', *PEERS),
        1_000,
        {'ipyparallel': 200, 'dask': 200, 'dispy-job': 500},
        more_is_better=False,
        baseline='executor',
    ),
    'beside': Workload(
        'jobs of 5 ms beside a busy thread of the program',
        'x ideal',
        w.beside,
        (*OURS, 'pool', 'executor', *PEERS),
        400,
        more_is_better=False,
        digits=3,
    ),
    'short': Workload(
        'jobs that compute for 5 ms',
        'of ideal',
        w.short,
        (*OURS, 'pool', 'fork', 'executor', 'joblib', *PEERS),
        2_000,
        {'executor': 400, 'joblib': 400, **dict.fromkeys(PEERS, 400)},
        digits=3,
    ),
    'mixed': Workload(
        'jobs of 1 ms and of 500 ms in random order',
        'x ideal',
        w.mixed,
        (*OURS, 'pool', 'executor', *PEERS),
        100,
        more_is_better=False,
        digits=3,
    ),
    'arrays': Workload(
        'arrays of 10 MB there and back',
        'MB/s',
        w.arrays,
        (*OURS, 'pool', 'executor', 'joblib', *PEERS),
        20,
        least=2,
    ),
    'shared': Workload(
        'one array of 100 MB for 20 jobs, placed once',
        's',
        w.shared,
        (*OURS, 'joblib', 'ray', 'dask'),
        20,
        least=2,
        more_is_better=False,
        baseline='ray',
        digits=3,
    ),
    'repeated': Workload(
        'one array of 100 MB passed to each of 20 jobs',
        's',
        w.repeated,
        (*OURS, 'executor', 'ipyparallel', 'parsl'),
        20,
        least=2,
        more_is_better=False,
        baseline='executor',
        rounds=2,
        digits=2,
    ),
    'setup': Workload(
        'jobs beside an array of 2 GB that setup loaded: until the slowest began',
        'ms',
        w.in_memory,
        ('dispy-job',),
        40,
        least=2,
        more_is_better=False,
        baseline='dispy-job',
        rounds=2,
        digits=1,
    ),
    'program': Workload(
        'a new program, nodes running: import to first result',
        's',
        w.program,
        OURS,
        1,
        more_is_better=False,
        baseline='dispy-worker',
        digits=3,
    ),
    'start': Workload(
        'nothing running: start to first result',
        's',
        w.start,
        (*OURS, 'pool', 'executor', 'joblib', *PEERS),
        1,
        more_is_better=False,
        digits=3,
    ),
    'queued': Workload(
        'memory of the program for each queued job',
        'bytes',
        w.queued,
        ('dispy-worker', 'pool', 'executor', 'joblib', *PEERS),
        100_000,
        dict.fromkeys(PEERS, 5_000),
        more_is_better=False,
        rounds=1,
    ),
    'million': Workload(
        '1,000,000 jobs queued and done',
        's',
        w.million,
        ('dispy-worker',),
        1_000_000,
        least=1_000,
        more_is_better=False,
        baseline='dispy-worker',
        rounds=1,
        digits=1,
    ),
    'killed': Workload(
        'results of 200 jobs of 50 ms when a worker is killed',
        'results',
        w.killed,
        (*OURS, 'pool', 'executor', 'joblib', *PEERS),
        200,
        rounds=1,
    ),
}


@dataclass(frozen=True)
class Target:
    """What is asked of one system in one workload: a ratio to another system, or a figure."""

    workload: str
    system: str
    bound: float
    against: str = ''  # '': the bound is on the figure itself

    @property
    def words(self) -> str:
        """The target as people read it."""
        sign = '>=' if WORKLOADS[self.workload].more_is_better else '<='
        if self.against:
            return f'{sign} {self.bound:g} x {self.against}'
        return f'{sign} {self.bound:,g} {WORKLOADS[self.workload].unit}'

    def is_met(self, reached: float) -> bool:
        """Whether the figure, or the ratio, is good enough."""
        if WORKLOADS[self.workload].more_is_better:
            return reached >= self.bound
        return reached <= self.bound


TARGETS = (
    Target('submits', 'dispy-worker', 2.5, 'pool'),
    Target('submits', 'dispy-job', 2.0, 'pool-fresh'),
    Target('map', 'dispy-worker', 500_000),
    Target('lone', 'dispy-worker', 1.0, 'executor'),
    Target('lone', 'dispy-job', 2.5, 'executor'),
    Target('beside', 'dispy-worker', 1.25),
    Target('short', 'dispy-worker', 0.98, 'pool'),
    Target('short', 'dispy-job', 0.9, 'fork'),
    Target('mixed', 'dispy-worker', 1.05),
    Target('mixed', 'dispy-job', 1.05),
    Target('arrays', 'dispy-worker', 800),
    Target('arrays', 'dispy-job', 800),
    Target('shared', 'dispy-worker', 1.0, 'ray'),
    Target('setup', 'dispy-job', 20),
    Target('program', 'dispy-worker', 0.5),
    Target('program', 'dispy-job', 0.5),
    Target('start', 'dispy-worker', 1.0),
    Target('start', 'dispy-job', 1.0),
    Target('queued', 'dispy-worker', 1_000),
)
