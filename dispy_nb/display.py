"""Clusters as the last line of a cell: who shows them is found when one is shown (D11)."""

import importlib
import sys
from typing import Any

from dispy_nb.cluster import JobCluster


def register() -> None:
    """Have the IPython shell, if this program runs in one, show clusters as `notebook` does."""
    shell = running_shell()
    if shell is not None:
        shell.display_formatter.ipython_display_formatter.for_type(JobCluster, _show)


def running_shell() -> Any:
    """Return IPython's shell, None outside of one; imports nothing."""
    get_ipython = getattr(sys.modules.get('IPython'), 'get_ipython', None)
    return get_ipython() if get_ipython is not None else None


def _show(cluster: JobCluster) -> None:
    # by name: `import dispy_nb` loads no Jupyter package, and this floor knows none
    importlib.import_module('dispy_nb.notebook.displays').show(cluster, running_shell())
