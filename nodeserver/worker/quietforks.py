"""Forks without the hooks of `threading` and `logging`, for processes with a single thread.

These hooks make locks anew that other threads may have held at the fork.  A template has no other
threads, so there is nothing to repair; leaving the hooks out halves the pages that a fork copies.
A worker puts them back first thing, for the forks of its job.
"""

import logging
import sys
import threading
from types import CodeType, FunctionType

ENABLED = sys.version_info < (3, 13)  # where the hooks are the two below

# logging takes its lock before each fork: this hook has to let go of it at least
_release = compile('def hook():\n    _lock.release()', __file__, 'exec').co_consts[0]
_nothing = compile('def hook():\n    pass', __file__, 'exec').co_consts[0]
_HOOKS = (
    (threading, '_after_fork', _nothing),
    (logging, '_after_at_fork_child_reinit_locks', _release),
)

_noisy: list[tuple[FunctionType, CodeType]] = []


def quieten() -> None:
    """Leave the hooks out from now on, if this process has one thread and hooks as we know them."""
    hooks = [getattr(module, name, None) for module, name, _ in _HOOKS]
    if not ENABLED or _noisy or threading.active_count() > 1:
        return
    if not all(isinstance(hook, FunctionType) for hook in hooks):
        return
    for hook, (_, _, code) in zip(hooks, _HOOKS, strict=True):
        assert isinstance(hook, FunctionType)
        _noisy.append((hook, hook.__code__))
        hook.__code__ = code


def restore() -> None:
    """Put the hooks back, in the process just forked."""
    for hook, code in _noisy:
        hook.__code__ = code
    _noisy.clear()
