"""Servers tell those who watch them how they are (Z16)."""

import contextlib
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeserver.io.health import LARGEST_REQUEST, MOST_CONNECTIONS
from tests.support.programs import Program, eventually, free_port, node_program, program
from tests.support.sharedclients import client

# a line of the text format of Prometheus: a comment, or a figure
_LINE = re.compile(r'# (HELP|TYPE) [a-z_]+ .+|[a-z_]+({[a-z]+="[a-z]*"})? [-+0-9.e]+')


def get(port: int, path: str, host: str = '') -> tuple[int, str]:
    """What a page says, and its status."""
    request = urllib.request.Request(f'http://127.0.0.1:{port}{path}')
    if host:
        request.add_header('Host', host)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def figures(port: int) -> dict[str, float]:
    """The figures of /metrics, every line of which must be as Prometheus reads it."""
    status, text = get(port, '/metrics')
    assert status == 200
    lines = text.splitlines()
    assert [line for line in lines if not _LINE.fullmatch(line)] == []
    pairs = [line.rsplit(' ', 1) for line in lines if not line.startswith('#')]
    assert len({name for name, _ in pairs}) == len(pairs)
    return {name: float(value) for name, value in pairs}


@contextlib.contextmanager
def scheduler(*options: object) -> Iterator[tuple[Program, int, int]]:
    """Run dispyscheduler; with its port for programs, and the one by which it is watched."""
    port, health = free_port(), free_port()
    command = (sys.executable, '-m', 'nodeserver.cli.dispyscheduler', '-i', '127.0.0.1')
    # a cluster may be open when it ends: what it keeps then lies outside the temporary directory
    state = Path(os.environ['HOME'], 'state')
    ports = ('--scheduler_port', port, '--port', free_port(), '--health', health)
    options = ('--dest_path_prefix', state, *options)
    with program(*command, *ports, *options, ready='serving') as running:
        yield running, port, health


