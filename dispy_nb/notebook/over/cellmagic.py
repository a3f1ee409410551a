"""`%%dispy --over NAME=EXPR`: parse, compile, say what is sent, run, bind the results (V06)."""

import argparse
import itertools
from collections.abc import Iterator
from typing import Any

from IPython.core.error import UsageError
from IPython.display import display

from dispy_nb.cells import statement_about
from dispy_nb.cluster import Cluster, JobCluster
from dispy_nb.notebook.magics.arguments import (
    LineParser,
    add_cluster_options,
    cluster_options,
    with_flags,
)
from dispy_nb.notebook.magics.errors import show_as
from dispy_nb.notebook.magics.words import check_name, split, unquoted, value_of
from dispy_nb.notebook.over.body import compile_body, function_of, read_cell
from dispy_nb.notebook.over.running import OverRun, RunsFailed, Values
from dispy_nb.notebook.over.sending import described, variables_of
from nodeserver.core.status import JobStatus

MOST_RUNS = 1_000_000
PATIENCE = 2.5  # seconds until somebody who waits is told that there is no node
USAGE = '--over NAME=EXPR ... [-o VAR] [--name RUN] [--noblock] [--PARAMETER VALUE ...]'


def over_parser() -> LineParser:
    """Make the parser of the line."""
    parser = LineParser('%%dispy', 'run the body of the cell on the nodes, once for each value')
    parser.usage = f'%%%%dispy {USAGE}'  # argparse makes % of two
    parser.add_argument('--over', action='append', metavar='NAME=EXPR', help='values of a name')
    parser.add_argument('-o', '--output', metavar='VAR', help='the variable for the results')
    parser.add_argument('--noblock', action='store_true', help='go on at once; VAR is an OverRun')
    add_cluster_options(parser)
    return parser


def overview() -> str:
    """Say how the magic is used."""
    return f"""Run the body of the cell on the nodes, once for each value.

    %%dispy {USAGE}

--over NAME=EXPR  the body runs with NAME set to each item of EXPR, a Python expression; one with
                  spaces outside of brackets stands in brackets.  Several --over make all
                  combinations, the last one changing first; --over a,b=zip(A, B) sets two at once
-o VAR            binds the values of the last expression, in order; else the cell shows them
--name RUN        what the cluster is called
--noblock         goes on at once: VAR is a handle with results(), jobs, cancel(), and `await`
--nodes, --cpus, --memory, --isolation, --reentrant ...  parameters of JobCluster, by name

Variables that the body sets are local to each run; those that it reads are sent, and named before.
A run that fails stops no other one; its exception stands in the place of its value.
"""


def run_over(shell: Any, line: str, cell: str) -> Any:
    """Run a cell; its value, if that is not bound to a variable."""
    given = _parsed(line)
    if not given.over:
        raise UsageError(f'%%dispy needs --over: %%dispy {USAGE}')
    if given.output is not None:
        check_name(given.output, '-o')
    factors = [_factor(word) for word in given.over]
    names = _names(factors)
    source = read_cell(shell, line, cell)
    body = compile_body(shell, source, names)
    options = cluster_options(shell, given)
    runs = _combinations(shell, factors)
    if not runs:
        print(f'{" and ".join(given.over)}: no values, and nothing was run')
        return _bound(shell, given.output, [])
    function = function_of(shell, body)
    print(described(shell, variables_of(shell, function)))
    options.setdefault('name', f'over {", ".join(names)}')
    if given.noblock:
        options['progress'] = False
    with statement_about(''):  # each run has a cluster of its own
        cluster = JobCluster(function, **options)
    run = OverRun(cluster, runs)
    if hasattr(shell, 'kernel'):
        display(cluster)  # type: ignore[no-untyped-call]
    if given.noblock:
        return _begin(shell, given.output, run)
    return _finish(shell, given.output, run)


def _parsed(line: str) -> argparse.Namespace:
    try:
        return over_parser().parse(with_flags(split(line), assignments=False))
    except UsageError as error:
        if 'one word too many' not in str(error):
            raise
        raise UsageError(
            f'{error}; write NAME=EXPR without spaces, and an expression that has some in brackets'
        ) from None


# values

Factor = tuple[list[str], str]  # names that are set together, and the expression


def _factor(word: str) -> Factor:
    names, equals, expression = unquoted(word).partition('=')
    if not equals or not expression.strip():
        raise UsageError(f'--over takes NAME=EXPR, not {word}')
    return [_parameter(name.strip()) for name in names.split(',')], expression.strip()


