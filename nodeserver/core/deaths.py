"""How a process ended, in words."""

import signal
from enum import StrEnum

from nodeserver.core.demands import describe_memory

_WORDS = {
    signal.SIGSEGV: 'segmentation fault',
    signal.SIGABRT: 'abort',
    signal.SIGBUS: 'bus error',
    signal.SIGFPE: 'arithmetic error',
    signal.SIGILL: 'illegal instruction',
}
_UNITS = ('kB', 'MB', 'GB', 'TB')


# the exit status of a worker that cannot write to its node; no usual program has it
UNREPORTABLE = 213
# stands for that of a worker whose job wrote into the channel to its node, and was killed for it
GARBLED = 214


class MemoryKill(StrEnum):
    """What is known of the out-of-memory killer about a process that SIGKILL has ended."""

    UNKNOWN = 'unknown'  # the system does not count its kills
    NONE = 'none'  # it has killed nothing lately
    OURS = 'ours'  # it has killed a process of the node's own control group just now
    SOME = 'some'  # it has killed something on this machine just now


_KILLERS = {
    MemoryKill.UNKNOWN: 'SIGKILL (from outside, or for want of memory)',
    MemoryKill.NONE: 'SIGKILL (from outside)',
    MemoryKill.OURS: 'the out-of-memory killer (SIGKILL)',
    MemoryKill.SOME: 'SIGKILL (probably by the out-of-memory killer: it struck on this machine)',
}


def describe_end(
    exit_status: int | None, memory_kill: MemoryKill, peak_memory: int, lasting: bool
) -> str:
    """Say in one line how a job's process ended that left no outcome, and what it took."""
    death = describe_death(exit_status, memory_kill)
    if exit_status is not None and exit_status >= 0 and exit_status != UNREPORTABLE:
        death = f'{death}, before its outcome was reported'
    if peak_memory <= 0:  # not known
        return death
    whose = ' of its worker' if lasting else ''
    return f'{death}; peak memory{whose} {describe_size(peak_memory)}'


def describe_death(
    exit_status: int | None,
    memory_kill: MemoryKill = MemoryKill.UNKNOWN,
    subject: str = 'its process',
) -> str:
    """Say how a process ended before it should; negative means killed by a signal."""
    if exit_status is None:
        return f'{subject} ended with its template, the process that jobs are forked from'
    if exit_status == UNREPORTABLE:
        return 'its result could not be reported: it closed the channel to its node'
    if exit_status == GARBLED:
        return 'its process wrote nonsense into the channel to its node'
    if exit_status >= 0:
        return f'{subject} was ended by os._exit({exit_status}), or by exit in C code'
    try:
        number = signal.Signals(-exit_status)
    except ValueError:
        return f'{subject} was killed by signal {-exit_status}'
    if number in _WORDS:
        return f'{subject} crashed: {_WORDS[number]} ({number.name})'
    killer = _KILLERS[memory_kill] if number is signal.SIGKILL else number.name
    return f'{subject} was killed by {killer}'


def describe_overrun(timeout: float) -> str:
    """Say that a job was ended because it ran for too long."""
    return f'ran longer than its timeout of {timeout:g} s'


def describe_excess(used: int, asked: int, lasting: bool) -> str:
    """Say that a job was ended because it took more memory than it had asked for."""
    who = 'its worker' if lasting else 'it'
    return (
        f'{who} took {describe_memory(used)} of memory, and its cluster asks for '
        f'{describe_memory(asked)} per job: it was killed; ask for more with `memory=`'
    )


def describe_size(count: int) -> str:
    """Say a number of bytes as people do."""
    size = count / 1000
    for unit in _UNITS:
        if size < 999.5 or unit == _UNITS[-1]:
            break
        size /= 1000
    return f'{size:.1f} {unit}' if size < 9.95 else f'{size:.0f} {unit}'
