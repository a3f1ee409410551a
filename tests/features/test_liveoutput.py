"""What a running job has printed is in `job.stdout` and `job.stderr` while it runs."""

import stat
import sys
from pathlib import Path

import pytest

import dispy_nb as dispy
from dispy_nb.liveoutput import HEAD, TAIL, LiveOutput, LiveText
from nodeserver.core.outputmessages import STDERR, STDOUT
from tests.features.conftest import MakeCluster
from tests.support.programs import eventually

LIMIT = 15.0
ISOLATIONS = pytest.mark.parametrize('isolation', ['job', 'worker'])


# what runs on the nodes


def step_by_step(gate, name='step'):
    import os
    import pathlib
    import sys
    import time

    print(f'{name} 1')
    os.write(1, 'out of C: é\n'.encode())
    print('warning', file=sys.stderr)
    deadline = time.monotonic() + 60
    while not pathlib.Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    print(f'{name} 2')
    return name


def fail_once(tries, gate):
    import pathlib
    import time

    attempt = len(list(pathlib.Path(tries).iterdir())) + 1
    print('attempt', attempt)
    deadline = time.monotonic() + 60
    while not pathlib.Path(f'{gate}{attempt}').exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    pathlib.Path(tries, str(attempt)).touch()
    if attempt == 1:
        raise ValueError('once')
    return attempt


def tell_on_the_way(gate):
    import pathlib
    import time

    print('on the way')
    deadline = time.monotonic() + 60
    while not pathlib.Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    dispy_provisional_result(1)  # noqa: F821
    print('at the end')
    return 2


def print_very_much(gate):
    import pathlib
    import time

    print('the beginning')
    for number in range(30_000):
        print('much', number)
    print('the last line')
    deadline = time.monotonic() + 60
    while not pathlib.Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.01)


PROGRAM = """#!/bin/sh
echo step 1
echo warning >&2
while [ ! -e "$1" ]; do sleep 0.05; done
echo step 2
"""


# what the client sees


@ISOLATIONS
def test_the_output_of_a_running_job_is_seen_before_its_end(
    make_cluster: MakeCluster, tmp_path: Path, isolation: str
) -> None:
    gate = tmp_path / 'gate'
    cluster = make_cluster(step_by_step, isolation=isolation)
    job = cluster.submit(str(gate))
    eventually(lambda: job.stdout == 'step 1\nout of C: é\n', LIMIT, lambda: repr(job.stdout))
    eventually(lambda: job.stderr == 'warning\n', LIMIT, lambda: repr(job.stderr))
    assert job.status == dispy.DispyJob.Running
    assert (job.result, job.exception) == (None, None)
    gate.touch()
    assert job() == 'step'
    assert (job.stdout, job.stderr) == ('step 1\nout of C: é\nstep 2\n', 'warning\n')


