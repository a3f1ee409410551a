"""`dispy demo`: measure every file of this Python's standard library, on nodes of this machine.

    files ──▶ cluster.submit(file) ──▶ nodes run measure(file) ──▶ job.result, job.exception

It is also the example to learn from: `run` is how a program uses a cluster, the rest is what this
one wants to know, and how it tells.
"""

import argparse
import ast
import io
import signal
import sys
import sysconfig
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from dispy_nb.cluster import JobCluster
from dispy_nb.job import DispyJob
from dispy_nb.local import LOOPBACK, LocalNodes
from dispy_nb.progress import progress_text
from nodeserver.cli.console import signal_status
from nodeserver.cli.options import add_option, count
from nodeserver.core.errors import UsageError

LIBRARY = Path(sysconfig.get_path('stdlib'))
PLAIN_INTERVAL = 2.0  # seconds between lines of progress that do not go to a terminal
FAILURES_SHOWN = 5
NOTABLE = 10  # ways through a function from which on it is worth telling of at once

# ---- the computation: what the nodes do with each file


class Function(NamedTuple):
    """A function found in a file; the more ways lead through it, the more complex it is."""

    complexity: int
    name: str
    file: str
    line: int


class Measure(NamedTuple):
    """What is known about one file."""

    lines: int
    functions: list[Function]


def measure(file: str) -> Measure:
    """Count the lines of a file of the library, and find its functions and their complexity.

    A file that is no Python fails here, and so does its job: `job.exception` says why.
    """
    source = (LIBRARY / file).read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # what the compiler thinks of the library's tests
        tree = ast.parse(source, file)
    return Measure(len(source.splitlines()), functions_of(tree, file))


def functions_of(tree: ast.Module, file: str) -> list[Function]:
    """List the functions of a parsed file with their cyclomatic complexity (McCabe)."""
    places: list[tuple[str, int]] = []
    forks: Counter[int] = Counter()
    left: list[tuple[ast.AST, int]] = [(tree, -1)]  # nodes, and the function they are in
    while left:
        node, owner = left.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            owner = len(places)
            places.append((node.name, node.lineno))
        elif type(node) in FORKS:
            forks[owner] += FORKS[type(node)](node)
        left += [
            (part, owner) for part in ast.iter_child_nodes(node) if not isinstance(part, LEAVES)
        ]
    return [
        Function(1 + forks[number], name, file, line) for number, (name, line) in enumerate(places)
    ]


def _one(node: Any) -> int:
    return 1


LEAVES = (ast.Name, ast.Constant, ast.expr_context, ast.operator, ast.cmpop, ast.unaryop)
# how many ways more there are through a function for each of these
FORKS: dict[type[ast.AST], Callable[[Any], int]] = {
    ast.If: _one,
    ast.IfExp: _one,
    ast.For: _one,
    ast.AsyncFor: _one,
    ast.While: _one,
    ast.ExceptHandler: _one,
    ast.match_case: _one,
    ast.comprehension: lambda node: 1 + len(node.ifs),
    ast.BoolOp: lambda node: len(node.values) - 1,
}


def measure_and_tell(file: str) -> Measure:
    """Measure a file, and tell of its most complex function ahead of the result.

    This is what is sent to the nodes: there `dispy_provisional_result` can be called without
    an import.
    """
    measured = measure(file)
    best = max(measured.functions, default=None)
    if best is not None and best.complexity >= NOTABLE:
        dispy_provisional_result(best)  # type: ignore[name-defined]  # noqa: F821
    return measured


# ---- the program: a cluster, a job for each file, and what came of it


def run(nodes: int = 2, cpus: int | None = None, limit: int | None = None) -> int:
    """Measure the library on a cluster, then in this process alone, and tell of both."""
    files = library_files(limit)
    with LocalNodes(nodes, cpus) as local:
        print(f'{nodes} node servers on this machine: {local.nodes}')
        print(f'{len(files)} files of the standard library in {LIBRARY}: a job for each\n')
        with JobCluster(
            measure_and_tell,
            nodes=local.nodes,
            ip_addr=LOOPBACK,
            callback=RecordKeeper(),
            isolation='worker',  # a file takes milliseconds: a process for each would cost more
            name='measure',
        ) as cluster:
            began = time.perf_counter()
            jobs = [cluster.submit(file) for file in files]
            wait_for_jobs(cluster)
            seconds = time.perf_counter() - began
            tell_results(files, jobs)
            cluster.print_status()
    compare_with_one_process(files, jobs, seconds)
    return 0


