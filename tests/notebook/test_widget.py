"""The widget of a cluster shows what is the case, and does what its buttons say."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.notebook.kernel import WIDGET, Kernel, quiet_kernel
from tests.notebook.widget import END, START, Shown

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.usefixtures('loop_of_the_jupyter_client'),
]


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with quiet_kernel(START, END) as kernel:
        yield kernel


def shown(kernel: Kernel, jobs: int, gate: Path) -> Shown:
    """Submit jobs that wait for a file, and show the cluster."""
    submits = f'jobs = [cluster.submit({str(gate)!r}) for _ in range({jobs})]'
    kernel.run(f'{submits}\ncluster.wait_for_nodes(2)\ncluster')
    widget = Shown(kernel)
    widget.hear_figures(running=2, waiting=jobs - 2)
    return widget


@pytest.mark.row('V08')
def test_cancel_all_cancels_what_has_not_ended(kernel: Kernel, tmp_path: Path):
    widget = shown(kernel, 12, tmp_path / 'gate')
    widget.wish('cancel_all')
    widget.hear('12 jobs are being cancelled.')
    widget.hear_figures(cancelled=12, waiting=0, running=0)
    assert widget.said['is_error'] is False
    assert widget.failures['rows'] == []  # what the user wanted is no failure
    kernel.run('print([job.status == dispy.DispyJob.Cancelled for job in jobs].count(True))')
    assert kernel.text['stdout'] == '12\n'


@pytest.mark.row('V08')
def test_selected_jobs_alone_are_cancelled(kernel: Kernel, tmp_path: Path):
    gate = tmp_path / 'gate'
    widget = shown(kernel, 5, gate)
    rows = widget.jobs['rows']
    assert [row['status'] for row in rows] == ['running'] * 2 + ['waiting'] * 3
    chosen = [rows[0]['number'], rows[4]['number']]
    widget.wish('cancel', jobs=[*chosen, 10**30])
    widget.hear('2 jobs are being cancelled. 1 job had ended, or never were.')
    widget.hear_figures(cancelled=2)
    gate.touch()
    kernel.run('cluster.wait(); print([job.id for job in jobs if job.exception == "Cancelled"])')
    assert kernel.text['stdout'] == f'{chosen}\n'


@pytest.mark.row('V08')
def test_cpus_of_a_node_are_set(kernel: Kernel, tmp_path: Path):
    widget = shown(kernel, 5, tmp_path / 'gate')
    first, second = widget.nodes['rows']
    assert (first['name'], first['cpus'], first['offered']) == ('local-1', 1, 1)
    widget.wish('cpus', node=first['id'], cpus=0)
    widget.hear('local-1 uses 0 cpus now.')
    kernel.hear_until(lambda: [row['cpus'] for row in widget.nodes['rows']] == [0, 1])
    widget.wish('cpus', node=second['id'], cpus=2)
    widget.hear('Not done: node local-2 offers 1 cpu, not 2.')
    assert widget.said['is_error'] is True
    widget.wish('cpus', node=first['id'], cpus=1)
    widget.hear('local-1 uses 1 cpu now.')
    kernel.hear_until(lambda: [row['cpus'] for row in widget.nodes['rows']] == [1, 1])


@pytest.mark.row('V08')
def test_close_waits_for_the_jobs_and_can_be_hurried(kernel: Kernel, tmp_path: Path):
    widget = shown(kernel, 3, tmp_path / 'gate')
    widget.wish('close', pending='wait')
    widget.hear('The cluster is closed when 3 jobs have ended.')
    widget.wish('close', pending='wait')  # again: nothing more, and nothing less
    widget.hear('The cluster is closed when its jobs have ended.')
    assert widget.figures['closed'] is False
    widget.wish('close', pending='cancel')
    widget.hear_figures(closed=True, cancelled=3)
    widget.hear('The cluster is closed.')
    kernel.hear_until(lambda: all(WIDGET not in each for each in kernel.displays.values()))
    kernel.run('print(cluster._shell.closed.is_set())')
    assert kernel.text['stdout'] == 'True\n'


@pytest.mark.row('V08')
def test_close_comes_after_the_last_job(kernel: Kernel, tmp_path: Path):
    gate = tmp_path / 'gate'
    widget = shown(kernel, 3, gate)
    widget.wish('close', pending='wait')
    widget.hear('when 3 jobs have ended')
    gate.touch()
    widget.hear_figures(closed=True, finished=3, cancelled=0)


@pytest.mark.row('V08')
def test_what_is_no_wish_is_answered_and_changes_nothing(kernel: Kernel, tmp_path: Path):
    widget = shown(kernel, 3, tmp_path / 'gate')
    bad = ['cancel_all', None, {}, {'wish': 'explode'}, {'wish': 'cancel', 'jobs': ['1']}]
    for number, content in enumerate(bad, 1):
        widget.send(content)
        kernel.hear_until(lambda number=number: widget.said['number'] >= number)
        assert widget.said['is_error'] is True
        assert widget.said['text'].startswith('Not done: ')
    widget.wish('cpus', node='no such node', cpus=1)
    widget.hear("Not done: node 'no such node' is not there.")
    widget.wish('watch', job=17)
    widget.hear('Not done: job 17 has ended.')
    kernel.run('print(cluster.snapshot().pending)')
    assert kernel.text['stdout'] == '3\n'


@pytest.mark.row('V08')
def test_a_closed_cluster_says_so_to_whoever_wishes(kernel: Kernel, tmp_path: Path):
    widget = shown(kernel, 2, tmp_path / 'gate')
    kernel.run('cluster.close(timeout=0, terminate=True)')
    widget.hear_figures(closed=True)
    for wish in ({'wish': 'cancel_all'}, {'wish': 'close', 'pending': 'wait'}):
        before = widget.said['number']
        widget.send(wish)
        kernel.hear_until(lambda before=before: widget.said['number'] > before)
        assert widget.said['text'] == 'Not done: cluster hold is closed.'


@pytest.mark.row('V18')
def test_output_of_a_chosen_job_is_shown_while_it_runs_and_after(kernel: Kernel, tmp_path: Path):
    gate = tmp_path / 'gate'
    kernel.run(f'jobs = [cluster.submit({str(gate)!r}, words="first words")]\ncluster')
    widget = Shown(kernel)
    widget.hear_figures(running=1)
    assert widget.output['job'] is None
    number = widget.jobs['rows'][0]['number']
    widget.wish('watch', job=number)
    kernel.hear_until(lambda: widget.output['job'] == number)
    kernel.hear_until(lambda: 'first words' in widget.output['stdout'])
    assert widget.output['status'] == ''
    gate.touch()
    kernel.hear_until(lambda: widget.output['status'] == 'finished')
    assert widget.output['stdout'] == 'first words\n'
    kernel.hear_until(lambda: all(WIDGET not in each for each in kernel.displays.values()))
    (picture,) = kernel.displays.values()
    assert 'first words' in picture['text/html']


@pytest.mark.row('V07', 'V11', 'V17')
def test_failures_and_provisional_results_are_listed_while_the_run_goes_on(kernel: Kernel):
    kernel.run("""
        def study(n):
            import time
            dispy_provisional_result((n, 'rough'))
            dispy_provisional_result((n, 'better'))
            if n < 12:
                raise ValueError(f'<b>{n}</b>')
            time.sleep(20)

        other = dispy.JobCluster(study, nodes=nodes.nodes, ip_addr='127.0.0.1', port=0)
        for n in range(13):
            other.submit(n)
        other
    """)
    widget = Shown(kernel)
    widget.hear_figures(failed=12, running=1)
    first = widget.failures['rows'][0]
    assert len(widget.failures['rows']) == 10
    assert first['text'].startswith('ValueError: <b>')
    assert first['arguments'] in map(str, range(12))
    assert 'in study' in first['detail']
    assert 'raise ValueError' in first['detail']
    kernel.hear_until(lambda: widget.results['count'] == 26)
    row = next(row for row in widget.results['rows'] if row['id'] == '13')
    assert (row['count'], row['text']) == (2, "(12, 'better')")
    kernel.run('other.close(timeout=0, terminate=True)')
    (picture,) = kernel.displays.values()
    assert '&lt;b&gt;0&lt;/b&gt;' in picture['text/html']
    assert '<b>0</b>' not in picture['text/html']
    assert 'and 9 more that failed' in picture['text/html']


@pytest.mark.leaves('files')  # a node that is killed cannot remove its socket
@pytest.mark.row('V07')
def test_a_node_that_is_lost_is_marked_while_it_is_shown(kernel: Kernel, tmp_path: Path):
    widget = shown(kernel, 4, tmp_path / 'gate')
    kernel.run('import os, signal; os.kill(nodes.pids[0], signal.SIGKILL)')
    kernel.hear_until(lambda: any(row['gone'] for row in widget.nodes['rows']))
    lost = next(row for row in widget.nodes['rows'] if row['gone'])
    assert lost['busy'] == 0
    widget.wish('cpus', node=lost['id'], cpus=1)
    widget.hear(f'Not done: node {lost["name"]} is not there.')
    widget.hear_figures(cancelled=1)  # its job is lost with it, and told among what went wrong
    kernel.hear_until(lambda: widget.failures['rows'])
    assert widget.failures['rows'][0]['status'] == 'cancelled'
    kernel.hear_until(lambda: 'was lost' in kernel.text['stderr'])
    kernel.text['stderr'] = ''  # so much for the log


def test_a_widget_holds_no_cluster_that_is_closed_nor_a_job_that_has_ended(
    kernel: Kernel, tmp_path: Path
):
    gate = tmp_path / 'gate'
    gate.touch()
    kernel.run("""
        import gc, weakref
        brief = dispy.JobCluster(hold, nodes=nodes.nodes, ip_addr='127.0.0.1', port=0)
        display(brief)
    """)
    widget = Shown(kernel)
    kernel.run(f'job = brief.submit({str(gate)!r})')
    widget.wish('watch', job=1)
    kernel.run('brief.close(); held = weakref.ref(job), weakref.ref(brief); del job, brief')
    widget.hear_figures(closed=True)

    def is_gone() -> bool:
        # the picture is sent for the last time at the end of a cell, which may be the next one
        kernel.run('gc.collect(); print([ref() for ref in held])')
        return kernel.text['stdout'].endswith('[None, None]\n')

    kernel.hear_until(is_gone)
