"""`%dispy`: each subcommand does what the method of its name does, and says what is wrong."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.notebook.kernel import running_kernel
from tests.notebook.magiccells import Cells, cells_with_magics
from tests.support.programs import free_port

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.usefixtures('loop_of_the_jupyter_client'),
]

SUBCOMMANDS = (
    *('start', 'stop', 'nodes', 'cluster', 'submit', 'map', 'jobs', 'cancel', 'explain', 'stats'),
    *('wait', 'close', 'charts', 'plot', 'key', 'doctor', 'recover', 'attach'),
)
FUNCTIONS = """
    import os, signal, time

    def double(n, times=2):
        return n * times

    def hold(gate, value=None):
        import pathlib, time
        end = time.monotonic() + 20
        while not pathlib.Path(gate).exists() and time.monotonic() < end:
            time.sleep(0.02)
        return value
"""
HERE = '--ip-addr 127.0.0.1 --port 0'


@pytest.fixture(scope='module')
def kernel(shared_home: Path, loop_of_the_jupyter_client: None) -> Iterator[Cells]:
    """Run a kernel with two nodes of its own, of a cpu each."""
    with cells_with_magics() as cells:
        cells.cell(FUNCTIONS)
        said = cells.cell('%dispy start -n 2 -c 1')
        assert re.fullmatch(
            r'started local-1 at 127.0.0.1:\d+ with 1 cpu, local-2 at 127.0.0.1:\d+ with 1 cpu\s*',
            said,
        )
        yield cells


@pytest.fixture
def cells(kernel: Cells) -> Iterator[Cells]:
    """Answer that kernel, and close the clusters that a test has left there."""
    yield kernel
    kernel.cell(
        """
        from dispy_nb import closing
        from dispy_nb.notebook.magics.clusters import bound_clusters
        for each in closing.open_clusters(): each.close(timeout=0, terminate=True)
        for each in bound_clusters(get_ipython()): del get_ipython().user_ns[each]
        """
    )


@pytest.fixture
def held(cells: Cells, tmp_path: Path) -> Path:
    """Have a cluster `c` with four jobs, which end when the file that is answered is made."""
    gate = tmp_path / 'gate'
    cells.cell(f'%dispy cluster c hold {HERE}')
    cells.cell(f'gate = {str(gate)!r}\njobs = [c.submit(gate, n) for n in range(4)]')
    return gate


# what there is


@pytest.mark.row('V01')
def test_the_extension_can_be_loaded_twice_and_taken_away(cells: Cells) -> None:
    cells.cell('%load_ext dispy_nb')
    cells.cell('%reload_ext dispy_nb')
    assert 'no cluster yet' in cells.cell('%dispy')
    cells.cell('%unload_ext dispy_nb')
    assert 'Line magic function `%dispy` not found' in cells.cell('%dispy', fails=True)
    assert 'Cell magic `%%dispy` not found' in cells.cell('%%dispy --over x=[1]\nx', fails=True)
    cells.cell('%load_ext dispy_nb')
    cells.cell('%dispy')


@pytest.mark.row('V01')
def test_every_subcommand_has_a_line_of_help_and_a_page(cells: Cells) -> None:
    shown = cells.cell("print(get_ipython().find_line_magic('dispy').__doc__)")
    lines = {line.split()[0]: line for line in shown.splitlines() if line.startswith('  ')}
    assert tuple(lines) == SUBCOMMANDS
    assert all(len(line.split('  ')[-1]) > 10 for line in lines.values())
    assert cells.cell('%dispy -h').strip() == shown.strip()
    for name in SUBCOMMANDS:
        page = cells.cell(f'%dispy {name} -h')
        assert page.startswith(f'usage: %dispy {name}')
        assert page.splitlines()[2] in lines[name]


@pytest.mark.row('V01')
@pytest.mark.parametrize(
    ('line', 'said'),
    [
        ('strat', '%dispy has no subcommand strat: did you mean start? (`%dispy?` lists them)'),
        ('qqqqq', '%dispy has no subcommand qqqqq (`%dispy?` lists them)'),
        ('start --cpu 1', 'there is no option --cpu: did you mean --cpus?'),
        ('start -n two', "argument -n/--nodes: invalid int value: 'two'"),
        ('start 2', '2 is one word too many'),
        ('submit', 'the following arguments are required: NAME'),
        ('map c', 'the following arguments are required: ITERABLE'),
        ('cluster c double --isolaton worker', '--isolaton: did you mean --isolation?'),
        ('cluster 2c double', 'NAME must be the name of a variable, not 2c'),
        ('cluster class double', 'NAME must be the name of a variable, not class'),
        ('cluster c doubel', 'doubel is no name of this notebook: did you mean double?'),
        ('cluster double double', 'double is the function: choose another name'),
        ('cluster c double --cpus two', '--cpus: two is no name of this notebook'),
        ('submit nowhere 1', 'there is no cluster nowhere: there is none; `%dispy cluster NAME'),
        ('wait', 'there is no open cluster: `%dispy cluster NAME FUNCTION` makes one'),
        ('submit c "a', 'the quote " is not closed in'),
        ('key', 'the following arguments are required: ACTION'),
        ('key shwo', "invalid choice: 'shwo'"),
        ('key show more', 'key show takes nothing more'),
    ],
)
def test_wrong_lines_are_answered_in_one_line(cells: Cells, line: str, said: str) -> None:
    shown = cells.cell(f'%dispy {line}', fails=True)
    assert shown.startswith('UsageError: ')
    assert said in shown
    assert 'Traceback' not in shown
    assert shown.rstrip('\n').count('\n') == 0


@pytest.mark.parametrize(
    ('line', 'said'),
    [
        ('start --cpus 0', 'UsageError: cpus must be from 1 to '),
        ('cluster c double --isolation bad', "UsageError: isolation must be 'job' or 'worker'"),
        ('cluster c 5', 'UsageError: computation must be a function or the path of a program'),
        (
            'cluster c double --scheduler-port 5',
            'UsageError: scheduler_port is of SharedJobCluster',
        ),
        ('cluster c double --shared --pulse-interval 5', 'UnknownParameter: pulse_interval is no '),
        ('recover nothing', 'UsageError: there is no recovery file '),
        ('attach', 'UsageError: there is no cluster to attach to'),
        ('doctor bigbox:x', "UsageError: 'bigbox:x' is not HOST, HOST:PORT or [ADDRESS]:PORT"),
    ],
)
def test_our_own_errors_have_no_traceback(cells: Cells, line: str, said: str) -> None:
    shown = cells.cell(f'%dispy {line}', fails=True)
    assert shown.startswith(said)
    assert shown.rstrip('\n').count('\n') == 0


def test_what_the_users_code_raises_keeps_its_traceback(cells: Cells) -> None:
    cells.cell(f'%dispy cluster c double {HERE}')
    cells.cell('def wrong():\n    return 1 / 0')
    shown = cells.cell('%dispy submit c wrong()', fails=True)
    assert 'ZeroDivisionError' in shown
    assert 'in wrong()' in re.sub(r'\x1b\[[\d;]*m', '', shown)


# clusters


@pytest.mark.row('V01')
def test_alone_it_shows_clusters_by_variable_and_the_servers_started_here(
    cells: Cells, held: Path
) -> None:
    cells.cell('c.wait_for_nodes(2, timeout=20);')
    cells.cell(f'%dispy cluster second double --name "my run" {HERE}')
    text = cells.cell('%dispy')
    rows = [line.split() for line in text.splitlines()]
    (first,) = (row for row in rows if row[:1] == ['c'])
    assert first[:3] == ['c', 'hold', first[2]]
    assert int(first[2]) + int(first[3]) == 4
    assert first[-1] == '2'
    assert any(row[:3] == ['second', 'my', 'run'] for row in rows)
    assert re.search(r'node servers started here: local-1 at 127.0.0.1:\d+ with 1 cpu', text)
    held.touch()
    cells.cell('%dispy close c')
    assert re.search(r'^c +hold +0 +0 +4 .* closed$', cells.cell('%dispy'), re.MULTILINE)


@pytest.mark.row('V04')
def test_any_parameter_of_the_constructor_is_an_option(cells: Cells) -> None:
    cells.cell('told = []\ndef note(job): told.append(job.result)')
    shown = cells.cell(
        '%dispy cluster c double --nodes "[\'127.0.0.*\']" --ip_addr 127.0.0.1 --port 0 '
        '--isolation worker --callback note --reentrant --pulse-interval=30 name="a b" '
        '--progress False --memory 64M'
    )
    assert '0 created' in shown  # the cluster is shown
    assert cells.of('c.name, c._options.isolation, c._options.reentrant, c._options.memory') == (
        "('a b', 'worker', True, '64M')"
    )
    assert cells.of('c._options.nodes, c._options.pulse_interval, c._options.progress') == (
        "(['127.0.0.*'], 30, False)"
    )
    cells.cell('c.close()')
    cells.cell(f'%dispy cluster c double --nodes 127.0.0.*,localhost {HERE} --cleanup False')
    assert cells.of('c._options.nodes, c._options.cleanup') == (
        "(['127.0.0.*', 'localhost'], False)"
    )
    cells.cell('c.close()\nimport types\nhosts = types.SimpleNamespace(all=["127.0.0.9"])')
    cells.cell(f'%dispy cluster c double --nodes hosts.all {HERE}')
    assert cells.of('c._options.nodes') == "['127.0.0.9']"
    cells.cell('c.close()')
    cells.cell(f'%dispy cluster program "/bin/echo" {HERE}')
    assert cells.of('program.name') == "'echo'"


@pytest.mark.row('V04')
def test_a_shared_cluster_is_made_shown_and_explained_as_any(cells: Cells) -> None:
    port = free_port()
    place = f'--shared --scheduler-port {port} --ip_addr 127.0.0.1 --port 0'
    shown = cells.cell(f'%dispy cluster c double {place}')
    assert '0 created' in shown
    assert cells.of('type(c).__name__') == "'SharedJobCluster'"
    assert 'connection refused' in cells.cell('%dispy explain c')
    assert 'connection refused' in cells.cell('%dispy nodes c')
    assert re.search(r'^c +double ', cells.cell('%dispy'), re.MULTILINE)
    cells.cell('c.close()')


@pytest.mark.row('V05')
def test_submit_returns_a_job_and_map_binds_its_results(cells: Cells) -> None:
    cells.cell(f'%dispy cluster c double {HERE}')
    cells.cell('job = get_ipython().run_line_magic("dispy", "submit c 20")')
    cells.cell('n = 4')
    cells.cell('%dispy submit c [1, n] times=n - 1', fails=True)  # `n - 1` are three words
    cells.cell('%dispy submit c [1, n] times=(n - 1)')
    assert cells.value.startswith('<DispyJob 2: ')
    assert cells.of('_(), job()') == '([1, 4, 1, 4, 1, 4], 40)'
    cells.cell('%dispy submit c "a b" 3')
    assert cells.of('_()') == "'a ba ba b'"
    cells.cell('%dispy submit c {"k": 1}.__len__()')
    assert cells.of('_()') == '2'
    cells.cell('%dispy map c range(1, 4) [1, 2, 3] -o products --chunksize 2')
    assert cells.value == ''
    assert cells.of('products') == '[1, 4, 9]'
    cells.cell('%dispy map c [1]')
    assert cells.value == '[2]'
    assert 'UsageError: -o must be the name of' in cells.cell('%dispy map c [1] -o 1a', fails=True)
    assert 'UsageError: chunksize' in cells.cell('%dispy map c [1] --chunksize 0', fails=True)


@pytest.mark.row('V05')
def test_jobs_are_listed_explained_and_cancelled_by_their_ids(cells: Cells, held: Path) -> None:
    cells.cell('jobs[2].id = "the third"')
    text = cells.cell('%dispy jobs')
    assert re.search(r'^the third +(waiting|running) .*, 2$', text, re.MULTILINE)
    assert '4 pending jobs; 0 ended' in text
    assert 'and 3 more' in cells.cell('%dispy jobs c -n 1')
    assert 'job 4: ' in cells.cell('%dispy explain c 4')
    assert 'job 1: ' in cells.cell('first = jobs[0]\n%dispy explain c first')
    assert (
        cells.cell('%dispy explain').startswith('hold: 4 jobs waiting')
        or 'hold: ' in cells.text['stdout']
    )
    assert cells.cell('%dispy cancel c 4 "the third"').strip() == 'hold: 2 jobs cancelled'
    cells.cell('jobs[2].wait(20), jobs[3].wait(20)')
    assert cells.of('[job.status.name for job in jobs[2:]]') == "['CANCELLED', 'CANCELLED']"
    said = cells.cell('%dispy cancel c 4', fails=True)
    assert 'hold has no pending job 4 (pending are 1, 2)' in said
    assert 'give ids of jobs, or --all' in cells.cell('%dispy cancel', fails=True)
    assert '--all, not both' in cells.cell('%dispy cancel 1 --all', fails=True)
    assert cells.cell('%dispy cancel --all').strip() == 'hold: 2 jobs cancelled'
    cells.cell('%dispy wait')
    assert cells.value == 'True'
    assert '0 pending jobs; 4 ended: 0 finished, 0 failed, 4 cancelled' in cells.cell('%dispy jobs')
    assert 'job 1: cancelled' in cells.cell('%dispy explain c first')


@pytest.mark.row('V05')
def test_wait_stats_and_close_are_the_methods(cells: Cells, held: Path) -> None:
    cells.cell('%dispy wait c -t 0.1')
    assert cells.value == 'False'
    cells.cell('%dispy close -t 0')
    assert cells.value == 'False'
    held.touch()
    cells.cell('%dispy wait')
    assert cells.value == 'True'
    assert re.search(
        r'^local-1 \(127.0.0.1\) +\| +1 \|', cells.cell('%dispy stats c'), re.MULTILINE
    )
    cells.cell('%dispy close c --terminate')
    assert cells.value == 'True'
    said = cells.cell('%dispy submit c 1', fails=True)
    assert said.startswith('ClusterClosed: cluster hold is closed')


@pytest.mark.row('V05')
def test_waiting_can_be_interrupted_and_the_jobs_go_on(cells: Cells, held: Path) -> None:
    pid = int(cells.of('os.getpid()'))
    cells.begin('print("now")\n%dispy wait c')
    cells.hear_until(lambda: 'now' in cells.text['stdout'])
    os.kill(pid, signal.SIGINT)
    assert 'KeyboardInterrupt' in cells.end(fails=True)
    held.touch()
    cells.cell('%dispy wait c')
    assert cells.of('[job.result for job in jobs]') == '[0, 1, 2, 3]'


@pytest.mark.row('V04', 'V16')
def test_a_line_that_is_run_again_makes_nothing_twice(cells: Cells) -> None:
    line = f'%dispy cluster c hold {HERE}'
    cells.cell(line)
    cells.cell('first = c')
    cells.cell(line)
    assert cells.of('c is first') == 'True'
    cells.cell(f'{line} --cpus 2')  # what differs takes its place
    assert cells.of('c is first, first.snapshot().closed') == '(False, True)'
    cells.cell("import dispy_nb as dispy\nc = dispy.JobCluster(hold, ip_addr='127.0.0.1', port=0)")
    cells.cell('first = c')
    cells.cell(line)
    assert cells.of('c is first') == 'True'  # the magic says the same in other words
    said = cells.cell('%dispy start -n 2 -c 1')
    assert said.startswith('runs already: local-1 at 127.0.0.1:')
    cells.cell('from dispy_nb import local')
    assert cells.of('len(local.running_nodes())') == '1'


@pytest.mark.row('V05', 'V09', 'V11')
def test_charts_and_plots_are_shown(cells: Cells) -> None:
    cells.cell('def train(n):\n    dispy_provisional_result({"step": 2, "loss": n}); return n')
    cells.cell(f'%dispy cluster c train {HERE}')
    cells.cell('job = c.submit(7); c.wait(20);')
    assert 'charts of cluster train' in cells.cell('%dispy charts')
    for line in ('plot c step loss', 'plot step "loss"', "plot step (lambda r: r['loss'])"):
        cells.displays.clear()
        cells.cell(f'%dispy {line}')
        assert any('the last one at x 2, y 7' in text for text in cells.words())
    assert 'plot takes X and Y, not step' in cells.cell('%dispy plot c step', fails=True)


def test_a_variable_goes_before_the_name_of_a_cluster(cells: Cells) -> None:
    cells.cell(f'%dispy cluster a double --name b {HERE}')
    cells.cell(f'%dispy cluster b double --name a-b {HERE}')
    cells.cell(f'%dispy cluster c double --name plain {HERE}')
    cells.cell('plain = 5')  # no cluster, so that it does not matter
    for word, found in (('a', 'b'), ('b', 'a-b'), ('a-b', 'a-b'), ('plain', 'plain')):
        assert cells.cell(f'%dispy explain {word}').startswith(f'{found}: 0 jobs waiting')
    said = cells.cell('%dispy explain plian', fails=True)
    assert 'there is no cluster plian: did you mean plain? (there are a, b, c, a-b, plain)' in said
    said = cells.cell('%dispy wait', fails=True)
    assert 'say which cluster (there are a, b, c, a-b, plain)' in said


def test_ten_clusters_of_one_name_are_told_apart_by_variables(cells: Cells) -> None:
    for number in range(10):
        cells.cell(f'%dispy cluster c{number} double {HERE}')
    rows = [line for line in cells.cell('%dispy').splitlines() if ' double ' in line]
    assert [line.split()[0] for line in rows] == [f'c{number}' for number in range(10)]
    said = cells.cell('%dispy stats double', fails=True)
    assert (
        '10 clusters are called double: give the variable of the one that is meant (c0, c1' in said
    )
    cells.cell('%dispy map c7 [1, 2]')
    assert cells.value == '[2, 4]'


def test_names_that_look_like_markup_are_text(cells: Cells) -> None:
    cells.cell(f"%dispy cluster c hold --name '<script>x</script>' {HERE}")
    cells.cell('c.submit("/", "<b>").id = "<i>"')
    cells.cell('%dispy jobs')
    (bundle,) = [each for each in cells.displays.values() if 'pending jobs;' in each['text/plain']][
        -1:
    ]
    assert '<script>x</script>' in bundle['text/plain']
    assert '&lt;script&gt;' in bundle['text/html']
    assert '<script>' not in bundle['text/html']


# nodes


@pytest.mark.row('V03')
def test_nodes_are_shown_with_cpus_memory_and_the_reason_why_one_is_not_used(
    cells: Cells, tmp_path: Path
) -> None:
    text = cells.cell('%dispy nodes')  # there is no cluster: it looks itself
    found = re.findall(r'^local-\d +127.0.0.1 +1 +1 +.*GB +.*GB +(.*)$', text, re.MULTILINE)
    assert found == ['answers; no cluster of this program uses it'] * 2
    assert 'looked for nodes at: 127.0.0.1 (port ' in text
    assert 'the local network by broadcast to port 51348' in text
    assert cells.of('closing.open_clusters()') == '[]'

    cells.cell(
        """
        import dispy_nb as dispy
        from dispy_nb import local
        class OnlyFirst(dispy.NodeAllocate):
            def allocate(self, cluster, ip_addr, name, cpus, *more):
                return cpus if name == 'local-1' else 0
        own = [OnlyFirst(*each) for group in local.running_nodes() for each in group.nodes]
        """
    )
    cells.cell(f'%dispy cluster c hold --nodes own {HERE}')
    gate = tmp_path / 'gate'
    cells.cell(f'job = c.submit({str(gate)!r}); nodes = c.wait_for_nodes(1, timeout=20)')
    cells.cell('while job.status == job.Created: time.sleep(0.01)')
    wanted = r'^local-1 +127.0.0.1 +1 +0 .* all cpus busy: 1 of 1 cpu in use$'
    assert re.search(wanted, cells.cell('%dispy nodes'), re.MULTILINE)
    wanted = r'^local-2 +127.0.0.1 +1 +1 .* not used: allocate\(\) returned 0 for it; '
    assert re.search(wanted, cells.cell('%dispy nodes c'), re.MULTILINE)
    cells.cell(f'%dispy cluster d double {HERE}')
    cells.cell('d.wait_for_nodes(2, timeout=20);')
    text = cells.cell('%dispy nodes')
    assert re.search(
        r'^local-2 .* hold: not used: .*; double: 0 of 1 cpu in use$', text, re.MULTILINE
    )
    gate.touch()
    cells.cell('%dispy close c')
    said = cells.cell('%dispy nodes c', fails=True)
    assert said.startswith('ClusterClosed: cluster hold is closed: it has no nodes')


@pytest.mark.row('V02')
def test_servers_started_later_are_added_and_open_clusters_use_them(cells: Cells) -> None:
    cells.cell(f'%dispy cluster c double {HERE}')
    cells.cell(f'%dispy cluster other double --nodes 127.0.0.9 {HERE}')
    assert cells.cell('%dispy start').startswith('started local-3 at 127.0.0.1:')
    cells.cell('names = sorted(node.name for node in c.wait_for_nodes(3, timeout=20))')
    assert cells.of('names') == "['local-1', 'local-2', 'local-3']"
    assert cells.of('len(other._shell.nodes)') == '0'
    cells.cell('c.close(); other.close(); local.running_nodes()[-1].close()')


@pytest.mark.row('V02')
def test_servers_end_with_stop_and_with_the_kernel() -> None:
    with running_kernel() as kernel:
        cells = Cells(kernel)
        cells.cell('%load_ext dispy_nb\nfrom dispy_nb import local')
        assert 'no node server was started here' in cells.cell('%dispy stop')
        cells.cell('%dispy start -n 2')
        stopped = json.loads(cells.of('local.running_nodes()[0].pids'))
        assert cells.cell('%dispy stop').strip() == 'ended local-1, local-2'
        assert not any(map(is_alive, stopped))
        cells.cell('%dispy start')
        left = json.loads(cells.of('local.running_nodes()[0].pids'))
        assert all(map(is_alive, left))
    deadline = time.monotonic() + 20
    while any(map(is_alive, left)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return ') Z ' not in Path(f'/proc/{pid}/stat').read_text()
    except FileNotFoundError:
        return False


# keys


@pytest.mark.row('V05')
def test_the_key_is_shown_only_where_export_is_asked_for(cells: Cells, own_home: Path) -> None:
    path = cells.cell('%dispy key path').strip()
    key = Path(path).read_text()
    shown = cells.cell('%dispy key show')
    assert path in shown
    assert 'fingerprint: ' in shown
    line = cells.cell('%dispy key export').strip()
    assert line.startswith('dispy key import dnk1-')
    text = line.split()[-1]
    assert text not in shown
    said = cells.cell(f'%dispy key import {line}')
    assert 'fingerprint: ' in said
    assert 'the key stands in this cell' in said
    assert text not in said
    assert Path(path).read_text() == key
    said = cells.cell('%dispy key import nonsense', fails=True)
    assert said.startswith(('UsageError', 'KeyFileError'))


# completion


@pytest.mark.row('V01')
@pytest.mark.parametrize(
    ('line', 'offered'),
    [
        ('%dispy ', SUBCOMMANDS),
        ('%dispy st', ('start', 'stop', 'stats')),
        ('%dispy submit ', ('c', 'my-run')),
        ('%dispy close c --', ('--timeout', '--terminate', '--help')),
        ('%dispy cluster d dou', ('double',)),
        ('%dispy cluster d double --isol', ('--isolation',)),
        ('%dispy cluster d double --isolation ', ('job', 'worker')),
        ('%dispy cluster d double --isolation=w', ('worker',)),
        ('%dispy cluster d double --setup hol', ('hold',)),
        ('%dispy cluster d double --reentrant ', ('True', 'False')),
        ('%dispy key e', ('export',)),
        ('%dispy cancel c ', ('41', '42')),
        ('%%dispy --over x=[1] --no', ('--nodes', '--noblock', '--node-port')),
    ],
)
def test_subcommands_clusters_options_and_functions_are_completed(
    cells: Cells, line: str, offered: tuple[str, ...]
) -> None:
    cells.cell(f'%dispy cluster c hold --name my-run {HERE}')
    cells.cell('c.submit("/nowhere").id = 41; c.submit("/nowhere").id = 42')
    assert set(cells.complete(line)) == set(offered)


def test_other_words_are_left_to_python(cells: Cells) -> None:
    cells.cell('dispy = 5')
    assert 'start' not in cells.complete('dispy st')
    assert 'FUNCTIONS_OF_MINE' not in cells.complete('%dispy nothing ')
    cells.cell('a_long_name = 1')
    assert 'a_long_name' in cells.complete('%dispy submit c a_lo')
