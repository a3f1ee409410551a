"""What IPython offers while a line of `%dispy` is being typed."""

import argparse
import re
from typing import Any

from IPython.core.completer import (
    CompletionContext,
    SimpleCompletion,
    SimpleMatcherResult,
    context_matcher,
)
from IPython.core.error import UsageError

from dispy_nb.notebook.magics.arguments import LineParser
from dispy_nb.notebook.magics.clusters import (
    bound_clusters,
    known_names,
    pending_jobs,
    take_cluster,
)
from dispy_nb.notebook.magics.table import SUBCOMMANDS
from dispy_nb.notebook.magics.words import split
from dispy_nb.notebook.over.cellmagic import over_parser
from dispy_nb.options import ISOLATIONS
from dispy_nb.shortened import id_text

IDENTIFIER = 'dispy_nb'
MOST_IDS = 50
_MAGIC = re.compile(r'(?:\s*|.*=\s*)(%%?)dispy(\s.*)$')
_PYTHON = ('args', 'iterables')
_FUNCTIONS = ('callback', 'cluster_status', 'setup', 'cleanup', 'function')


def new_matcher(shell: Any) -> Any:
    """Make what IPython asks for completions; what it offers goes before what Python would."""

    def match(context: CompletionContext) -> SimpleMatcherResult:
        offered = complete(shell, context.text_until_cursor)
        found = [text for text in offered if text.startswith(context.token)]
        return {
            'completions': [SimpleCompletion(text=text, type='magic') for text in found],
            'suppress': bool(found),
        }

    return context_matcher(identifier=IDENTIFIER)(match)


def complete(shell: Any, line: str) -> list[str]:
    """Say what may stand at the end of a line, whatever of it is typed already."""
    magic = _MAGIC.match(line)
    if magic is None:
        return []
    words = split(magic[2], partial=True)
    typed = words.pop() if words and not line[-1].isspace() else ''
    if magic[1] == '%%':
        return _offered(shell, over_parser(), words, typed)
    if not words:
        return list(SUBCOMMANDS)
    subcommand = SUBCOMMANDS.get(words[0])
    return _offered(shell, subcommand.parser(), words[1:], typed) if subcommand else []


def _offered(shell: Any, parser: LineParser, done: list[str], typed: str) -> list[str]:
    if typed.startswith('-') and '=' not in typed:
        return _options(parser)
    before = typed.partition('=')[0] if '=' in typed else done[-1] if done else ''
    option = parser._option_string_actions.get(before)
    if option is not None and option.nargs != 0:
        return _values(shell, option)
    return _values_in_order(shell, parser, done)


def _options(parser: LineParser) -> list[str]:
    """Name the options, each with hyphens only."""
    return [name for name in parser.option_names() if '_' not in name]


def _values(shell: Any, option: argparse.Action) -> list[str]:
    if option.dest in _FUNCTIONS:
        return functions(shell)
    if option.dest == 'isolation':
        return list(ISOLATIONS)
    if option.metavar == 'True|False':
        return ['True', 'False']
    return variables(shell) if option.metavar == 'EXPR' or option.dest == 'output' else []


def _values_in_order(shell: Any, parser: LineParser, done: list[str]) -> list[str]:
    """Offer what the next word without an option may be."""
    places = [action for action in parser._actions if not action.option_strings]
    count = _count_values(parser, done)
    if not places:
        return []
    action = places[min(count, len(places) - 1)]
    if action.dest in ('cluster', 'words') and count == 0:
        return [name for name in known_names(shell) if not set(name) & set(' \'"')]
    if action.dest == 'words':
        return _job_ids(shell, done)
    if action.dest == 'variable':
        return list(bound_clusters(shell))
    if action.dest in _FUNCTIONS and count < len(places):
        return functions(shell)
    if action.choices is not None:
        return list(action.choices)
    return variables(shell) if action.dest in _PYTHON else []


def _count_values(parser: LineParser, done: list[str]) -> int:
    """How many words belong to no option."""
    count, skipped = 0, False
    for word in done:
        option = parser._option_string_actions.get(word)
        if skipped:
            skipped = False
        elif option is not None:
            skipped = option.nargs != 0
        else:
            count += not word.startswith('-')
    return count


def _job_ids(shell: Any, done: list[str]) -> list[str]:
    try:
        cluster, _ = take_cluster(shell, done[:1])
    except UsageError:
        return []
    return [id_text(job) for job in pending_jobs(cluster)[:MOST_IDS]]


def variables(shell: Any) -> list[str]:
    """Name the notebook's own variables."""
    names, hidden = list(shell.user_ns), shell.user_ns_hidden
    return [name for name in names if name not in hidden and not name.startswith('_')]


def functions(shell: Any) -> list[str]:
    """Name the functions of the notebook."""
    return [name for name in variables(shell) if callable(shell.user_ns[name])]
