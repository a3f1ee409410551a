"""A computation that is a program: its exit status, its output, its arguments."""

from pathlib import Path

import pytest

import dispy_nb as dispy


@pytest.mark.row('D08')
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
