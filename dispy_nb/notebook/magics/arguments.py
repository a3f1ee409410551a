"""What a subcommand takes, on IPython's argument parsing; and a cluster's parameters as options."""

import argparse
import inspect
from collections.abc import Iterable
from typing import Any, NoReturn, get_args

from IPython.core.error import UsageError
from IPython.core.magic_arguments import MagicArgumentParser

from dispy_nb.cluster import JobCluster
from dispy_nb.notebook.magics.words import (
    is_expression,
    named,
    nearest,
    unquoted,
    value_of,
)
from dispy_nb.sharedcluster import SharedJobCluster


class HelpShown(Exception):  # noqa: N818 - no error: it ends the magic
    """Help was asked for, and printed."""


class LineParser(MagicArgumentParser):
    """Parses the words of one subcommand; what is wrong is a `UsageError` of one line."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            prog=prog,
            description=description,
            formatter_class=argparse.HelpFormatter,
            add_help=True,
        )
        self.allow_abbrev = False

    def error(self, message: str) -> NoReturn:
        raise UsageError(f'{self.prog}: {message} (`{self.prog} -h` says more)')

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise HelpShown

    def parse(self, words: list[str]) -> argparse.Namespace:
        """Parse words; an option that there is not is answered with the nearest one."""
        known, unknown = self.parse_known_args(words)
        if unknown:
            word = unknown[0].partition('=')[0]
            if word.startswith('-'):
                self.error(f'there is no option {word}{nearest(word, self.option_names())}')
            self.error(f'{unknown[0]} is one word too many')
        return known

    def option_names(self) -> list[str]:
        """Name all options."""
        return [name for action in self._actions for name in action.option_strings]


# a cluster's parameters

_TRUTHS = ('True', 'False')


def parameters() -> dict[str, inspect.Parameter]:
    """Return the parameters of a cluster that options can give, by name."""
    found = {
        **inspect.signature(SharedJobCluster).parameters,
        **inspect.signature(JobCluster).parameters,
    }
    del found['computation']
    return found


def _kinds(parameter: inspect.Parameter) -> tuple[Any, ...]:
    return (parameter.annotation, *get_args(parameter.annotation))


def _is_text(parameter: inspect.Parameter) -> bool:
    return str in _kinds(parameter)


def _is_flag(parameter: inspect.Parameter) -> bool:
    kinds = _kinds(parameter)
    return bool in kinds and not any(get_args(kind) for kind in kinds[1:])


def add_cluster_options(parser: LineParser, without: Iterable[str] = ()) -> None:
    """Add an option for each parameter of a cluster, with hyphens and with underscores."""
    group = parser.add_argument_group('parameters of clusters')
    for name, parameter in parameters().items():
        if name in without:
            continue
        names = dict.fromkeys((f'--{name.replace("_", "-")}', f'--{name}'))
        metavar = 'True|False' if _is_flag(parameter) else 'TEXT' if _is_text(parameter) else 'EXPR'
        group.add_argument(
            *names, dest=name, metavar=metavar, default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )


def with_flags(words: list[str], assignments: bool = True) -> list[str]:
    """Complete flags that stand alone to options with values, and likewise `name=value`."""
    known, done = parameters(), []
    for place, word in enumerate(words):
        name, value = named(word)
        bare = word.removeprefix('--').replace('-', '_')
        following = words[place + 1 : place + 2]
        if assignments and name in known:
            done.append(f'--{name}={value}')
        elif word.startswith('--') and bare in known and _is_flag(known[bare]):
            done.append(word if following and following[0] in _TRUTHS else f'{word}=True')
        else:
            done.append(word)
    return done


def cluster_options(shell: Any, given: argparse.Namespace) -> dict[str, Any]:
    """Return the values of the options that were given, as a cluster takes them."""
    return {
        name: _value(shell, name, parameter, unquoted(vars(given)[name]))
        for name, parameter in parameters().items()
        if name in given
    }


def _value(shell: Any, name: str, parameter: inspect.Parameter, word: str) -> Any:
    try:
        if name == 'nodes':
            return _nodes(shell, word)
        if _is_text(parameter) and not is_expression(word):
            return word
        return value_of(shell, word)
    except UsageError as error:
        raise UsageError(f'--{name.replace("_", "-")}: {error}') from None


def _nodes(shell: Any, word: str) -> Any:
    """Read hosts with commas between them, or an expression: in brackets, or a variable's."""
    first = word.replace('(', '.').partition('.')[0]
    if is_expression(word) or first.strip() in shell.user_ns:
        return value_of(shell, word)
    return [unquoted(host.strip()) for host in word.split(',')]
