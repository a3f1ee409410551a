"""The zygote: an interpreter kept warm, of which templates are forked (D5).

Started by exec, with one control socket; it has neither threads nor ZeroMQ nor asyncio, so that
its forks are cheap and safe.  At the end of that socket it ends with everything below it.
"""

import faulthandler
import gc
import io
import os
import resource
import signal
import socket
import sys

from nodeserver.io.privileges import JobUser, become_job_user
from nodeserver.wire import lane
from nodeserver.worker import ancestry, fresh, portion, template


def main() -> None:
    """Obey the node until it closes the control socket."""
    if sys.argv[1] == fresh.NURSERY:
        arguments = sys.argv[2:]
        prepare(int(arguments[0]))
        fresh.serve(arguments[1:])
    control = socket.socket(fileno=int(sys.argv[1]))
    parent, file_limit = map(int, sys.argv[2:4])
    has_own_user = len(sys.argv) > 4
    if has_own_user:  # before all else: what follows is asked of the kernel as that user
        become_job_user(JobUser(*map(int, sys.argv[4].split(':'))))
    # the node has raised its own limit; programs that use `select` break beyond 1,024
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (file_limit, most))
    prepare(parent)
    ancestry.set_name('dispy zygote')
    gc.collect()
    gc.freeze()
    children: set[int] = set()
    try:
        _serve(control, children, has_own_user)
    finally:
        ancestry.kill_all(children)


def prepare(parent: int) -> None:
    """Make of an interpreter just started one that jobs' processes are forked from."""
    ancestry.join_family(parent)
    # workers inherit it blocked, and let it through only while the user's code runs
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    before = os.environ.pop(lane.PYTHONPATH, None)
    os.environ.pop('PYTHONPATH', None)
    if before:
        os.environ['PYTHONPATH'] = before
    name, value = lane.BIND_NOW
    if os.environ.get(name) == value:  # else it is the user's own
        del os.environ[name]
    os.environ.setdefault('MPLBACKEND', 'Agg')
    portion.be_modest()
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(encoding='utf-8', errors='backslashreplace', line_buffering=True)
    sys.argv = ['']  # the user's code was not started with ours
    faulthandler.enable(2)  # the number: whatever a worker's standard error will be


def _serve(control: socket.socket, children: set[int], has_own_user: bool) -> None:
    while True:
        data, fds, _, _ = socket.recv_fds(control, lane.MAX_MESSAGE, 2)
        if not data:
            return
        if data[:1] == lane.OPEN:
            settings = lane.decode_open(data)
            if has_own_user:  # its own home may not exist; forks have this one
                os.environ['HOME'] = settings.directory
            _fork_template(control, settings, fds, children)
            continue
        _, reaps = lane.decode_work(data)
        control.send(lane.encode_ended(ancestry.reap(reaps, children, 0)))


def _fork_template(
    control: socket.socket, settings: lane.TemplateSettings, files: list[int], children: set[int]
) -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    me = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        control.send(lane.FORK_FAILED + str(error).encode())
    else:
        if pid == 0:
            control.close()
            near.close()
            template.become(far, settings, files, me)
        children.add(pid)
        socket.send_fds(control, [lane.encode_forked(pid)], [near.fileno()])
    finally:
        for file in files:
            os.close(file)
    near.close()
    far.close()
