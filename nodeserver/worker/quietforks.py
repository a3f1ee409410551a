"""Forks without the hooks of `threading` and `logging`, for processes with a single thread.

These hooks make locks anew that other threads may have held at the fork.  A template has no other
threads, so there is nothing to repair; leaving the hooks out halves the pages that a fork copies.
They are left out in forks of the template only, not in those that its workers' jobs make.
"""

import logging
import os
import sys
import threading
from types import CodeType, FunctionType, ModuleType
from typing import Any

ENABLED = sys.version_info < (3, 13)  # where the hooks are the two below

# what is done instead; logging takes its lock before each fork, and has to let go of it at least
_HOOKS = (
    (threading, '_after_fork', 'pass'),
    (logging, '_after_at_fork_child_reinit_locks', '_lock.release()'),
)
_QUIET = """
def hook():
    if _dispy_getppid() == _dispy_template:
        {instead}
    else:
        _dispy_hook()
"""


def quieten() -> None:
    """Leave the hooks out of this process's forks, if it has one thread and hooks as we know."""
    hooks = [vars(module).get(name) for module, name, _ in _HOOKS]
    known = all(isinstance(hook, FunctionType) for hook in hooks)
    if ENABLED and known and threading.active_count() == 1:
        for hook in _HOOKS:
            _replace(*hook)


def _replace(module: ModuleType, name: str, instead: str) -> None:
    """Give a registered hook other code; the function itself is held by the interpreter."""
    hook: Any = vars(module)[name]
    names = vars(module)
    if '_dispy_hook' not in names:
        original = FunctionType(hook.__code__, names, name)
        names.update(_dispy_hook=original, _dispy_getppid=os.getppid)
        hook.__code__ = _code(_QUIET.format(instead=instead))
    names['_dispy_template'] = os.getpid()


def _code(source: str) -> CodeType:
    codes = compile(source, __file__, 'exec').co_consts
    return next(code for code in codes if isinstance(code, CodeType))
