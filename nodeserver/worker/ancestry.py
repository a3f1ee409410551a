"""Parents and children: who dies with whom, and who sweeps up what is left (Linux).

Zygote, templates and workers each die with their parent and adopt the orphans below them, so that
nothing a job starts can outlive it: what escapes the job's group falls to its template.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from nodeserver.wire.lane import Ended

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_SIGKILL = int(signal.SIGKILL)
_PR_SET_CHILD_SUBREAPER = 36
_MEMORY_KILL_SCORE = 500  # of 1000: as if half of the machine's memory were in use besides
_PAGE = resource.getpagesize()

libc = ctypes.CDLL(None)
# typed, and without letting go of the GIL: a fork's first call copies 15 pages instead of 56
if sys.platform == 'linux':
    _prctl = ctypes.PyDLL(None).prctl
    _prctl.argtypes = (ctypes.c_int, ctypes.c_ulong)
    _prctl.restype = None
    _prctl_text = ctypes.PyDLL(None).prctl
    _prctl_text.argtypes = (ctypes.c_int, ctypes.c_char_p)
    _prctl_text.restype = None
# `os.waitid` would make an exception of what is nearly always the answer: there is no child
_waitid = ctypes.PyDLL(None).waitid
_waitid.argtypes = (ctypes.c_int, ctypes.c_uint, ctypes.c_void_p, ctypes.c_int)
fflush = ctypes.PyDLL(None).fflush
fflush.argtypes = (ctypes.c_void_p,)
fflush.restype = None


def set_name(name: str) -> None:
    """Show this in `ps` and `top`, which cut it at 15 bytes."""
    if sys.platform == 'linux':
        _prctl_text(_PR_SET_NAME, name.encode())


def join_family(parent: int) -> None:
    """Die with the parent, which may be dead already, and adopt orphans."""
    if sys.platform == 'linux':
        _prctl(_PR_SET_PDEATHSIG, _SIGKILL)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != parent:
        os._exit(1)


def offer_to_memory_killer() -> None:
    """Have the kernel end this process and its forks before the node, when memory runs out."""
    file = Path('/proc/self/oom_score_adj')
    with contextlib.suppress(OSError):  # not this system, or not allowed
        score = int(file.read_text())
        file.write_text(str(max(score, min(1000, max(0, score) + _MEMORY_KILL_SCORE))))


def resident_size() -> int:
    """Measure this process: the part of a fork's peak that is not its own."""
    return int(Path('/proc/self/statm').read_text().split()[1]) * _PAGE


def reap(pids: Iterable[int], children: set[int], own_size: int) -> list[Ended]:
    """Take the exit statuses of children that have ended, and kill what they left behind."""
    ended = []
    for pid in pids:
        _, status, usage = os.wait4(pid, 0)
        children.discard(pid)
        peak = max(0, usage.ru_maxrss * 1024 - own_size)
        ended.append(Ended(pid, os.waitstatus_to_exitcode(status), peak))
    sweep(children)
    return ended


def sweep(ours: Collection[int]) -> None:
    """Kill every child that we have not forked ourselves, until none comes any more."""
    while left := _children() - set(ours):
        _kill_and_wait(left)


def kill_all(children: Collection[int]) -> None:
    """Kill these and everything below them."""
    for pid in children:
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:  # it has no group of its own (yet)
            continue
    _kill_and_wait(children)
    sweep(())


def has_children() -> bool:
    """Say whether any child is left, running or not; much quicker than listing them."""
    return bool(_waitid(os.P_ALL, 0, None, os.WEXITED | os.WNOHANG | os.WNOWAIT) == 0)


def _children() -> set[int]:
    me = os.getpid()
    found: set[int] = set()
    try:
        # bare descriptors: a file object costs six system calls more, for each job
        file = os.open(f'/proc/self/task/{me}/children', os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # a kernel without that file
        for path in Path('/proc').glob('[0-9]*/stat'):
            found.update(_child_in(path, me))
        return found
    try:
        text = b''
        while piece := os.read(file, 65536):
            text += piece
    finally:
        os.close(file)
    found.update(map(int, text.split()))
    return found


def _child_in(path: Path, parent: int) -> list[int]:
    try:
        fields = path.read_text(errors='replace').rpartition(')')[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(path.parent.name)] if int(fields[1]) == parent else []


def _kill_and_wait(pids: Iterable[int]) -> None:
    pids = list(pids)
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    for pid in pids:
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            continue
