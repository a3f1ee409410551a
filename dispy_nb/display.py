"""Clusters as the last line of a cell: who shows them is found when one is shown (D11)."""

import importlib

from dispy_nb.cluster import Cluster
from dispy_nb.surroundings import running_shell


def register() -> None:
    """Have the IPython shell, if this program runs in one, show clusters as `notebook` does."""
    shell = running_shell()
    if shell is not None:
        shell.display_formatter.ipython_display_formatter.for_type(Cluster, _show)


def _show(cluster: Cluster) -> None:
    # by name: `import dispy_nb` loads no Jupyter package, and this floor knows none
    importlib.import_module('dispy_nb.notebook.widget.displays').show(cluster, running_shell())