def library_files(limit: int | None = None) -> list[str]:
    """List all files of the library, tests included; at most `limit`, from all over it."""
    files = sorted(
        str(path.relative_to(LIBRARY))
        for path in LIBRARY.rglob('*.py')
        if not {'site-packages', 'dist-packages'} & set(path.parts)
    )
    if limit is None or limit >= len(files):
        return files
    return [files[number * len(files) // limit] for number in range(limit)]


class RecordKeeper:
    """A callback: called with each provisional result, it tells of new records at once."""

    def __init__(self) -> None:
        self.complexity = 0

    def __call__(self, job: DispyJob) -> None:
        """Look whether the job has found a function more complex than all before."""
        if job.status == DispyJob.ProvisionalResult and job.result.complexity > self.complexity:
            self.complexity = job.result.complexity
            print(f'most complex so far: {self.complexity:4}  {place_of(job.result)}')


def wait_for_jobs(cluster: JobCluster) -> None:
    """Wait, with progress: one moving line on a terminal, plain lines anywhere else."""
    if sys.stderr.isatty():
        cluster.wait()
        return
    while not cluster.wait(timeout=PLAIN_INTERVAL):
        print(progress_text(cluster.snapshot(), bar=False), flush=True)


# ---- the report


def tell_results(files: Sequence[str], jobs: Sequence[DispyJob]) -> None:
    """Print what the nodes have found, and what has failed."""
    measures = [job.result for job in jobs if job.status == DispyJob.Finished]
    functions = [function for measure in measures for function in measure.functions]
    lines = sum(measure.lines for measure in measures)
    print(f'\n{lines:,} lines with {len(functions):,} functions in {len(measures):,} files')
    tell_failures(files, jobs)
    print('\nThe most complex functions (ways through them)')
    for function in sorted(functions, reverse=True)[:10]:
        print(f'{function.complexity:6}  {place_of(function)}')


def tell_failures(files: Sequence[str], jobs: Sequence[DispyJob]) -> None:
    """Print how many files could not be measured, by kind of exception, and the first ones."""
    failed = [
        (file, (job.exception or '').strip().rpartition('\n')[2])
        for file, job in zip(files, jobs, strict=True)
        if job.status != DispyJob.Finished
    ]
    kinds = Counter(reason.partition(':')[0] for _, reason in failed)
    counts = ', '.join(f'{number} with {kind}' for kind, number in kinds.most_common())
    print(f'files that failed: {len(failed)}' + (f', {counts}' if failed else ''))
    for file, reason in failed[:FAILURES_SHOWN]:
        print(f'  {file}: {reason}')
    if len(failed) > FAILURES_SHOWN:
        print(f'  and {len(failed) - FAILURES_SHOWN} more')


def compare_with_one_process(
    files: Sequence[str], jobs: Sequence[DispyJob], seconds: float
) -> None:
    """Do the same without a cluster, and say which was faster, and whether both agree."""
    print('\nThe same in one process, without a cluster ...', flush=True)
    began = time.perf_counter()
    alone = [measure_or_none(file) for file in files]
    alone_seconds = time.perf_counter() - began
    same = 'the same results' if alone == [job.result for job in jobs] else 'OTHER RESULTS'
    print(f'cluster: {seconds:.1f} s, one process: {alone_seconds:.1f} s, {same}')
    if seconds <= alone_seconds:
        print(f'The cluster was {alone_seconds / seconds:.2f} times as fast.')
    else:
        print(f'One process was {seconds / alone_seconds:.2f} times as fast as the cluster.')


def measure_or_none(file: str) -> Measure | None:
    """Measure a file as a job would; None where the job fails."""
    try:
        return measure(file)
    except Exception:  # noqa: BLE001 - as a node does it: whatever happens concerns one job
        return None


def place_of(function: Function) -> str:
    """Say where a function is."""
    return f'{function.name}  {function.file}:{function.line}'


# ---- the command


def add_demo_parser(subparsers: 'argparse._SubParsersAction[Any]') -> None:
    """Add `demo` to the `dispy` command."""
    parser = subparsers.add_parser(
        'demo',
        help='a cluster on this machine measures the standard library',
        description='Start nodes on this machine, and measure every file of the standard '
        'library on them: lines, functions and their complexity.',
    )
    add_option(parser, '--nodes', type=count, default=2, metavar='N', help=_NODES_HELP)
    add_option(parser, '--cpus', type=count, metavar='N', help=_CPUS_HELP)
    add_option(parser, '--limit', type=count, metavar='N', help='measure only so many files')
    parser.set_defaults(run=run_demo)


_NODES_HELP = 'node servers to start (default: %(default)s)'
_CPUS_HELP = "cpus of each (default: this machine's are divided among them)"


def run_demo(arguments: argparse.Namespace) -> int:
    """Run the demo as a program of its own: whatever ends it, its nodes end with it."""
    if not arguments.nodes or arguments.cpus == 0 or arguments.limit == 0:
        raise UsageError('--nodes, --cpus and --limit are whole numbers from 1 on')
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # records are news, also through a pipe
    return run(arguments.nodes, arguments.cpus, arguments.limit)


def _end(number: int, frame: FrameType | None) -> None:
    """Leave through all `with` blocks, as Ctrl-C does."""
    sys.exit(signal_status(number))