def dispy_status(*words: object) -> 'subprocess.CompletedProcess[str]':
    """Run the command to its end."""
    command = [sys.executable, '-m', 'dispy_nb', 'status', *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def wait_for(path: str) -> str:
    deadline = time.monotonic() + 30
    while not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return path


@pytest.mark.row('Z16')
def test_a_scheduler_tells_of_its_health_and_drains_on_sigterm(own_home: Path) -> None:
    node_port, gate = free_port(), own_home / 'gate'
    with (
        node_program('-i', '127.0.0.1', '-p', node_port, '-c', 2),
        scheduler() as (server, port, health),
        client(port, wait_for, node_port=node_port, name='patient') as one,
    ):
        assert get(health, '/healthz') == (200, 'ok\n')
        eventually(lambda: one.connected)
        jobs = [one.submit(str(gate)) for _ in range(3)]
        eventually(lambda: figures(health)['dispyscheduler_jobs{state="running"}'] == 2)
        seen = figures(health)
        assert seen['dispyscheduler_jobs{state="waiting"}'] == 1
        assert (seen['dispyscheduler_clients'], seen['dispyscheduler_clusters']) == (1, 1)
        assert seen['dispyscheduler_cpus{state="used"}'] == 2
        assert seen['process_resident_memory_bytes'] > 1e6
        status = json.loads(get(health, '/status')[1])
        assert status['clusters'][0]['name'] == 'patient'
        assert status['nodes'][0]['cpus'] == 2
        told = dispy_status(health)
        assert told.returncode == 0
        assert 'patient of somebody at a test: 2 jobs running, 1 waiting' in told.stdout
        assert told.stdout.splitlines() == status['words']

        server.signal(signal.SIGTERM)
        eventually(lambda: get(health, '/healthz') == (503, 'ending\n'))
        with client(port, wait_for, node_port=node_port) as late:
            eventually(lambda: late.refusals or late.connected)
            assert 'ends' in ' '.join(late.refusals + late.losses)
        assert server.process.poll() is None
        gate.touch()
        assert [one.result(job) for job in jobs] == [str(gate)] * 3
        assert server.wait() == 128 + signal.SIGTERM
        assert 'Traceback' not in server.log()


@pytest.mark.row('Z16')
def test_a_node_tells_of_its_health_and_drains_on_sigterm(own_home: Path) -> None:
    node_port, health, gate = free_port(), free_port(), own_home / 'gate'
    with (
        node_program('-i', '127.0.0.1', '-p', node_port, '-c', 2, '--health', health) as node,
        scheduler() as (_, port, _),
        client(port, wait_for, node_port=node_port) as one,
    ):
        assert get(health, '/healthz') == (200, 'ok\n')
        eventually(lambda: one.connected)
        job = one.submit(str(gate))
        eventually(lambda: figures(health)['dispynode_jobs{state="running"}'] == 1)
        assert figures(health)['dispynode_cpus{state="free"}'] == 1
        told = json.loads(dispy_status(f'127.0.0.1:{health}', '--json').stdout)
        assert (told['cpus'], told['busy'], told['running']) == (2, 1, 1)
        node.signal(signal.SIGTERM)
        eventually(lambda: get(health, '/healthz')[0] == 503)
        gate.touch()
        assert one.result(job) == str(gate)
        assert node.wait() == 128 + signal.SIGTERM


def test_nobody_is_answered_unless_asked_to(own_home: Path) -> None:
    with scheduler() as (server, _, health):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(('127.0.0.2', health), 5)
        assert get(health, '/')[0] == 404
        assert get(health, '/status', 'localhost:1')[0] == 200
        # a page of the web that had its name lead here would read whose jobs run
        assert get(health, '/status', 'evil.example')[0] == 403
        assert get(health, '/healthz', 'scheduler.example:9100')[0] == 200
        assert f'http://127.0.0.1:{health}/healthz' in server.log()


def test_a_port_for_watching_that_is_taken_is_named_with_what_to_do(own_home: Path) -> None:
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        for module in ('dispyscheduler', 'dispynode'):
            command = [sys.executable, '-m', f'nodeserver.cli.{module}', '--daemon']
            command += ['-i', '127.0.0.1', '-p', str(free_port()), '--health', str(port)]
            more = ['--scheduler_port', '0'] if module == 'dispyscheduler' else []
            ended = subprocess.run(
                command + more, capture_output=True, text=True, timeout=30, check=False
            )
            assert ended.returncode == 78
            assert f'port {port} at 127.0.0.1 is in use by another program' in ended.stderr
            assert 'choose another with --health, or leave it out to have no such' in ended.stderr


def test_slow_and_wild_clients_keep_nobody_out(own_home: Path) -> None:
    with scheduler() as (server, _, health), contextlib.ExitStack() as stack:
        for _ in range(2 * MOST_CONNECTIONS):
            slow = stack.enter_context(socket.create_connection(('127.0.0.1', health), 5))
            slow.sendall(b'GET /healthz HTTP/1.1\r\nX: ')
        assert get(health, '/healthz')[0] == 200
        for words, status in (
            (b'POST /healthz HTTP/1.1\r\n\r\n', b'405'),
            (b'nonsense\r\n\r\n', b'400'),
            (b'\xff\xfe\x00 / HTTP/1.1\r\n\r\n', b'405'),
            (b'GET / HTTP/1.1\r\nX: ' + b'x' * LARGEST_REQUEST, b'431'),
            (b'GET / HTTP/1.1\r\nX: ' + b'x' * 1_000_000 + b'\r\n\r\n', b'431'),
            (b'HEAD /healthz HTTP/1.0\r\n\r\n', b'200'),
        ):
            with socket.create_connection(('127.0.0.1', health), 5) as sock:
                with contextlib.suppress(ConnectionError):
                    sock.sendall(words)
                assert sock.recv(100).split()[1] == status
        assert get(health, '/healthz')[0] == 200
        assert 'Traceback' not in server.log()


def test_the_command_says_who_does_not_answer_or_is_somebody_else(own_home: Path) -> None:
    nobody = free_port()
    told = dispy_status(nobody)
    assert told.returncode == 69
    assert f'dispy status: {nobody}: Connection refused; is it started with --health' in told.stderr
    with http.server.HTTPServer(('127.0.0.1', 0), _Other) as other:
        threading.Thread(target=other.serve_forever).start()
        told = dispy_status(other.server_port)
        other.shutdown()
    assert told.returncode == 1
    assert 'no server of ours answers: it does not say what it does' in told.stderr


class _Other(http.server.BaseHTTPRequestHandler):
    """Another server, as a stand-in for whatever may listen at a port."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"words": [1, 2]}')

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
