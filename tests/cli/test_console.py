"""Programs end with the status that says why, and with one line for people."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nodeserver.cli import console
from nodeserver.core.errors import DispyError, KeyFileError, PeerRefused, PortBusy, UsageError

SIGNALLED = """
import asyncio, sys
from nodeserver.cli import console

async def main():
    console.set_up_logging()
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    def ask(at_once, reason):
        print(at_once, reason, flush=True)
        if at_once:
            done.set()
    signals = console.StopSignals(loop, ask)
    print('ready', flush=True)
    await asyncio.wait_for(done.wait(), 30)
    signals.close()
    return signals.status()

sys.exit(console.run_program(main()))
"""


@contextmanager
def program(code: str) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    command = [sys.executable, '-c', code]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


def fail_with(error: BaseException) -> int:
    def main() -> int:
        raise error

    return console.run_program(main)


@pytest.mark.parametrize(
    ('error', 'status'),
    [
        (UsageError('x'), 2),
        (KeyFileError('x'), 78),
        (PortBusy(1, '', '-p'), 78),
        (PeerRefused('x'), 69),
        (DispyError('x'), 1),
        (OSError(28, 'No space left on device'), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_status_says_what_kind_of_error(error: BaseException, status: int) -> None:
    assert fail_with(error) == status


def test_error_is_one_line_without_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(UsageError('port=-1: give one\n from 1 to 65535'))
    shown = capsys.readouterr().err
    assert shown.endswith(': port=-1: give one from 1 to 65535\n')
    assert shown.count('\n') == 1


def test_debug_shows_where_an_error_arose(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        raise UsageError('wrong')

    assert console.run_program(main(), debug=True) == 2
    assert 'in main' in capsys.readouterr().err


def test_bug_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail_with(ZeroDivisionError('a bug')) == 1
    assert 'Traceback' in capsys.readouterr().err


def test_status_of_the_program_is_kept() -> None:
    async def main() -> int:
        return 5

    assert console.run_program(main()) == 5
    assert console.run_program(lambda: None) == 0


def test_first_signal_asks_and_the_second_orders() -> None:
    with program(SIGNALLED) as started:
        assert started.stdout
        assert started.stdout.readline() == 'ready\n'
        started.send_signal(signal.SIGTERM)
        assert started.stdout.readline() == 'False SIGTERM received\n'
        started.send_signal(signal.SIGINT)
        assert started.stdout.readline() == 'True SIGINT received\n'
        assert started.wait(timeout=30) == 128 + signal.SIGTERM
        assert started.stderr
        assert 'INFO SIGTERM: stopping' in started.stderr.read()


def test_reader_that_leaves_ends_the_program_quietly() -> None:
    code = (
        'import sys\nfrom nodeserver.cli import console\n'
        'def main():\n    sys.stdin.readline()\n    print("x" * 1_000_000)\n'
        'sys.exit(console.run_program(main))'
    )
    pipe = subprocess.PIPE
    command = [sys.executable, '-c', code]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as started:
        assert started.stdin and started.stdout and started.stderr
        started.stdout.close()
        started.stdin.write('go\n')
        started.stdin.flush()
        assert started.wait(timeout=30) == 128 + signal.SIGPIPE
        assert started.stderr.read() == ''


UNREAD = """
import logging, sys
from nodeserver.cli import console

def main():
    console.set_up_logging(ordinary=sys.stdout, debug={debug})
    print('ready', flush=True)
    sys.stdin.readline()
    logging.getLogger('nodeserver').info('nobody reads this')

sys.exit(console.run_program(main))
"""


@pytest.mark.parametrize('debug', [False, True])
def test_messages_that_nobody_reads_are_no_error_of_ours(debug: bool) -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, '-c', UNREAD.format(debug=debug)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as started:
        assert started.stdin and started.stdout and started.stderr
        assert started.stdout.readline() == 'ready\n'
        started.stdout.close()
        started.stdin.write('go\n')
        started.stdin.flush()
        started.wait(timeout=30)
        assert ('Logging error' in started.stderr.read()) == debug


LOGGING = """
import logging
from nodeserver.cli import console
console.set_up_logging('warning', {form!r})
console.set_up_logging('warning', {form!r})
log = logging.getLogger('nodeserver.io')
log.info('unseen')
try:
    1 / 0
except ZeroDivisionError:
    log.warning('two\\nlines of %s', 'text', exc_info={traceback})
"""


def logged(form: str, traceback: bool) -> str:
    code = LOGGING.format(form=form, traceback=traceback)
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == ''
    return done.stderr


def test_text_log_has_time_level_and_message() -> None:
    date, clock, level, rest = logged('text', False).split(' ', 3)
    assert (len(date), len(clock), level, rest) == (10, 8, 'WARNING', 'two\nlines of text\n')


def test_json_log_has_one_object_a_line() -> None:
    (line,) = logged('json', True).splitlines()
    entry = json.loads(line)
    assert (entry['level'], entry['message']) == ('warning', 'two\nlines of text')
    assert entry['logger'] == 'nodeserver.io'
    assert 'ZeroDivisionError' in entry['traceback']


@pytest.mark.parametrize('log_format', ['text', 'json'])
def test_what_would_steer_a_terminal_is_written_out(log_format: str) -> None:
    name = 'a\x1b]0;title\x07\x9b2J\x7f\u202egpj.exe\udcff\rover'
    code = (
        'import sys\nfrom nodeserver.cli import console\nimport logging\n'
        f'console.set_up_logging(log_format={log_format!r}, ordinary=sys.stdout)\n'
        f"logging.getLogger('nodeserver').info('file %s is here', {name!a})\n"
        f'console.report_error(ValueError({name!a}), debug=False)\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, check=True)
    for written in (done.stdout, done.stderr):
        assert re.fullmatch(rb'[\x20-\x7e\n]+', written), written
        assert rb'\u001b]0;title\u0007\u009b2J\u007f\u202egpj.exe\udcff' in written
    if log_format == 'json':
        assert json.loads(done.stdout)['message'] == f'file {name} is here'