def test_the_output_of_a_running_program_is_seen_before_its_end(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    gate, script = tmp_path / 'gate', tmp_path / 'steps'
    script.write_text(PROGRAM)
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    job = make_cluster(str(script)).submit(str(gate))
    eventually(lambda: job.stdout == 'step 1\n', LIMIT, lambda: repr(job.stdout))
    eventually(lambda: job.stderr == 'warning\n', LIMIT, lambda: repr(job.stderr))
    gate.touch()
    assert job() == 0
    assert (job.stdout, job.stderr) == ('step 1\nstep 2\n', 'warning\n')


@pytest.mark.slow
def test_jobs_of_a_lasting_worker_show_their_own_output_only(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    gates = [tmp_path / f'gate{number}' for number in range(3)]
    cluster = make_cluster(step_by_step, isolation='worker', nodes=['127.0.0.2'])
    names = ['a long name', 'b', 'another long name']
    jobs = [cluster.submit(str(gate), name) for gate, name in zip(gates, names, strict=True)]
    for job, gate, name in zip(jobs, gates, names, strict=True):
        expected = f'{name} 1\nout of C: é\n'
        assert job.stdout in (None, '', expected)
        eventually(lambda job=job: job.stdout, LIMIT)  # type: ignore[misc]
        assert job.stdout == expected
        gate.touch()
        assert job() == name
        assert job.stdout == f'{expected}{name} 2\n'


def test_there_is_none_before_a_job_runs_and_nothing_until_it_prints(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    gate = tmp_path / 'gate'
    cluster = make_cluster(step_by_step, nodes=['127.0.0.9'])  # where no node is
    waiting = cluster.submit(str(gate))
    assert (waiting.status, waiting.stdout) == (dispy.DispyJob.Created, None)
    assert waiting.stderr is None
    quiet = make_cluster(hold_quietly).submit(str(gate))
    eventually(lambda: quiet.status == dispy.DispyJob.Running, LIMIT)
    assert (quiet.stdout, quiet.stderr) == ('', '')
    gate.touch()
    assert quiet() is None
    assert (quiet.stdout, quiet.stderr) == ('', '')
    cluster.cancel(waiting)


def hold_quietly(gate):
    import pathlib
    import time

    deadline = time.monotonic() + 60
    while not pathlib.Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.slow
def test_a_job_that_is_run_again_shows_what_its_present_attempt_prints(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    tries, gate = tmp_path / 'tries', str(tmp_path / 'gate')
    tries.mkdir()
    job = make_cluster(fail_once).options(retries=1).submit(str(tries), gate)
    for attempt in (1, 2):
        expected = f'attempt {attempt}\n'
        eventually(lambda text=expected: job.stdout == text, LIMIT)  # type: ignore[misc]
        Path(f'{gate}{attempt}').touch()
    assert job() == 2
    assert job.stdout == 'attempt 2\n'


def test_a_callback_sees_what_the_job_had_printed_by_then(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    gate, seen = tmp_path / 'gate', []

    def note(job: dispy.DispyJob) -> None:
        seen.append((job.status, job.result, job.stdout))

    cluster = make_cluster(tell_on_the_way, callback=note)
    job = cluster.submit(str(gate))
    eventually(lambda: job.stdout == 'on the way\n', LIMIT)
    gate.touch()
    assert job() == 2
    assert cluster.wait(LIMIT)
    assert seen == [
        (dispy.DispyJob.ProvisionalResult, 1, 'on the way\n'),
        (dispy.DispyJob.Finished, 2, 'on the way\nat the end\n'),
    ]


def test_a_job_that_prints_very_much_shows_its_beginning_and_its_end(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    gate = tmp_path / 'gate'
    job = make_cluster(print_very_much).submit(str(gate))
    eventually(lambda: (job.stdout or '').endswith('the last line\n'), LIMIT)
    text = job.stdout
    assert text.startswith('the beginning\nmuch 0\nmuch 1\n')
    assert text.count('are left out here while the job runs') == 1
    gate.touch()
    assert job() is None
    assert job.stdout.count('\n') == 30_002
    assert 'left out' not in job.stdout


# how the pieces are put together


def test_pieces_cut_within_a_character_are_whole_text() -> None:
    data = 'é€😀 und Tschüß'.encode()
    for size in (1, 2, 3, 5):
        text = LiveText()
        for start in range(0, len(data), size):
            text.add(start, data[start : start + size])
            assert '�' not in text.text
            assert data.decode().startswith(text.text)
        assert text.text == data.decode()


def test_what_is_left_out_is_counted_and_cut_at_characters() -> None:
    text = LiveText()
    text.add(0, 'aé'.encode()[:-1])
    text.add(1000, 'é'.encode()[1:] + b'bc')
    text.add(1003, b'd')
    notice = '[... 998 bytes are left out here while the job runs ...]'
    assert text.text == f'a\n{notice}\nbcd'
    text.add(2000, b'e')
    notice = '[... 1,998 bytes are left out here while the job runs ...]'
    assert text.text == f'a\n{notice}\ne'


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    text, piece = LiveText(), b'0123456789abcde\n' * 1024
    for number in range(200):
        text.add(number * len(piece), piece)
        kept = text.text
        assert kept.startswith('0123456789')
        assert kept.endswith('abcde\n')
        assert len(kept) < HEAD + 2 * TAIL + 2 * len(piece) + 100
    assert sys.getsizeof(text.text) < HEAD + 3 * TAIL


def test_a_frozen_output_does_not_grow() -> None:
    live = LiveOutput()
    live.add(STDOUT, 0, b'one ')
    frozen = live.frozen()
    live.add(STDOUT, 4, b'two')
    live.add(STDERR, 0, b'oh')
    assert (frozen.stdout.text, frozen.stderr.text) == ('one ', '')
    assert (live.stdout.text, live.stderr.text) == ('one two', 'oh')


def test_a_piece_that_comes_twice_is_taken_once() -> None:
    text = LiveText()
    for start, data in ((0, b'one '), (0, b'one '), (4, b'two')):
        text.add(start, data)
    assert text.text == 'one two'
