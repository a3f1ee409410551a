"""A kernel is killed, and another one goes on with its cluster (V15)."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.notebook.kernel import Kernel, only_display, running_kernel
from tests.support.programs import eventually, free_port, node_program

ADDRESS = '127.0.8.1'
MAKE = """
import os, time
import dispy_nb
%load_ext dispy_nb
gate = {gate!r}

def work(x):
    print('job', x)
    open(f'{{gate}}.{{x}}', 'a').write('once ')
    while x > 1 and not os.path.exists(gate):
        time.sleep(0.01)
    return x * x

cluster = dispy_nb.JobCluster(work, nodes=[{address!r}], ip_addr='127.0.0.1', port=0,
                              node_port={port}, depends=[os, time])
"""


@pytest.fixture
def node(own_home: Path) -> Iterator[int]:
    """Run a node of one cpu; its port."""
    port = free_port()
    with node_program('-i', ADDRESS, '-p', port, '-c', 1, '--name', 'alpha'):
        yield port


def printed(kernel: Kernel, source: str) -> str:
    """Run a cell and answer what it has printed."""
    cell = kernel.run(source)
    return kernel.text_of.get(cell, '').strip()


@pytest.mark.row('V15', 'V05')
@pytest.mark.slow
def test_a_killed_kernels_jobs_results_output_and_widget_are_back_in_the_next_one(
    loop_of_the_jupyter_client: None, own_home: Path, node: int
) -> None:
    gate = own_home / 'gate'
    with running_kernel() as kernel:
        kernel.run(MAKE.format(gate=str(gate), address=ADDRESS, port=node))
        kernel.run('large = cluster.share(bytes(300_000))')
        kernel.run('jobs = [cluster.submit(x) for x in range(6)]\nfor job in jobs[:2]: job()')
        kernel.run("for job in jobs: job.id = f'square {job._arguments}'\ntime.sleep(0.3)")
        eventually((own_home / 'gate.2').exists)
        os.kill(int(printed(kernel, 'print(os.getpid())')), signal.SIGKILL)
    gate_was_shut = not gate.exists()
    with running_kernel() as kernel:
        kernel.run('import dispy_nb\n%load_ext dispy_nb')
        assert printed(kernel, 'print(len(dispy_nb.closing.open_clusters()))') == '0'
        kernel.run('cluster = %dispy attach\ncluster')
        assert gate_was_shut
        figures = printed(kernel, 's = cluster.snapshot(); print(s.name, s.submitted, s.finished)')
        assert figures == 'work 6 2'
        assert printed(kernel, 'print(cluster.attached_jobs[1].result)') == '1'
        assert printed(kernel, "print(cluster.attached_jobs[1].stdout, end='')") == 'job 1'
        gate.touch()
        results = 'print(cluster.wait(20), [job.result for job in cluster.attached_jobs])'
        assert printed(kernel, results) == 'True [0, 1, 4, 9, 16, 25]'
        assert printed(kernel, 'print(cluster.submit(9)())') == '81'
        kernel.hear_until(lambda: '7 finished' in only_display(kernel)['text/plain'])
        kernel.run('cluster.close()')
        assert kernel.text['stderr'] == ''
        kernel.start('%dispy attach')
        kernel.hear_until(lambda: not kernel.running)
        assert 'there is no cluster to attach to' in kernel.errors.pop()
    for x in range(6):  # each ran once
        assert (own_home / f'gate.{x}').read_text() == 'once '


def in_a_shell(source: str, here: Path) -> 'subprocess.CompletedProcess[str]':
    """Type lines into IPython on a terminal, without its colours."""
    command = [sys.executable, '-m', 'IPython', '--no-banner', '--simple-prompt']
    return subprocess.run(
        command, input=source, capture_output=True, text=True, cwd=here, timeout=60, check=False
    )


@pytest.mark.row('V15', 'V05')
@pytest.mark.slow
def test_what_a_killed_shell_of_ipython_had_is_back_in_the_next_one(
    own_home: Path, node: int, tmp_path: Path
) -> None:
    gate = tmp_path / 'gate'
    made = MAKE.format(gate=str(gate), address=ADDRESS, port=node)
    submitted = 'jobs = [cluster.submit(x) for x in range(4)]; jobs[1](); time.sleep(0.3)\n'
    killed = in_a_shell(f'{made}\n{submitted}os.kill(os.getpid(), 9)\n', tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    gate.touch()
    lines = (
        '%load_ext dispy_nb\n%dispy attach cubes\n'
        'noted = []; note = lambda job: noted.append(job.id)\n'
        'cluster = %dispy attach work --callback note\ncluster.wait(30)\n'
        "print('are', [job.result for job in cluster.attached_jobs])\n"
        "print('noted', sorted(noted))\ncluster.close()\n"
    )
    ended = in_a_shell(lines, tmp_path)
    assert 'are [0, 1, 4, 9]' in ended.stdout, ended.stdout + ended.stderr
    assert 'noted [3, 4]' in ended.stdout  # the others had ended before
    assert "there is no cluster 'cubes' to attach to" in ended.stdout + ended.stderr
    for x in range(4):  # each ran once
        assert (tmp_path / f'gate.{x}').read_text() == 'once '
    assert not [*tmp_path.glob('_dispy_*')]


@pytest.mark.row('V05')
@pytest.mark.slow
def test_the_magic_recovers_the_jobs_of_a_killed_script(
    own_home: Path, node: int, tmp_path: Path
) -> None:
    made = MAKE.replace('%load_ext dispy_nb\n', '')
    script = tmp_path / 'script.py'
    script.write_text(
        made.format(gate=str(tmp_path / 'gate'), address=ADDRESS, port=node)
        + 'jobs = [cluster.submit(x) for x in range(3)]\n'
        "while not os.path.exists(gate + '.2'):\n    time.sleep(0.01)\n"
        'time.sleep(0.3)\nos.kill(os.getpid(), 9)\n'
    )
    run = subprocess.run([sys.executable, script], cwd=tmp_path, timeout=60, check=False)
    assert run.returncode == -signal.SIGKILL
    (file,) = (path for path in tmp_path.glob('_dispy_*') if not path.name.endswith('-wal'))
    ended = in_a_shell(
        f'%load_ext dispy_nb\njobs = %dispy recover {file.name} -t 0.5\nprint("first", jobs)\n'
        f'jobs = %dispy recover {file.name} -t 0.1 --terminate\n'
        "print('then', [(job.id, str(job.status.name), job.stdout) for job in jobs])\n",
        tmp_path,
    )
    said = ended.stdout + ended.stderr
    assert 'first []' in said
    assert "then [(3, 'CANCELLED', 'job 2\\n')]" in said
    assert not file.exists()
