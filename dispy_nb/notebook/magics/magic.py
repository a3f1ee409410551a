"""`%dispy` and `%%dispy`, as IPython knows them."""

from collections.abc import Callable
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import no_var_expand

from dispy_nb.notebook.magics.errors import told_in_words
from dispy_nb.notebook.magics.table import SUBCOMMANDS, overview
from dispy_nb.notebook.magics.verbs import show_state
from dispy_nb.notebook.magics.words import nearest, split
from dispy_nb.notebook.over.cellmagic import overview as overview_of_over
from dispy_nb.notebook.over.cellmagic import run_over


def line_magic(shell: Any) -> Callable[[str], Any]:
    """Make `%dispy` for a shell; `%dispy?` shows its docstring."""

    def dispy(line: str) -> Any:
        with told_in_words():
            return _run_line(shell, split(line))

    dispy.__doc__ = overview()
    return no_var_expand(dispy)  # `{'a': 1}` is Python here


def cell_magic(shell: Any) -> Callable[[str, str], Any]:
    """Make `%%dispy` for a shell."""

    def dispy(line: str, cell: str) -> Any:
        with told_in_words():
            return run_over(shell, line, cell)

    dispy.__doc__ = overview_of_over()
    return no_var_expand(dispy)


def _run_line(shell: Any, words: list[str]) -> Any:
    if not words:
        return show_state(shell)
    if words[0] in ('-h', '--help', 'help'):
        print(overview())
        return None
    subcommand = SUBCOMMANDS.get(words[0])
    if subcommand is None:
        raise UsageError(
            f'%dispy has no subcommand {words[0]}{nearest(words[0], SUBCOMMANDS)} '
            '(`%dispy?` lists them)'
        )
    given = subcommand.parser().parse(subcommand.prepare(words[1:]))
    return subcommand.run(shell, given)