def _parameter(name: str) -> str:
    return check_name(name, 'NAME of --over')


def _names(factors: list[Factor]) -> list[str]:
    names = [name for group, _ in factors for name in group]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UsageError(f'--over sets {twice[0]} twice')
    return names


def _combinations(shell: Any, factors: list[Factor]) -> list[Values]:
    """Return the values of each run: all combinations, the last factor changing first."""
    columns = [_items(shell, *factor) for factor in factors]
    count = 1
    for column in columns:
        count *= len(column)
    _check_count(count)
    return [
        {name: value for part in parts for name, value in part.items()}
        for parts in itertools.product(*columns)
    ]


def _items(shell: Any, names: list[str], expression: str) -> list[Values]:
    value = value_of(shell, expression)
    try:
        iterator = iter(value)
    except TypeError:
        kind = type(value).__name__
        raise UsageError(
            f'--over {",".join(names)}={expression}: a value of type {kind} has no items'
        ) from None
    return list(_named_items(names, expression, iterator))


def _named_items(names: list[str], expression: str, items: Iterator[Any]) -> Iterator[Values]:
    for place, item in enumerate(items):
        _check_count(place + 1)
        if len(names) == 1:
            yield {names[0]: item}
            continue
        try:
            parts = list(item)
        except TypeError:
            parts = [item]
        if len(parts) != len(names):
            raise UsageError(
                f'--over {",".join(names)}={expression}: item {place} has {len(parts)} parts, '
                f'not {len(names)}'
            )
        yield dict(zip(names, parts, strict=True))


def _check_count(count: int) -> None:
    if count > MOST_RUNS:
        raise UsageError(f'--over: at most {MOST_RUNS:,} runs; run over slices of the values')


# running


def _begin(shell: Any, output: str | None, run: OverRun) -> Any:
    try:
        run.submit()
    except BaseException:
        run.cluster.close(timeout=0, terminate=True)
        raise
    run.close_at_the_end()
    return _bound(shell, output, run)


def _finish(shell: Any, output: str | None, run: OverRun) -> Any:
    """Run all, and bind what there is, also if some fail or somebody has enough."""
    cluster = run.cluster
    try:
        run.submit()
        _wait(cluster)
        cluster.close()
    except KeyboardInterrupt as interrupt:
        cluster.close(timeout=0, terminate=True)
        _tell_of_interrupt(shell, output, run, interrupt)
        raise
    except BaseException:
        cluster.close(timeout=0, terminate=True)
        raise
    run.print_outputs()
    if output:
        shell.user_ns[output] = run.outcomes()
    try:
        results = run.results()
    except RunsFailed as error:
        show_as(error, f'RunsFailed: {error}\n{_where(output)}')
        raise
    return None if output else results


def _wait(cluster: Cluster) -> None:
    """Wait for all runs; whoever interrupts this wants them cancelled, unlike with `wait()`."""
    with cluster._progress_line():
        if not cluster._shell.wait_idle(PATIENCE):
            _tell_of_nodes(cluster)
            cluster._shell.wait_idle(None)


def _bound(shell: Any, output: str | None, value: Any) -> Any:
    """Bind a value to a variable, or return it for the cell to show."""
    if output is None:
        return value
    shell.user_ns[output] = value
    return None


def _where(output: str | None) -> str:
    place = output or 'sys.last_value.results'
    return f'{place} has the values of the others, and exceptions in the places of these'


def _tell_of_nodes(cluster: Cluster) -> None:
    """Say what can be done if no node was found."""
    rows = cluster._runtime.list_nodes().rows
    usages = [each for row in rows for each in row.usages]
    if any(each.is_met and each.computation == cluster._computation for each in usages):
        return
    if not cluster.snapshot().notice:  # else the log and the display have said that already
        print(cluster.explain())
    print('`%dispy start` starts node servers on this machine: interrupt the cell for that')


def _tell_of_interrupt(
    shell: Any, output: str | None, run: OverRun, interrupt: KeyboardInterrupt
) -> None:
    """Bind what there is, and show in words what has become of the others."""
    outcomes = run.outcomes()
    if output:
        shell.user_ns[output] = outcomes
    finished = sum(job.status == JobStatus.FINISHED for job in run.jobs)
    text = (
        f'KeyboardInterrupt: {finished} of {len(run)} runs have finished, the others were cancelled'
    )
    if output:
        text += f'; {output} has the values of those that finished, and exceptions for the others'
    show_as(interrupt, text)
