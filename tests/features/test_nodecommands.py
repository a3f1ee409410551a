"""Commands on the standard input of `dispynode`."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import dispy_nb as dispy
from tests.support.programs import eventually, free_port

DISPYNODE = (sys.executable, '-m', 'nodeserver.cli.dispynode')
ADDRESS = '127.0.0.2'
LIMIT = 20.0


def hold(gate: str) -> str:
    """Run until the file is there."""
    import os
    import pathlib
    import time

    pathlib.Path(gate + '.begun').write_text(str(os.getpid()))
    deadline = time.monotonic() + 30
    while not pathlib.Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    return 'opened'


class Node:
    """A node whose standard input is ours, and all that it has written."""

    def __init__(self, port: int, file: Any, stdin: Any, *words: object) -> None:
        command = [*DISPYNODE, '-i', ADDRESS, '-p', port, '-c', 1, '--name', 'n', *words]
        self._file = file
        self.process = subprocess.Popen(
            [str(word) for word in command], stdin=stdin, stdout=file, stderr=subprocess.STDOUT
        )
        self.port = port

    def said(self) -> str:
        """All that it has written so far."""
        size = os.fstat(self._file.fileno()).st_size
        return os.pread(self._file.fileno(), size, 0).decode()

    def enter(self, line: str, answer: str = '') -> None:
        """Write a line, and wait until it was answered."""
        before = len(self.said())
        assert self.process.stdin is not None
        self.process.stdin.write(f'{line}\n'.encode())
        self.process.stdin.flush()
        eventually(lambda: answer in self.said()[before:], message=self.said)


@contextmanager
def node(*words: object, stdin: Any = subprocess.PIPE) -> Iterator[Node]:
    with tempfile.TemporaryFile() as file:
        running = Node(free_port(), file, stdin, *words)
        try:
            eventually(lambda: ' serving at ' in running.said(), LIMIT, running.said)
            yield running
        finally:
            running.process.terminate()
            if running.process.stdin is not None:
                running.process.stdin.close()
            running.process.wait(LIMIT)


def open_cluster(node: Node, function: Any = hold) -> dispy.JobCluster:
    return dispy.JobCluster(function, [ADDRESS], ip_addr='127.0.0.1', port=0, node_port=node.port)


def test_status_cpus_and_what_is_not_understood() -> None:
    with node() as here:
        here.enter('status', 'n: 1 cpu, 0 in use\ntakes jobs\nheld by nobody\n')
        here.enter('  CPUS 1', 'offering 1 cpu')
        here.enter('cpus 1000', '--cpus 1000: this machine has')
        here.enter('cpus', '`cpus` needs a whole number')
        here.enter('stauts', "'stauts' is not understood\n  status     who holds")
        here.enter('quit now', "'quit now' is not understood")
        here.enter('help', 'terminate  end at once')
        assert here.process.poll() is None


@pytest.mark.slow
def test_stop_start_and_quit_leave_running_jobs_alone(tmp_path: Path) -> None:
    gate = tmp_path / 'gate'
    with node() as here, open_cluster(here) as cluster:
        running, waiting = cluster.submit(str(gate)), cluster.submit(str(gate))
        eventually(Path(f'{gate}.begun').exists)
        here.enter('status', 'computation hold (ready): 1 job running, 0 waiting')
        here.enter('stop', 'taking no more jobs')
        eventually(lambda: 'whoever runs this node has stopped its service' in cluster.explain())
        gate.touch()
        assert running() == 'opened'
        assert not waiting.wait(0.3)
        here.enter('start', 'taking jobs again')
        assert waiting() == 'opened'
        here.enter('quit', 'ended: quit was entered')
        assert here.process.wait(LIMIT) == 0


@pytest.mark.slow
@pytest.mark.parametrize('word', ['close', 'release', 'terminate'])
def test_words_that_take_the_node_from_its_client(word: str, tmp_path: Path) -> None:
    gate = tmp_path / 'gate'
    with node() as here, open_cluster(here) as cluster:
        job = cluster.submit(str(gate))
        eventually(lambda: Path(f'{gate}.begun').exists() and Path(f'{gate}.begun').read_text())
        pid = int(Path(f'{gate}.begun').read_text())
        here.enter(word)
        if word == 'release':
            eventually(lambda: 'takes it from its client' in cluster.explain())
            assert not job.wait(0.3)
            gate.touch()
            assert job() == 'opened'
            eventually(lambda: 'has taken it from its client' in cluster.explain())
        else:
            assert job.wait(LIMIT)
            assert job.status == dispy.DispyJob.Cancelled
            eventually(lambda: not psutil.pid_exists(pid))
        if word == 'terminate':
            assert here.process.wait(LIMIT) == 0
            return
        # another cluster can use it
        gate.touch()
        with open_cluster(here) as other:
            assert other.submit(str(gate))() == 'opened'
        cluster.close(timeout=0, terminate=True)


@pytest.mark.slow
def test_the_end_of_standard_input_ends_only_the_reading(tmp_path: Path) -> None:
    with node() as here:
        assert here.process.stdin is not None
        here.process.stdin.write(b'status')  # without an end of its line
        here.process.stdin.close()
        eventually(lambda: 'held by nobody' in here.said())
        ours = psutil.Process(here.process.pid)
        before = ours.cpu_times().user
        time.sleep(0.3)
        assert ours.cpu_times().user - before < 0.2  # it does not look again and again
        assert here.process.poll() is None
    file = tmp_path / 'commands'
    file.write_text('quit\n')
    for stdin in (subprocess.DEVNULL, file.open('rb')):
        with node(stdin=stdin) as here:
            time.sleep(0.2)
            assert here.process.poll() is None  # neither files nor nothing are read
    stdin.close()  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_daemon_reads_no_commands() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, node('--daemon', stdin=theirs) as here:
        ours.send(b'quit\n')
        time.sleep(0.2)
        assert here.process.poll() is None
    ours, theirs = socket.socketpair()
    with ours, theirs, node(stdin=theirs) as here:
        ours.send(b'qu')
        ours.send(b'it\n')
        assert here.process.wait(LIMIT) == 0


# what a shell with job control does for `command &`
IN_BACKGROUND = """
import fcntl, subprocess, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
node = subprocess.Popen(sys.argv[1:], process_group=0)
print('begun', node.pid, flush=True)
node.wait()
"""


def test_in_the_background_of_a_terminal_it_goes_on_and_reads_nothing() -> None:
    """As with `dispynode &` in a shell: reading would stop it until somebody looks."""
    terminal, theirs = os.openpty()
    port = free_port()
    shell = subprocess.Popen(
        [sys.executable, '-c', IN_BACKGROUND, *DISPYNODE, '-i', ADDRESS, '-p', str(port)],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    os.close(theirs)
    assert shell.stdout is not None
    try:
        began = psutil.Process(int(shell.stdout.readline().split()[1]))
        while b' serving at ' not in shell.stdout.readline():
            pass
        os.write(terminal, b'quit\n')
        for _ in range(50):
            time.sleep(0.01)
            assert began.status() != psutil.STATUS_STOPPED
        socket.create_connection((ADDRESS, port), timeout=5).close()
        began.send_signal(signal.SIGTERM)
        assert shell.wait(LIMIT) == 0
    finally:
        shell.stdout.close()
        for left in psutil.Process(shell.pid).children() if shell.poll() is None else []:
            left.kill()
        shell.kill()
        shell.wait()
        os.close(terminal)
