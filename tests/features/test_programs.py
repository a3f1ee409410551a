"""A computation that is a program: its exit status, its output, its arguments."""

import sys
from pathlib import Path

import pytest

import dispy_nb as dispy
from tests.support.programs import eventually


@pytest.mark.row('D08')
@pytest.mark.row('A06')
@pytest.mark.row('C05')
def test_result_of_a_program_is_its_exit_status(tmp_path: Path) -> None:
    program = tmp_path / 'greet'
    program.write_text('#!/bin/sh\necho "hello $1 in $(basename $0)"; echo "bad" >&2\nexit $2\n')
    program.chmod(0o755)
    with (
        dispy.LocalNodes(1, cpus=1) as local,
        dispy.JobCluster(str(program), nodes=local.nodes, ip_addr='127.0.0.1') as cluster,
    ):
        jobs = [cluster.submit(f'you {number}', str(number)) for number in (0, 3)]
        assert [job() for job in jobs] == [0, 3]
        assert [job.status for job in jobs] == [dispy.DispyJob.Finished] * 2
        assert jobs[1].stdout == 'hello you 3 in greet\n'
        assert jobs[1].stderr == 'bad\n'
        with pytest.raises(dispy.UsageError, match=r'argument 1 of a program .* 3 \(int\)'):
            cluster.submit(3)


def test_a_program_that_is_not_there_or_not_executable_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(dispy.UsageError, match='no such file'):
        dispy.JobCluster(str(tmp_path / 'missing'), ip_addr='127.0.0.1')
    plain = tmp_path / 'plain'
    plain.write_text('text')
    plain.chmod(0o644)
    with pytest.raises(dispy.UsageError, match='not executable'):
        dispy.JobCluster(str(plain), ip_addr='127.0.0.1')


def test_a_program_that_cannot_be_run_says_why(tmp_path: Path) -> None:
    program = tmp_path / 'text'
    program.write_text('no program at all\n')
    program.chmod(0o755)
    with (
        dispy.LocalNodes(1, cpus=1) as local,
        dispy.JobCluster(str(program), nodes=local.nodes, ip_addr='127.0.0.1') as cluster,
    ):
        job = cluster.submit()
        assert job() is None
        assert 'text cannot be run on this node: Exec format error' in str(job.exception)
        assert job.status == dispy.DispyJob.Terminated


@pytest.mark.row('G08')
def test_a_program_has_no_call_for_provisional_results(tmp_path: Path) -> None:
    program = tmp_path / 'script'
    program.write_text(f'#!{sys.executable}\ndispy_provisional_result(1)\n')
    program.chmod(0o755)
    told: list[int] = []
    with (
        dispy.LocalNodes(1, cpus=1) as local,
        dispy.JobCluster(
            str(program),
            nodes=local.nodes,
            ip_addr='127.0.0.1',
            callback=lambda job: told.append(job.status),
        ) as cluster,
    ):
        job = cluster.submit()
        assert job() == 1
        assert "NameError: name 'dispy_provisional_result' is not defined" in job.stderr
    assert told == [dispy.DispyJob.Finished]


def test_a_cancelled_program_takes_all_that_it_started_with_it(tmp_path: Path) -> None:
    """Also what has left its process group, and what ignores the first signals."""
    program = tmp_path / 'tree'
    program.write_text(
        '#!/bin/sh\ntrap "" INT TERM\n'
        f"sh -c 'echo $$ >> {tmp_path}/pids; exec sleep 1000' &\n"
        f"setsid sh -c 'echo $$ >> {tmp_path}/pids; exec sleep 1000' &\n"
        f'echo $$ >> {tmp_path}/pids\nwait\nwait\nwait\n'
    )
    program.chmod(0o755)
    with (
        dispy.LocalNodes(1, cpus=1) as local,
        dispy.JobCluster(str(program), nodes=local.nodes, ip_addr='127.0.0.1') as cluster,
    ):
        job = cluster.submit()
        pids = tmp_path / 'pids'
        eventually(lambda: pids.exists() and len(pids.read_text().split()) == 3, 20)
        assert cluster.cancel(job) == 0
        assert job.wait(20)
        assert job.status == dispy.DispyJob.Cancelled
        found = [int(pid) for pid in pids.read_text().split()]
        eventually(lambda: not any(map(is_running, found)), 20)


def is_running(pid: int) -> bool:
    try:
        return 'sleep' in Path(f'/proc/{pid}/cmdline').read_text()
    except OSError:
        return False
