"""Defects of dispy 4.15, each shown to be absent here; most of them by tests of other files.

The numbers are those of a list of defects, seen in runs of dispy 4.15 or read in its source.

1   the node's reply thread dies of a very short job: `test_errors.py`, very many empty jobs
2   a very short job that finished is reported as terminated: the same test
3   a job's process that ends without a reply leaves it running: `test_deaths.py`, all ways to die;
    a result that cannot be pickled: `test_jobs.py`, row D13
4   `job()` waits for ever without a word. No node, all cpus busy: `test_faults.py`, explain; a
    wrong secret: `test_keys.py`, told within seconds; busy with another program: `test_nodes.py`,
    row A25; a `setup` that fails: `test_setup.py`; a file that is too large: `test_sentfiles.py`
5   a lost node is never noticed, or its jobs never end: `test_faults.py`, killed and frozen nodes
6   a client's crash keeps its node reserved: `test_faults.py`, and `test_deaths.py` by all ways
7   a living client that is idle is taken for dead: below
8   `recover_jobs` fails: to come
9   a default argument is changed by the first cluster: below
10  a `with` block hides exceptions: `test_cluster.py`, row Z02; below for one that is none of ours
11  a node that was killed cannot be started again: below
12  what a stranger has sent is unpickled: below, and `tests/test_floors.py`: no daemon unpickles
13  the secret stands in files: below
14  the web server's holes: with the monitor, to come
15  dispyscheduler's own: with it, to come
16  `service_stop` without a client ends the node: `test_service.py`
17  `send_file` says 0 though the node refused: `test_sentfiles.py`, row K11
"""

import contextlib
import hashlib
import inspect
import os
import pickle
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import dispy_nb as dispy
from tests.features.conftest import MakeCluster, Pair
from tests.support.programs import eventually, free_port, node_program

LIMIT = 15.0


# what runs on the nodes


def files_here():
    return sorted(path.name for path in Path.cwd().iterdir())


def square(number):
    return number * number


def hold(mark):
    Path(mark).write_text(str(os.getpid()))
    signal.pause()


# 7


@pytest.mark.slow
def test_a_client_that_is_idle_for_longer_than_the_zombie_interval_keeps_its_node(
    own_home: Path,
) -> None:
    """What `setup` loaded is still there: the node has not begun anew."""
    port, interval = free_port(), 0.05  # minutes: three pulses

    def setup() -> int:
        global made_in
        made_in = os.getpid()
        return 0

    def where_made() -> int:
        made: int = made_in
        return made

    options: dict[str, Any] = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': port}
    options |= {'pulse_interval': 1, 'setup': setup}
    with (
        node_program('-i', '127.0.0.2', '-p', port, '--zombie_interval', interval) as node,
        dispy.JobCluster(where_made, ['127.0.0.2'], **options) as cluster,
    ):
        before = cluster.submit()()
        end = time.monotonic() + 2.5 * 60 * interval
        eventually(lambda: time.monotonic() > end, LIMIT)
        assert cluster.submit()() == before
        assert 'nothing was heard' not in node.log()
        assert 'is gone' not in node.log()


# 9


def test_a_cluster_does_not_send_what_an_earlier_one_had(
    make_cluster: MakeCluster, own_home: Path
) -> None:
    def defaults() -> dict[str, Any]:
        parameters = inspect.signature(dispy.JobCluster).parameters.values()
        return {parameter.name: repr(parameter.default) for parameter in parameters}

    before = defaults()
    script = own_home / 'earlier'
    script.write_text('#!/bin/sh\nls\n')
    script.chmod(0o700)
    with make_cluster(str(script)) as earlier:
        job = earlier.submit()
        assert job() == 0
        assert job.stdout == 'earlier\n'
    assert make_cluster(files_here).submit()() == []
    assert defaults() == before


# 10


@pytest.mark.parametrize('error', [KeyError('mine'), SystemExit(3), KeyboardInterrupt()])
def test_a_with_block_lets_every_exception_out(
    make_cluster: MakeCluster, error: BaseException
) -> None:
    with pytest.raises(type(error)) as caught, make_cluster(square) as cluster:
        job = cluster.submit(3)
        raise error
    assert caught.value is error
    assert job.status in (job.Finished, job.Cancelled)


# 11


