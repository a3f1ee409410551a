"""The matrix of deaths: who dies, when, in which way, and what is promised then.

Tests take their cells from here (`cells`), so that what is promised stands in one place;
`test_deathmatrix.py` sees to it that each cell is promised or left out for a reason.
"""

from enum import StrEnum
from itertools import product

WHO = ('job', 'worker', 'template', 'zygote', 'node', 'client')
# 'after' the report, with nothing to do; 'next': in the job that follows
MOMENTS = ('load', 'setup', 'fork', 'run', 'report', 'exit', 'after', 'next', 'cleanup')

# ways to die, of `tests.support.ways`, and what is said of a process that left no outcome
RAISING = {'error': 'ZeroDivisionError', 'sys_exit': 'SystemExit: 5', 'memory': 'MemoryError'}
DYING = {
    'os_exit': 'was ended by os._exit(7), or by exit in C code',
    'c_exit': 'was ended by os._exit(8), or by exit in C code',
    'segfault': 'crashed: segmentation fault (SIGSEGV)',
    'abort': 'crashed: abort (SIGABRT)',
    'kill': 'was killed by SIGKILL',
}
WAYS = (*RAISING, *DYING, 'stop')


class Promise(StrEnum):
    """What becomes of the job, or of the computation, at hand."""

    RETURNS = 'it has its result as if nothing had happened'
    RAISES = 'Terminated, with the traceback of the exception'
    DIES = 'Terminated, with the death in words and the last output'
    CANCELS = 'it can be cancelled, and its cpu serves the next one'
    AGAIN = 'it had not begun: another process runs it'
    REFUSES = 'the node says that it cannot run the computation, and why'
    REOPENS = 'its running jobs end in words, the others run in a new one'
    CLOSES = 'all is closed and removed in spite of it'
    LOSES = 'its running jobs are cancelled in words or run elsewhere'
    WAITS = 'everything goes on once it is awake again'
    FREES = 'its running jobs end, the node is free for the next one'


Cells = dict[str, Promise]
P = Promise


def _each(raising: Promise, dying: Promise, stopped: Promise | None = None) -> Cells:
    cells = dict.fromkeys(RAISING, raising) | dict.fromkeys(DYING, dying)
    return cells | ({'stop': stopped} if stopped else {})


_OF_A_JOB = _each(P.RAISES, P.DIES, P.CANCELS)

PROMISES: dict[tuple[str, str], Cells] = {
    **{(who, moment): _OF_A_JOB for who in ('job', 'worker') for moment in ('load', 'run')},
    **{(who, 'report'): _OF_A_JOB for who in ('job', 'worker')},
    # an exception in such a hook is printed by Python, which goes on
    **{(who, 'fork'): _each(P.RETURNS, P.AGAIN) for who in ('job', 'worker')},
    ('job', 'exit'): _each(P.RETURNS, P.DIES, P.CANCELS),
    ('job', 'after'): _each(P.RETURNS, P.RETURNS, P.RETURNS),
    ('worker', 'after'): _each(P.RETURNS, P.RETURNS, P.CANCELS),
    ('template', 'load'): _each(P.REFUSES, P.REFUSES, P.CLOSES),
    ('template', 'setup'): _each(P.REFUSES, P.REFUSES, P.CLOSES),
    ('template', 'run'): {'kill': P.REOPENS, 'segfault': P.REOPENS, 'stop': P.CLOSES},
    ('template', 'cleanup'): _each(P.CLOSES, P.CLOSES),
    ('zygote', 'run'): {'kill': P.REOPENS, 'segfault': P.REOPENS},
    # the stopped node, and what it does when it is awake again: test_faults.py
    ('node', 'run'): {'kill': P.LOSES, 'segfault': P.LOSES, 'stop': P.LOSES},
    ('client', 'run'): {'kill': P.FREES, 'segfault': P.FREES, 'stop': P.WAITS},
}

_NO_USER_CODE = 'no code of the user runs in it then: only signals from outside can end it'
_NOT_ITS = 'it has no such moment'

# (who, moment, way), '*' for all that is not promised -> why no test
LEFT_OUT: dict[tuple[str, str, str], str] = {
    ('worker', 'next', '*'): 'SIGTERM and SIGKILL of a cancel may meet the next job, if the worker '
    'is in it by then: interrupts name the job they mean, these two cannot',
    **{(who, 'next', '*'): _NOT_ITS for who in ('job', 'template')},
    **{
        (who, moment, '*'): f"{_NOT_ITS}: these are its template's"
        for who in ('job', 'worker')
        for moment in ('setup', 'cleanup')
    },
    **{
        (who, 'fork', 'stop'): 'a stopped fork looks like a slow start; a job given to it is '
        "the cell ('worker', 'after', 'stop')"
        for who in ('job', 'worker')
    },
    ('worker', 'exit', '*'): 'a lasting worker runs no exit functions: it ends without them',
    **{('template', moment, '*'): _NOT_ITS for moment in ('fork', 'report', 'exit', 'after')},
    ('template', 'run', '*'): _NO_USER_CODE,
    ('template', 'cleanup', 'stop'): 'it is killed after 9 s, as one that takes too long',
    ('zygote', 'run', 'stop'): 'who stops it stops new computations only, and can wake it',
    **{(who, 'run', '*'): _NO_USER_CODE for who in ('zygote', 'node')},
    ('client', 'run', '*'): 'the end of a program in order is tested in test_ends.py',
    **{
        (who, moment, '*'): _NOT_ITS
        for who in ('zygote', 'node', 'client')
        for moment in MOMENTS
        if moment != 'run'
    },
}


def cells(who: str, moment: str, *promises: Promise) -> Cells:
    """Ways to die then, with what is promised; only these promises, if any are named."""
    found = PROMISES[who, moment]
    return {way: p for way, p in found.items() if not promises or p in promises}


def unaccounted() -> list[tuple[str, str, str]]:
    """Cells that are neither promised nor left out for a reason."""
    return [
        (who, moment, way)
        for who, moment, way in product(WHO, MOMENTS, WAYS)
        if way not in PROMISES.get((who, moment), ())
        and (who, moment, way) not in LEFT_OUT
        and (who, moment, '*') not in LEFT_OUT
    ]


def contradicting() -> list[tuple[str, str, str]]:
    """Cells that are promised and left out, or left out though all of their kind are promised."""
    return [
        (who, moment, way)
        for who, moment, way in LEFT_OUT
        if way in PROMISES.get((who, moment), ())
        or (way == '*' and set(PROMISES.get((who, moment), ())) == set(WAYS))
    ]
