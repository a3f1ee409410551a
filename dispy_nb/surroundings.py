"""Where this program runs: in a notebook's kernel, in a shell of IPython, or plainly."""

import sys
from typing import Any


def running_shell() -> Any:
    """Return IPython's shell, None outside of one; imports nothing."""
    get_ipython = getattr(sys.modules.get('IPython'), 'get_ipython', None)
    return get_ipython() if get_ipython is not None else None


def in_kernel() -> bool:
    """Whether this program is the kernel of a notebook."""
    return hasattr(running_shell(), 'kernel')