def ended(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def test_a_node_that_was_killed_is_started_again_without_cleaning(
    own_home: Path, tmp_path: Path
) -> None:
    port, mark = free_port(), tmp_path / 'mark'
    options = ('-i', '127.0.0.4', '-p', port, '-c', 1, '--dest_path_prefix', tmp_path / 'node')
    place: dict[str, Any] = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': port}
    with dispy.JobCluster(hold, ['127.0.0.4'], **place) as cluster:
        with node_program(*options) as node:
            job = cluster.submit(str(mark))
            eventually(lambda: mark.exists() and mark.read_text())
            node.kill()
            node.wait()
            assert job.wait(LIMIT)
        held = int(mark.read_text())
        eventually(lambda: ended(held))  # nothing keeps the port or the files
    with node_program(*options), dispy.JobCluster(square, ['127.0.0.4'], **place) as cluster:
        assert cluster.submit(4)() == 16


# 12


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, 'w')


OF_NODES = ('PING', 'COMPUTE', 'FILEXFER', 'SETUP', 'JOB', 'PULSE', 'CLOSE', 'TERMINATE_JOB')
OF_CLIENTS = ('PONG', 'JOB_REPLY', 'JOB_STATUS', 'PULSE', 'TERMINATED', 'NODE_STATUS', 'FILEXFER')


def old_messages(words: tuple[str, ...], path: Path) -> Iterator[bytes]:
    """Messages of dispy's protocol: over TCP with their length, with and without a token."""
    pickled = pickle.dumps(Malicious(path), protocol=2)
    token = hashlib.sha1(b'secret' + b'sign').hexdigest().encode()
    for word in words:
        message = f'{word}:'.encode() + pickled
        framed = len(message).to_bytes(4, 'big') + message
        yield from (message, framed, token + framed, token + message)


def send_all(address: str, port: int, messages: list[bytes]) -> int:
    """Send each message by UDP and by TCP; how many connections were taken."""
    taken = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        for message in messages:
            datagrams.sendto(message, (address, port))
    for message in messages:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((address, port), timeout=LIMIT) as stream,
        ):
            taken += 1
            stream.sendall(message)
            stream.shutdown(socket.SHUT_WR)
            while stream.recv(4096):  # until the other side has done with it
                pass
    return taken


def test_nothing_that_a_stranger_sends_is_unpickled(
    make_cluster: MakeCluster, pair: Pair, own_home: Path
) -> None:
    port, path = free_port(), own_home / 'executed'
    pickle.loads(pickle.dumps(Malicious(path), protocol=2)).close()
    assert path.exists()  # it works where it is let
    path.unlink()

    cluster = make_cluster(square, port=port)
    assert cluster.submit(2)() == 4
    messages = list(old_messages(OF_NODES, path))
    assert send_all(pair.addresses[0], pair.port, messages) == len(messages)
    send_all('127.0.0.1', port, list(old_messages(OF_CLIENTS, path)))
    assert [cluster.submit_node(node, 3)() for node in pair.addresses] == [9, 9]
    assert not path.exists()


# 13


def test_no_file_of_a_run_holds_the_secret(own_home: Path, tmp_path: Path) -> None:
    secret, port = 'a passphrase that nobody may read', free_port()
    options = ('-i', '127.0.0.4', '-p', port, '-c', 1, '--dest_path_prefix', tmp_path / 'node')
    place: dict[str, Any] = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': port}
    traces = [secret.encode()]
    traces += [hashlib.new(name, secret.encode()).digest() for name in ('sha1', 'sha256', 'md5')]
    traces += [trace.hex().encode() for trace in traces[1:]]

    def files_with_a_trace() -> list[Path]:
        found = []
        for path in (*own_home.rglob('*'), *tmp_path.rglob('*')):
            with contextlib.suppress(OSError):  # sockets, and what is gone by now
                if path.is_file() and any(trace in path.read_bytes() for trace in traces):
                    found.append(path)
        return found

    with (
        node_program(*options, env={'DISPY_SECRET': secret}) as node,
        dispy.JobCluster(
            files_here, ['127.0.0.4'], secret=secret, cleanup=False, **place
        ) as cluster,
    ):
        assert cluster.submit()() == []
        assert files_with_a_trace() == []  # while it runs
    assert files_with_a_trace() == []
    assert (tmp_path / 'node').exists()
    assert secret not in node.log()
