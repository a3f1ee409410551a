"""All subcommands of `%dispy`: help, parsers and completion come from this one table."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dispy_nb import doctorcommand
from dispy_nb.notebook.magics import doctor, machines, verbs
from dispy_nb.notebook.magics.arguments import LineParser, add_cluster_options, with_flags

Run = Callable[[Any, argparse.Namespace], Any]


@dataclass(frozen=True, slots=True)
class Subcommand:
    """One subcommand: what it takes, and what it does with that."""

    usage: str  # for people: its name, and what follows it
    help: str
    run: Run
    add_arguments: Callable[[LineParser], None] = lambda parser: None
    prepare: Callable[[list[str]], list[str]] = lambda words: words

    @property
    def name(self) -> str:
        """The first word of a line."""
        return self.usage.partition(' ')[0]

    def parser(self) -> LineParser:
        """Make the parser of the words that follow the name."""
        parser = LineParser(f'%dispy {self.name}', self.help)
        parser.usage = f'%%dispy {self.usage}'  # argparse fills in what stands behind a %
        parser.set_defaults(subcommand=self.name)
        self.add_arguments(parser)
        return parser


def _start(parser: LineParser) -> None:
    parser.add_argument('-n', '--nodes', type=int, default=1, help='how many servers (1)')
    parser.add_argument('-c', '--cpus', type=int, help="cpus of each (the machine's, divided)")


def _optional_cluster(parser: LineParser) -> None:
    parser.add_argument('cluster', nargs='?', metavar='NAME', help='a variable, or its own name')


def _cluster(parser: LineParser) -> None:
    parser.add_argument('variable', metavar='NAME', help='the variable to bind the cluster to')
    parser.add_argument('function', metavar='FUNCTION', help='a function, or "\'path\'"')
    parser.add_argument('--shared', action='store_true', help='make a SharedJobCluster')
    add_cluster_options(parser)
    parser.epilog = (
        "Options are the constructor's parameters by name, with hyphens or underscores, or as "
        'name=value: --cpus 2, --isolation worker, --nodes 10.0.0.*,bigbox, --callback f, '
        '--reentrant. Values are Python, but for those that are texts.'
    )


def _submit(parser: LineParser) -> None:
    parser.add_argument('cluster', metavar='NAME', help='a variable, or its own name')
    parser.add_argument(
        'args', nargs=argparse.REMAINDER, metavar='ARGS', help='Python, or name=Python'
    )


def _map(parser: LineParser) -> None:
    parser.add_argument('cluster', metavar='NAME', help='a variable, or its own name')
    parser.add_argument('iterables', nargs='+', metavar='ITERABLE', help='Python')
    parser.add_argument('-o', '--output', metavar='VAR', help='the variable for the results')
    parser.add_argument('--chunksize', type=int, help='calls in one job')


def _jobs(parser: LineParser) -> None:
    _optional_cluster(parser)
    parser.add_argument('-n', '--rows', type=int, default=20, help='most jobs to show (20)')


def _words(metavar: str) -> Callable[[LineParser], None]:
    return lambda parser: _add_words(parser, metavar)


def _add_words(parser: LineParser, metavar: str) -> None:
    parser.add_argument('words', nargs='*', metavar=metavar, help='see the first line')


def _cancel(parser: LineParser) -> None:
    _add_words(parser, 'NAME [IDS]')
    parser.add_argument('--all', action='store_true', help='all pending jobs')


def _wait(parser: LineParser) -> None:
    _optional_cluster(parser)
    parser.add_argument('-t', '--timeout', type=float, metavar='SECONDS', help='at most so long')


def _close(parser: LineParser) -> None:
    _wait(parser)
    parser.add_argument('--terminate', action='store_true', help='then cancel what is pending')


def _key(parser: LineParser) -> None:
    parser.add_argument('action', choices=machines.KEY_ACTIONS, metavar='ACTION')
    parser.add_argument('text', nargs='*', metavar='TEXT', help='the exported line; else asked for')
    parser.add_argument('--replace', action='store_true', help='overwrite a different key')


def _recover(parser: LineParser) -> None:
    parser.add_argument('file', metavar='FILE', help='its recover_file')
    parser.add_argument('-t', '--timeout', type=float, metavar='SECONDS', help='at most so long')
    parser.add_argument('--terminate', action='store_true', help='then end what runs')


def _attach(parser: LineParser) -> None:
    parser.add_argument('name', nargs='?', metavar='NAME', help='its own name, or its file')
    for name in ('callback', 'cluster_status'):
        names = dict.fromkeys((f'--{name.replace("_", "-")}', f'--{name}'))
        parser.add_argument(*names, dest=name, metavar='FUNCTION', help='as of a new cluster')


_ALL = (
    Subcommand(
        'start [-n NODES] [-c CPUS]',
        'start node servers on this machine; they end with the kernel',
        machines.start,
        _start,
    ),
    Subcommand('stop', 'end the node servers that were started here', machines.stop),
    Subcommand(
        'nodes [NAME]',
        'the nodes found, and why some are not used',
        machines.show_nodes,
        _optional_cluster,
    ),
    Subcommand(
        'cluster NAME FUNCTION [--PARAMETER VALUE ...]',
        'make a cluster for a function, and show it',
        verbs.make_cluster,
        _cluster,
        with_flags,
    ),
    Subcommand('submit NAME [ARGS ...]', 'submit a job, and return it', verbs.submit, _submit),
    Subcommand(
        'map NAME ITERABLE ... [-o VAR] [--chunksize N]',
        'call the function for each item; results in order',
        verbs.map_calls,
        _map,
    ),
    Subcommand('jobs [NAME] [-n ROWS]', 'the pending jobs', verbs.list_jobs, _jobs),
    Subcommand('cancel [NAME] IDS ...|--all', 'cancel pending jobs', verbs.cancel, _cancel),
    Subcommand(
        'explain [NAME] [ID]',
        'why jobs wait, or what became of one',
        verbs.explain,
        _words('NAME [ID]'),
    ),
    Subcommand('stats [NAME]', 'what each node has done', verbs.print_stats, _optional_cluster),
    Subcommand('wait [NAME] [-t SECONDS]', 'wait until all jobs have ended', verbs.wait, _wait),
    Subcommand(
        'close [NAME] [-t SECONDS] [--terminate]',
        'wait for the jobs, and close the cluster',
        verbs.close,
        _close,
    ),
    Subcommand('charts [NAME]', 'live charts of nodes and jobs', verbs.charts, _optional_cluster),
    Subcommand(
        'plot [NAME] X Y', 'a live chart of provisional results', verbs.plot, _words('NAME X Y')
    ),
    Subcommand(
        'key show|path|export|import|rotate',
        "this user's own key, as `dispy key`",
        machines.key,
        _key,
    ),
    Subcommand(
        'doctor [HOST[:PORT] ...]',
        'what is wrong between this machine and its nodes, and what to do',
        doctor.doctor,
        doctorcommand.add_doctor_options,
    ),
    Subcommand(
        'recover FILE [-t SECONDS] [--terminate]',
        'the jobs of a program that was killed, with their results',
        machines.recover,
        _recover,
    ),
    Subcommand(
        'attach [NAME]',
        'the cluster of a kernel that has ended, with its jobs and results',
        machines.attach_to,
        _attach,
    ),
)
SUBCOMMANDS = {each.name: each for each in _ALL}


def overview() -> str:
    """List all subcommands, one line each."""
    width = max(len(each.usage) for each in _ALL) + 2
    lines = [f'  {each.usage:{width}}{each.help}' for each in _ALL]
    return '\n'.join(
        (
            'Clusters of this notebook: `%dispy` alone shows them; the subcommands are',
            '',
            *lines,
            '',
            'NAME is the variable that holds a cluster, or its own name; [NAME] may be left out',
            'where there is only one.  `%dispy SUBCOMMAND -h` says more, and `%%dispy?` how to run',
            'a cell once for each value.',
        )
    )
