"""A chaos run: real programs on hosts of their own, of which one breaks every second.

    python -m tests.chaos --faults 1000      needs root (network namespaces)

Jobs and clients write down what happens in a *ledger*, which is read when all is over: every
accepted job has one end, one that is not reentrant was begun at most once, and nothing is left.
"""

from pathlib import Path


def clientprogram_path() -> Path:
    """Where the program lies that clients run."""
    return Path(__file__).with_name('clientprogram.py')
