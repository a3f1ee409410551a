"""Subcommands that act on clusters: each calls the method of its name, and shows what that says."""

import argparse
from collections.abc import Callable
from typing import Any

from IPython.core.error import UsageError
from IPython.display import display

from dispy_nb import closing, local
from dispy_nb.cells import statement_about
from dispy_nb.cluster import Cluster, JobCluster
from dispy_nb.notebook.magics.arguments import cluster_options
from dispy_nb.notebook.magics.clusters import (
    bound_clusters,
    find_cluster,
    find_job,
    names_of,
    pending_jobs,
    take_cluster,
)
from dispy_nb.notebook.magics.words import call_of, check_name, is_expression, unquoted, value_of
from dispy_nb.notebook.tables import Table
from dispy_nb.sharedcluster import SharedJobCluster

FIRST_STEPS = (
    '`%dispy start` starts node servers on this machine, `%dispy nodes` looks for others, and '
    '`%dispy cluster NAME FUNCTION` makes a cluster; `%dispy?` lists all subcommands'
)
_STATE = ('variable', 'cluster', 'waiting', 'running', 'finished', 'failed', 'cancelled', 'nodes')


def show_state(shell: Any) -> None:
    """Show the clusters of this kernel, and the node servers that it has started."""
    bound = bound_clusters(shell)
    found = list(dict.fromkeys((*closing.open_clusters(), *bound.values())))
    groups = local.running_nodes()
    notes = [f'node servers started here: {line}' for line in map(server_lines, groups)]
    if not found:
        notes.insert(0, 'no cluster yet')
    if not found or not groups:
        notes.append(FIRST_STEPS)
    Table((*_STATE, ''), [_state_of(each, bound) for each in found], notes=notes).show()


def server_lines(group: local.LocalNodes) -> str:
    """Say what servers are called, where they listen, and how many cpus each has."""
    cpus = f'{group.cpus} cpu{"" if group.cpus == 1 else "s"}'
    pairs = zip(group.names, group.nodes, strict=True)
    return ', '.join(f'{name} at {host}:{port} with {cpus}' for name, (host, port) in pairs)


def _state_of(cluster: Cluster, bound: dict[str, Cluster]) -> tuple[object, ...]:
    s = cluster.snapshot()
    nodes = 0 if s.closed else sum(not node.closed for node in s.nodes)
    words = 'closed' if s.closed else s.notice if s.pending else ''
    names = ', '.join(names_of(cluster, bound))
    return names, s.name, s.waiting, s.running, s.finished, s.failed, s.cancelled, nodes, words


def make_cluster(shell: Any, given: argparse.Namespace) -> None:
    """Make a cluster, bind it to a variable, and show it."""
    name = check_name(given.variable, 'NAME')
    function = value_of(shell, given.function)
    options = cluster_options(shell, given)
    if name in shell.user_ns and shell.user_ns[name] is function:
        raise UsageError(f'{name} is the function: choose another name for the cluster')
    make: Callable[..., Any] = SharedJobCluster if given.shared else JobCluster
    with statement_about(name):  # as `NAME = JobCluster(...)` would be: run again, it is the same
        shell.user_ns[name] = cluster = make(function, **options)
    display(cluster)  # type: ignore[no-untyped-call]


def submit(shell: Any, given: argparse.Namespace) -> Any:
    """Submit a job, and return it."""
    args, kwargs = call_of(shell, given.args)
    return find_cluster(shell, given.cluster).submit(*args, **kwargs)


def map_calls(shell: Any, given: argparse.Namespace) -> Any:
    """Call the function for each item; bind the list of results, or return it."""
    cluster = find_cluster(shell, given.cluster)
    if given.output is not None:
        check_name(given.output, '-o')
    iterables = [value_of(shell, word) for word in given.iterables]
    results = cluster.map(*iterables, chunksize=given.chunksize)
    if given.output is None:
        return results
    shell.user_ns[given.output] = results
    return None


def list_jobs(shell: Any, given: argparse.Namespace) -> None:
    """Show pending jobs."""
    cluster = find_cluster(shell, given.cluster)
    if given.rows < 1:
        raise UsageError(f'-n must be at least 1, not {given.rows}')
    s = cluster.snapshot(jobs=given.rows)
    rows = [
        (each.id, each.status, each.node, round(each.seconds, 1), each.arguments) for each in s.jobs
    ]
    ended = f'{s.ended} ended: {s.finished} finished, {s.failed} failed, {s.cancelled} cancelled'
    notes = [f'{s.pending} pending jobs; {ended}']
    if s.pending > len(rows):
        notes.insert(0, f'and {s.pending - len(rows)} more')
    Table(('job', 'status', 'node', 'seconds', 'arguments'), rows, s.name, notes).show()


def cancel(shell: Any, given: argparse.Namespace) -> None:
    """Cancel pending jobs, and say how many."""
    cluster, words = take_cluster(shell, given.words)
    if bool(words) is given.all:
        raise UsageError('give ids of jobs, or --all' + (', not both' if words else ''))
    if given.all:
        jobs = pending_jobs(cluster)
        cluster._cancel_all(jobs)
        print(f'{cluster.name}: {_jobs(len(jobs))} cancelled')
        return
    jobs = [find_job(shell, cluster, word) for word in words]
    cancelled = [job for job in jobs if cluster.cancel(job) == 0]
    print(f'{cluster.name}: {_jobs(len(cancelled))} cancelled')
    if len(cancelled) < len(jobs):
        print(f'{_jobs(len(jobs) - len(cancelled))} had ended already')


def explain(shell: Any, given: argparse.Namespace) -> None:
    """Say why jobs wait, or how it stands with one of them."""
    cluster, words = take_cluster(shell, given.words)
    if len(words) > 1:
        raise UsageError(f'{words[1]} is one word too many: explain takes one job at a time')
    print(cluster.explain(find_job(shell, cluster, words[0]) if words else None))


def print_stats(shell: Any, given: argparse.Namespace) -> None:
    """Print what each node has done."""
    find_cluster(shell, given.cluster).stats()


def wait(shell: Any, given: argparse.Namespace) -> bool:
    """Wait until all jobs have ended; whether they have."""
    return find_cluster(shell, given.cluster).wait(given.timeout)


def close(shell: Any, given: argparse.Namespace) -> bool:
    """Wait for the jobs, and close; whether it is closed."""
    return find_cluster(shell, given.cluster).close(given.timeout, given.terminate)


def charts(shell: Any, given: argparse.Namespace) -> Any:
    """Return live charts, which the cell shows."""
    return find_cluster(shell, given.cluster).charts()


def plot(shell: Any, given: argparse.Namespace) -> Any:
    """Return a live chart of provisional results, which the cell shows."""
    cluster, words = take_cluster(shell, given.words)
    if len(words) != 2:
        raise UsageError(f'plot takes X and Y, not {" ".join(words) or "nothing"}')
    x, y = (_part_of_result(shell, word) for word in words)
    return cluster.plot(x, y)


def _part_of_result(shell: Any, word: str) -> Any:
    """Read what to plot: an expression, an index, a function of the notebook, or else a key."""
    value = shell.user_ns.get(word)
    if is_expression(word) or word == 'None' or word.removeprefix('-').isdecimal():
        return value_of(shell, word)
    return value if callable(value) else unquoted(word)


def _jobs(count: int) -> str:
    return '1 job' if count == 1 else f'{count} jobs'
