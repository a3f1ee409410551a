"""What a test may not leave behind: processes, threads, descriptors, ZeroMQ contexts, files."""

import ctypes
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

PROCESS_PATIENCE = 5.0
OTHER_PATIENCE = 2.0
KINDS = ('processes', 'threads', 'descriptors', 'contexts', 'files')

# threads of the test tools themselves, which come and go as they like
_TOOL_THREADS = ('pytest_timeout', 'execnet', '[execnet')
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Have grandchildren that lost their parent come to us, where they are seen (Linux)."""
    if sys.platform.startswith('linux'):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What there is at one moment; the later minus the earlier is what was left behind."""

    processes: frozenset[psutil.Process]
    threads: frozenset[threading.Thread]
    descriptors: frozenset[tuple[int, str]]
    contexts: int

    @classmethod
    def take(cls) -> 'Snapshot':
        """Look around in this process."""
        return cls(
            processes=frozenset(_children()),
            threads=frozenset(threading.enumerate()),
            descriptors=frozenset(_descriptors()),
            contexts=_zeromq_threads(),
        )


def leftovers(
    before: Snapshot, directories: list[Path], allowed: Collection[str] = ()
) -> dict[str, list[str]]:
    """Wait a little for everything to end, and answer by kind what did not."""
    looks: dict[str, Callable[[], list[str]]] = {
        'processes': lambda: _new_processes(before),
        'threads': lambda: _new_threads(before),
        'descriptors': lambda: _new_descriptors(before),
        'contexts': lambda: _new_contexts(before),
        'files': lambda: list(_files(directories)),
    }
    found = {
        kind: _wait(look, PROCESS_PATIENCE if kind == 'processes' else OTHER_PATIENCE)
        for kind, look in looks.items()
        if kind not in allowed
    }
    return {kind: things for kind, things in found.items() if things}


def kill_leftovers(before: Snapshot) -> None:
    """End the processes that a failed test left, lest the next ones meet them."""
    fresh = [process for process in _children() if process not in before.processes]
    for process in fresh:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(fresh, timeout=PROCESS_PATIENCE)


def _wait(look: Callable[[], list[str]], patience: float) -> list[str]:
    found = look()
    if found:
        gc.collect()  # what hangs in a cycle is not left behind
    end = time.monotonic() + patience
    while (found := look()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def _has_children() -> bool:
    """Whether there are any, orphans included: it is quicker to ask than to list them."""
    lists = list(Path('/proc/self/task').glob('*/children'))
    try:
        return not lists or any(path.read_bytes() for path in lists)
    except (FileNotFoundError, ProcessLookupError):  # a thread has ended
        return True


def _children() -> list[psutil.Process]:
    if not _has_children():
        return []
    tracker = sys.modules.get('multiprocessing.resource_tracker')
    tracker_pid = tracker._resource_tracker._pid if tracker else None
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if process.pid != tracker_pid
    ]


def _new_processes(before: Snapshot) -> list[str]:
    found = []
    for process in _children():
        if process in before.processes:
            continue
        try:
            if process.status() == psutil.STATUS_ZOMBIE and process.ppid() == os.getpid():
                os.waitpid(process.pid, os.WNOHANG)  # an adopted orphan that has ended
                continue
            found.append(f'{process.pid} {" ".join(process.cmdline())[:200]}')
        except (psutil.NoSuchProcess, ChildProcessError):
            continue
    return found


def _new_threads(before: Snapshot) -> list[str]:
    return [
        repr(thread)
        for thread in threading.enumerate()
        if thread not in before.threads and not thread.name.startswith(_TOOL_THREADS)
    ]


def _descriptors() -> Iterator[tuple[int, str]]:
    tracker = sys.modules.get('multiprocessing.resource_tracker')
    tracker_fd = tracker._resource_tracker._fd if tracker else None
    directory = Path('/proc/self/fd')
    if not directory.is_dir():
        return
    for entry in list(directory.iterdir()):
        try:
            target = str(entry.readlink())
        except FileNotFoundError:  # the descriptor that `iterdir` itself used
            continue
        if int(entry.name) != tracker_fd:
            yield int(entry.name), target


def _new_descriptors(before: Snapshot) -> list[str]:
    fresh = set(_descriptors()) - before.descriptors
    return [f'{fd} {target}' for fd, target in sorted(fresh)]


def _zeromq_threads() -> int:
    count = 0
    for task in Path('/proc/self/task').glob('*/comm'):
        try:
            count += task.read_text().startswith('ZMQbg')
        except (FileNotFoundError, ProcessLookupError):
            continue
    return count


def _new_contexts(before: Snapshot) -> list[str]:
    surplus = _zeromq_threads() - before.contexts
    return [f'{surplus} threads of a zmq.Context that was not ended'] if surplus > 0 else []


def _files(directories: list[Path]) -> Iterator[str]:
    for directory in directories:
        yield from (str(path) for path in directory.rglob('*') if not path.is_dir())
