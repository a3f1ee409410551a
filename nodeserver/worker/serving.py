"""Where workers come from: forks made and reaped as the node says, in a template or a nursery."""

import _socket
import atexit
import gc
import os
import socket
import threading
from collections.abc import Callable
from typing import NoReturn, Protocol

from nodeserver.io.workerpage import new_page
from nodeserver.wire import lane
from nodeserver.worker import ancestry, quietforks
from nodeserver.worker.needs import Needs, import_all
from nodeserver.worker.output import Capture, new_files


class Forked(Protocol):
    """What the forks become: a worker that is there already, or one that is made in each."""

    needs: Needs
    is_lasting: bool

    def become(self, far: int, files: list[int], parent: int) -> NoReturn:
        """Be a worker, in a process just forked."""


def freeze() -> None:
    """Keep the garbage collector of forks from copying what is here.

    What is registered for the end of this process is not for theirs, and it has none itself.
    """
    atexit._clear()
    gc.collect()
    gc.freeze()


def serve_forks(control: socket.socket, worker: Forked, capture: Capture) -> None:
    """Fork workers and reap them as the node says, until it has no more orders."""
    size = ancestry.resident_size()
    children: set[int] = set()
    fork = quietforks.quietly_fork if threading.active_count() == 1 else os.fork
    try:
        while (command := control.recv(lane.MAX_MESSAGE)) and command[:1] != lane.CLOSE:
            forks, reaps = lane.decode_work(command)
            if forks and (names := worker.needs.take()):
                import_all(names)
                freeze()
                size = ancestry.resident_size()
            for _ in range(forks):
                capture.flush()  # else every child would print the template's text again
                _fork_worker(control, worker, children, fork)
            if reaps:
                control.send(lane.encode_ended(ancestry.reap(reaps, children, size)))
    except (BrokenPipeError, ConnectionResetError):  # closed while we were answering
        pass
    finally:
        ancestry.kill_all(children)


def _fork_worker(
    control: socket.socket, worker: Forked, children: set[int], fork: Callable[[], int]
) -> None:
    me, control_fd = os.getpid(), control.fileno()
    become = worker.become
    ends: tuple[_socket.socket, ...] = ()
    files: list[int] = []
    try:
        # without what `socket` makes of it: two system calls less
        near, far = ends = _socket.socketpair()
        files += new_files()
        if worker.is_lasting:
            files.append(new_page())
        pid = fork()
        if pid == 0:
            os.close(control_fd)  # its own `close` would copy ten pages
            near.close()
            become(far.detach(), files, me)
        children.add(pid)
        socket.send_fds(control, [lane.encode_forked(pid)], [near.fileno(), *files])
    except OSError as error:
        control.send(lane.FORK_FAILED + str(error).encode())
    finally:
        # before the next fork: a sibling with this end would keep the lane from ending
        for end in ends:
            end.close()
        for file in files:
            os.close(file)
