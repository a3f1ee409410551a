"""Ways for a process to die and moments to do it in; the module travels to the nodes as a whole."""

import atexit
import ctypes
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOM = 64 << 20  # bytes that a process may take until it meets its limit

held: list[object] = []  # what keeps the memory of this process from being free

# how a process is made to die from outside
SIGNALS = {'kill': signal.SIGKILL, 'segfault': signal.SIGSEGV, 'stop': signal.SIGSTOP}


def die(way: str) -> None:
    """End this process in the way of that name, or try to."""
    print('last words', flush=True)
    _WAYS[way]()


def _error() -> None:
    raise ZeroDivisionError('of the job')


def _sys_exit() -> None:
    sys.exit(5)


def _memory() -> None:
    """Meet a limit of addresses, with all that was taken still held by the module."""
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    global held
    held = []
    with suppress(MemoryError):
        while True:
            held.append(bytes(1 << 16))
    while True:
        held.append(object())  # down to the last crumb


def _os_exit() -> None:
    os._exit(7)


def _c_exit() -> None:
    ctypes.CDLL(None).exit(8)


def _segfault() -> None:
    ctypes.string_at(0)


def _abort() -> None:
    os.abort()


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


_WAYS: dict[str, Callable[[], None]] = {
    'error': _error,
    'sys_exit': _sys_exit,
    'memory': _memory,
    'os_exit': _os_exit,
    'c_exit': _c_exit,
    'segfault': _segfault,
    'abort': _abort,
    'kill': _kill,
    'stop': _stop,
}


class AtLoading:
    """An argument whose unpickling is the end."""

    def __init__(self, way: str) -> None:
        self.way = way

    def __reduce__(self) -> Any:
        return die, (self.way,)


class AtReporting:
    """A result whose pickling is the end."""

    def __init__(self, way: str) -> None:
        self.way = way

    def __reduce__(self) -> Any:
        die(self.way)
        return int, ()


def die_later(way: str, gate: str) -> None:
    """Die as soon as the file `gate` is there."""
    while not Path(gate).exists():
        time.sleep(0.005)
    try:
        die(way)
    finally:
        global held
        held = []  # else the next job would find no memory
        Path(gate).with_suffix('.survived').touch()


def work(moment: object, way: str = '', gate: str = '') -> Any:
    """Be a job that dies in a way at a moment; without a moment, the one after it."""
    if moment == 'run':
        die(way)
    elif moment == 'report':
        return AtReporting(way)
    elif moment == 'exit':
        atexit.register(die, way)
    elif moment == 'after':
        threading.Thread(target=die_later, args=(way, gate)).start()
    return os.getpid()


class Trapped:
    """A computation that dies where it is unpacked, or in forks, while the file `trap` is there.

    It goes when it has caught so many: a node does not try for ever.
    """

    def __init__(self, moment: str, way: str, trap: str, most: int = 20) -> None:
        self.__name__ = 'trapped'
        self._state = (moment, way, trap, most)

    def __reduce__(self) -> Any:
        return _spring, self._state

    def __call__(self) -> None:
        raise AssertionError('unpacked, it is another function')


def _spring(moment: str, way: str, trap: str, most: int) -> Any:
    """Unpack a `Trapped`."""

    def spring() -> None:
        path = Path(trap)
        with suppress(FileNotFoundError):
            if path.stat().st_size >= most:
                path.unlink()
        if path.exists():
            with path.open('a') as file:
                file.write('.')  # for each that was caught
            die(way)

    if moment == 'load':
        spring()
    elif moment == 'fork':
        os.register_at_fork(after_in_child=spring)
    return work


def setting_up(way: str) -> Callable[[], int]:
    """Make a `setup` that dies."""

    def setup() -> int:
        die(way)
        return 0

    return setup


def cleaning_up(way: str) -> Callable[[], None]:
    """Make a `cleanup` that dies."""

    def cleanup() -> None:
        die(way)

    return cleanup


def hold(gate: str) -> str:
    """Tell in a file of this process that it began, and run until the file `gate` is there."""
    Path(f'{gate}.{os.getpid()}').touch()
    deadline = time.monotonic() + 30
    while not Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    return str(dispy_node_name)  # type: ignore[name-defined]  # noqa: F821 - every job finds it
