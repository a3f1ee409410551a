"""What `%load_ext dispy_nb` and `%unload_ext dispy_nb` do."""

from typing import Any

from dispy_nb.notebook.magics.completion import IDENTIFIER, new_matcher
from dispy_nb.notebook.magics.magic import cell_magic, line_magic

NAME = 'dispy'


def load(shell: Any) -> None:
    """Make the magics known to a shell; as often as one likes."""
    unload(shell)
    shell.register_magic_function(line_magic(shell), 'line', NAME)
    shell.register_magic_function(cell_magic(shell), 'cell', NAME)
    shell.Completer.custom_matchers.append(new_matcher(shell))


def unload(shell: Any) -> None:
    """Take them away."""
    for kind in ('line', 'cell'):
        shell.magics_manager.magics[kind].pop(NAME, None)
    matchers = shell.Completer.custom_matchers
    matchers[:] = [
        each for each in matchers if getattr(each, 'matcher_identifier', '') != IDENTIFIER
    ]
