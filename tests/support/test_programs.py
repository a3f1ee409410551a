"""Programs under test are waited for, heard and ended."""

import signal
import socket
import sys

import pytest

from tests.support import programs
from tests.support.programs import client_program, eventually, free_port, program

SERVES = 'import sys, time; print("serving", file=sys.stderr, flush=True); time.sleep(60)'


def test_a_program_is_ended_with_its_block_and_its_log_stays():
    with program(sys.executable, '-c', SERVES, ready='serving') as running:
        assert running.process.poll() is None
    assert running.process.returncode == -signal.SIGTERM
    assert running.log() == 'serving\n'


def test_what_is_written_from_now_on_is_told_from_what_was_written_before():
    words = 'print("warned " * 99, file=sys.stderr); print("serving", flush=True); input()'
    words = f'import sys, contextlib\nwith contextlib.suppress(EOFError): {words}'
    words += '\nprint("oh", file=sys.stderr); print("later")'
    with program('sh', '-c', 'sleep 0.5 | "$@"', 'sh', sys.executable, '-c', words) as running:
        running.wait_for_log('serving')
        log = running.log_from_now()
        assert log() == ''
        assert running.wait() == 0
        assert log() == 'later\noh\n'


def test_a_program_that_was_killed_or_stopped_is_no_hindrance():
    with program(sys.executable, '-c', SERVES, ready='serving') as running:
        running.kill()
        assert running.wait() == -signal.SIGKILL


def test_a_program_that_ends_before_it_serves_fails_with_its_words():
    with (
        pytest.raises(AssertionError, match='port is busy'),
        program(sys.executable, '-c', 'raise SystemExit("port is busy")', ready='serving'),
    ):
        pass


def test_a_program_that_does_not_obey_is_killed_and_told(monkeypatch):
    monkeypatch.setattr(programs, 'END_LIMIT', 0.5)
    deaf = 'import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);' + SERVES
    with (
        pytest.raises(AssertionError, match='did not end'),
        program(sys.executable, '-c', deaf, ready='serving') as running,
    ):
        pass
    assert running.process.returncode == -signal.SIGKILL


def test_a_script_gives_its_output_and_status():
    done = client_program('import sys; print("out"); print("err", file=sys.stderr)')
    assert (done.stdout, done.stderr, done.returncode) == ('out\n', 'err\n', 0)
    assert client_program('raise SystemExit(3)', check=False).returncode == 3
    with pytest.raises(AssertionError, match='NameError'):
        client_program('nothing_like_this')


def test_a_script_that_hangs_shows_where():
    with pytest.raises(AssertionError, match=r'(?s)not end within.*script.py'):
        client_program('import time; time.sleep(60)', timeout=1)


def test_free_ports_differ_and_can_be_bound():
    ports = [free_port() for _ in range(5)]
    assert len(set(ports)) == 5
    with socket.create_server(('127.0.0.1', ports[0])):
        pass


def test_eventually_answers_the_value_or_says_what_was_missing():
    assert eventually(lambda: 'found') == 'found'
    with pytest.raises(AssertionError, match='the moon'):
        eventually(lambda: None, timeout=0.05, message=lambda: 'the moon')
