"""Subcommands about nodes and this machine: node servers, keys, jobs of ended programs."""

import argparse
import getpass
from typing import Any

from IPython.core.error import UsageError

from dispy_nb import closing, keycommand, local
from dispy_nb.cluster import Cluster
from dispy_nb.job import DispyJob
from dispy_nb.notebook.magics.clusters import find_cluster
from dispy_nb.notebook.magics.nodetable import node_table
from dispy_nb.notebook.magics.verbs import server_lines
from dispy_nb.notebook.magics.words import unquoted, value_of
from dispy_nb.recovery.attaching import attach
from dispy_nb.recovery.recovering import recover_jobs
from dispy_nb.sharedcluster import SharedJobCluster


def start(shell: Any, given: argparse.Namespace) -> None:
    """Start node servers on this machine, and say what they are called."""
    before = local.running_nodes()
    group = local.start_nodes(given.nodes, given.cpus)
    if group in before:  # the cell was run again (V16)
        print(f'runs already: {server_lines(group)}')
        return
    for cluster in closing.open_clusters():
        if _looks_everywhere(cluster):  # as if it had been made after them
            cluster.allocate_node(group.nodes)
    print(f'started {server_lines(group)}')


def _looks_everywhere(cluster: Cluster) -> bool:
    """Whether a cluster asked for any node, with this user's own key."""
    options = cluster._options
    if options.secret or options.insecure or isinstance(cluster, SharedJobCluster):
        return False  # a scheduler elsewhere knows nothing of this machine's loopback interface
    return any(
        each.host == '*' and not each.cpus and not each.decides_itself
        for each in cluster._shell.allocations
    )


def stop(shell: Any, given: argparse.Namespace) -> None:
    """End all node servers that this kernel has started."""
    groups = local.running_nodes()
    names = [name for group in groups for name in group.names]
    for group in groups:
        group.close()
    print(f'ended {", ".join(names)}' if names else 'no node server was started here')


def show_nodes(shell: Any, given: argparse.Namespace) -> None:
    """Show the nodes found, and the reason for each that is not used."""
    node_table(None if given.cluster is None else find_cluster(shell, given.cluster)).show()


def key(shell: Any, given: argparse.Namespace) -> None:
    """Do what `dispy key` does."""
    if given.action == 'import':
        _import_key(given)
    elif given.text or given.replace:
        raise UsageError(f'key {given.action} takes nothing more')
    else:
        _KEY_ACTIONS[given.action](given)


_KEY_ACTIONS = {
    'show': keycommand.run_show,
    'path': keycommand.run_path,
    'export': keycommand.run_export,
    'rotate': keycommand.run_rotate,
}
KEY_ACTIONS = (*_KEY_ACTIONS, 'import')


def _import_key(given: argparse.Namespace) -> None:
    """Take a key; one that was not given is asked for, so that the notebook does not have it."""
    is_in_cell = bool(given.text)
    if not is_in_cell:
        given.text = [getpass.getpass('the line that `dispy key export` wrote: ')]
    given.text = ' '.join(given.text) or ' '
    keycommand.run_import(given)
    if is_in_cell:
        print('the key stands in this cell: take it out before you share the notebook')


def recover(shell: Any, given: argparse.Namespace) -> list[DispyJob]:
    """Fetch the jobs of a program that was killed, and return them."""
    return recover_jobs(unquoted(given.file), given.timeout, given.terminate)


def attach_to(shell: Any, given: argparse.Namespace) -> Cluster:
    """Have the cluster of a kernel that has ended, and return it."""
    name = None if given.name is None else unquoted(given.name)
    functions = {
        each: value_of(shell, word)
        for each in ('callback', 'cluster_status')
        if (word := getattr(given, each)) is not None
    }
    return attach(name, **functions)
