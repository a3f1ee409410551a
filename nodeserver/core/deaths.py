"""How a process ended, in words."""

import signal

_WORDS = {
    signal.SIGSEGV: 'segmentation fault',
    signal.SIGABRT: 'abort',
    signal.SIGBUS: 'bus error',
    signal.SIGFPE: 'arithmetic error',
    signal.SIGILL: 'illegal instruction',
}


# the exit status of a worker that cannot write to its node; no usual program has it
UNREPORTABLE = 213
# stands for that of a worker whose job wrote into the channel to its node, and was killed for it
GARBLED = 214


def describe_death(exit_status: int) -> str:
    """Say how a job's process ended that left no outcome; negative means killed by a signal."""
    if exit_status == UNREPORTABLE:
        return 'its result could not be reported: it closed the channel to its node'
    if exit_status == GARBLED:
        return 'its process wrote nonsense into the channel to its node'
    if exit_status >= 0:
        return f'its process ended with exit status {exit_status} before the function returned'
    try:
        number = signal.Signals(-exit_status)
    except ValueError:
        return f'its process was killed by signal {-exit_status}'
    if number in _WORDS:
        return f'its process crashed: {_WORDS[number]} ({number.name})'
    hint = ' (from outside, or for want of memory)' if number is signal.SIGKILL else ''
    return f'its process was killed by {number.name}{hint}'
