"""Forks without the hooks of `threading`, `logging` and `random`, where a template forks a job.

These hooks make locks anew that other threads may have held at the fork, and seed the shared
generator.  A template has no other threads, and a job is seeded anyway: leaving them out saves half
of the pages that a fork copies.  They are left out there only, not in forks that jobs make.
"""

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

_HOOKED = ('threading', 'logging', 'random')

Hook = Callable[[], object]


class _Hooks:
    """What those modules want done around a fork, in the order in which it is done."""

    def __init__(self) -> None:
        self.before: list[Hook] = []
        self.after_in_parent: list[Hook] = []
        self.after_in_child: list[Hook] = []
        self.quiet = False

    def keep(self, **hooks: Hook) -> None:
        """Stand in for `os.register_at_fork`."""
        for moment, hook in hooks.items():
            where = 0 if moment == 'before' else len(vars(self)[moment])
            vars(self)[moment].insert(where, hook)


_hooks = _Hooks()


def gather() -> None:
    """Import those modules, and do by one hook what they want; before anything else has them."""
    register, keep = os.register_at_fork, _hooks.keep
    os.register_at_fork = cast(Any, keep)
    try:
        for name in _HOOKED:
            import_module(name)  # one that was there before keeps its hooks
    finally:
        os.register_at_fork = register
    register(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)


def quietly_fork() -> int:
    """Fork this process, which has a single thread."""
    _hooks.quiet = True
    try:
        return os.fork()
    finally:
        _hooks.quiet = False


def _before() -> None:
    if not _hooks.quiet:
        for hook in _hooks.before:
            hook()


def _after_in_parent() -> None:
    if not _hooks.quiet:
        for hook in _hooks.after_in_parent:
            hook()


def _after_in_child() -> None:
    if not _hooks.quiet:
        for hook in _hooks.after_in_child:
            hook()
