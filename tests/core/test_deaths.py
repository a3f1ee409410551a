"""How the end of a process is told: in one line, and by what it wrote last."""

import signal

import pytest

from nodeserver.core.deaths import (
    UNREPORTABLE,
    MemoryKill,
    describe_death,
    describe_end,
    describe_size,
)
from nodeserver.core.lastwords import MOST_CHARACTERS, MOST_LINES, last_words

CRASH = """Fatal Python error: Segmentation fault

Thread 0x00007f2 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 324 in wait
  File "/usr/lib/python3.11/threading.py", line 1002 in _bootstrap

Current thread 0x00007f1 (most recent call first):
  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at
  File "/home/ann/job.py", line 8 in work
  File "/venv/site-packages/nodeserver/worker/run.py", line 128 in _run
  File "/venv/site-packages/nodeserver/worker/template.py", line 57 in _unpack_and_serve
  File "<frozen runpy>", line 88 in _run_code

Extension modules: msgspec._core (total: 1)
"""


@pytest.mark.parametrize(
    ('status', 'kill', 'words'),
    [
        (3, MemoryKill.NONE, 'its process was ended by os._exit(3), or by exit in C code'),
        (-signal.SIGSEGV, MemoryKill.NONE, 'its process crashed: segmentation fault (SIGSEGV)'),
        (-signal.SIGABRT, MemoryKill.NONE, 'its process crashed: abort (SIGABRT)'),
        (-signal.SIGTERM, MemoryKill.OURS, 'its process was killed by SIGTERM'),
        (-signal.SIGKILL, MemoryKill.NONE, 'its process was killed by SIGKILL (from outside)'),
        (
            -signal.SIGKILL,
            MemoryKill.OURS,
            'its process was killed by the out-of-memory killer (SIGKILL)',
        ),
        (
            -signal.SIGKILL,
            MemoryKill.SOME,
            'its process was killed by SIGKILL '
            '(probably by the out-of-memory killer: it struck on this machine)',
        ),
        (
            -signal.SIGKILL,
            MemoryKill.UNKNOWN,
            'its process was killed by SIGKILL (from outside, or for want of memory)',
        ),
        (-61, MemoryKill.NONE, 'its process was killed by signal 61'),
        (
            UNREPORTABLE,
            MemoryKill.NONE,
            'its result could not be reported: it closed the channel to its node',
        ),
        (
            None,
            MemoryKill.NONE,
            'its process ended with its template, the process that jobs are forked from',
        ),
    ],
)
def test_each_way_to_die_has_its_words(status: int | None, kill: MemoryKill, words: str) -> None:
    assert describe_death(status, kill) == words


def test_a_template_is_named_as_what_died() -> None:
    assert describe_death(-11, subject='its template').startswith('its template crashed: ')


@pytest.mark.parametrize(
    ('lasting', 'peak', 'end'),
    [
        (False, 1_234_000_000, '; peak memory 1.2 GB'),
        (True, 52_000_000, '; peak memory of its worker 52 MB'),
        (False, 0, ', before its outcome was reported'),
    ],
)
def test_peak_memory_is_told_where_it_is_known(lasting: bool, peak: int, end: str) -> None:
    words = describe_end(3, MemoryKill.NONE, peak, lasting)
    assert words.endswith(end)
    assert ', before its outcome was reported' in words


@pytest.mark.parametrize(
    ('size', 'text'),
    [
        (40, '0.0 kB'),
        (9_940, '9.9 kB'),
        (9_960, '10 kB'),
        (999_499, '999 kB'),
        (999_600, '1.0 MB'),
        (64_000_000_000, '64 GB'),
        (5_000_000_000_000_000, '5000 TB'),
    ],
)
def test_sizes_are_told_as_people_do(size: int, text: str) -> None:
    assert describe_size(size) == text


def test_a_crash_shows_the_users_frames_of_the_thread_that_crashed() -> None:
    assert last_words('', f'50%\r100%{CRASH}').splitlines() == [
        'where it crashed:',
        'Fatal Python error: Segmentation fault',
        'Current thread 0x00007f1 (most recent call first):',
        '  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at',
        '  File "/home/ann/job.py", line 8 in work',
        'last lines of its standard error:',
        '100%',
    ]


def test_an_endless_recursion_shows_its_latest_calls_only() -> None:
    frames = '  File "/home/ann/job.py", line 8 in work\n' * 500
    head, _, tail = CRASH.partition('  File "/home/ann')
    shown = last_words('', f'{head}{frames}  File "/home/ann{tail}').splitlines()
    assert MOST_LINES <= len(shown) <= MOST_LINES + 2


def test_only_the_last_lines_are_shown_of_each_output() -> None:
    many = ''.join(f'line {number}\n' for number in range(100))
    lines = last_words(many, '').splitlines()
    assert lines[:3] == ['last lines of its standard output:', '...', 'line 80']
    assert lines[-1] == 'line 99'
    both = last_words(many, many).splitlines()
    assert both.count('...') == 2
    assert len(both) == 2 * (2 + MOST_LINES // 2)


def test_a_line_without_end_is_cut() -> None:
    words = last_words('x' * 100_000, '')
    assert len(words) <= MOST_CHARACTERS + 100
    assert words.endswith('x')
    assert 'x\nyz' in last_words('a' * 100_000 + '\nx\nyz\n\n', '')


def test_control_characters_are_written_out() -> None:
    words = last_words('\x1b[2Jred\x07\tgr\u202een\n\ud800 \x9b5m \u00e9', '')
    assert words == (
        'last lines of its standard output:\n\\x1b[2Jred\\x07\tgr\\u202een\n\\ud800 \\x9b5m \u00e9'
    )
    most = last_words('\x1b' * 100_000, '')
    assert len(most) <= MOST_CHARACTERS + 100


def test_of_a_bar_of_progress_its_last_state_is_shown() -> None:
    assert last_words('', '10%\r50%\r99%\r\n').endswith(':\n99%')


def test_nothing_written_is_nothing_shown() -> None:
    assert last_words(' \n', '\n') == ''
