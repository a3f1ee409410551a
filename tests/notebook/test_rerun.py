"""A set-up cell that is run again makes nothing twice, and closes what it replaces (V16)."""

from collections.abc import Iterator
from textwrap import dedent

import pytest

from tests.notebook.kernel import Kernel, running_kernel

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.row('V16'),
    pytest.mark.usefixtures('loop_of_the_jupyter_client'),
]

IMPORT = """
    import os
    import dispy_nb as dispy
    from dispy_nb import closing

    seen = []
    options = {'ip_addr': '127.0.0.1', 'port': 0}
"""
NODES = 'nodes = dispy.LocalNodes(1, cpus=1)'
SET_UP = """
    def wait_for(path, times=1):
        import pathlib, time
        while not pathlib.Path(path).exists():
            time.sleep(0.02)
        return times

    def note(job):
        seen.append(job.id)

    nodes = dispy.LocalNodes(1, cpus=1)
    cluster = dispy.JobCluster(wait_for, nodes=nodes.nodes, callback=note, **options)
"""
END = """
    for open_one in list(closing._kept.values()):
        open_one.close(timeout=0, terminate=True)
    nodes.close()
"""


@pytest.fixture(scope='module')
def started(loop_of_the_jupyter_client: None, shared_home: object) -> Iterator[Kernel]:
    with running_kernel() as kernel:
        kernel.run(IMPORT)
        kernel.run(NODES)
        yield kernel
        kernel.run(END)


@pytest.fixture
def kernel(started: Kernel) -> Iterator[Kernel]:
    started.text['stdout'] = started.text['stderr'] = ''
    yield started
    started.run(END.replace('nodes.close()', ''))
    started.run('seen.clear()')


def answer(kernel: Kernel, expression: str) -> str:
    kernel.text['stdout'] = ''
    kernel.run(f'print({expression})')
    return kernel.text['stdout'].strip()


def test_the_same_arguments_give_the_same_cluster_and_nodes_with_their_jobs(kernel: Kernel):
    kernel.run(SET_UP)
    kernel.run('first, first_nodes, job = cluster, nodes, cluster.submit(os.devnull + "x")')
    kernel.run(SET_UP)
    assert answer(kernel, 'cluster is first, nodes is first_nodes') == 'True True'
    assert answer(kernel, 'len(closing._kept), len(cluster._shell.jobs)') == '1 1'
    kernel.run('cluster.submit(os.devnull, 3)')
    kernel.run('cluster.cancel(job); cluster.wait()')
    assert answer(kernel, 'sorted(seen)') == '[1, 2]'  # the callback as it is now
    assert kernel.text['stderr'] == ''


def test_other_arguments_give_another_cluster_and_close_the_first(kernel: Kernel):
    kernel.run(SET_UP)
    kernel.run('first, first_nodes, job = cluster, nodes, cluster.submit(os.devnull + "x")')
    kernel.run(SET_UP.replace('**options)', 'reentrant=True, **options)'))
    assert answer(kernel, 'cluster is first, nodes is first_nodes') == 'False True'
    assert answer(kernel, 'len(closing._kept), job.status.name') == '1 CANCELLED'
    assert kernel.text['stderr'] == (
        'cluster wait_for is made anew, since this changed: reentrant; '
        '1 pending job was cancelled\n'
    )


def test_another_function_of_that_name_is_another_argument(kernel: Kernel):
    kernel.run(SET_UP)
    kernel.run('first = cluster')
    kernel.run(SET_UP.replace('return times', 'return 2 * times'))
    kernel.run('job = cluster.submit(os.devnull, 4)')
    assert answer(kernel, 'cluster is first, first._is_closed, job()') == 'False True 8'
    assert kernel.text['stderr'] == ''  # nothing was lost, and nothing is to be said


def test_what_the_function_refers_to_is_part_of_it(kernel: Kernel):
    set_up = SET_UP.replace('return times', 'return times * factor')
    kernel.run('factor = 10')
    kernel.run(set_up)
    kernel.run('first, factor = cluster, 100')
    kernel.run(set_up)
    kernel.run('job = cluster.submit(os.devnull, 4)')
    assert answer(kernel, 'cluster is first, job()') == 'False 400'


CLASSES = """
    import abc, dataclasses, enum

    class Base(abc.ABC):
        @abc.abstractmethod
        def moved(self): ...

    class Colour(enum.Enum):
        RED = 1

    @dataclasses.dataclass
    class Point(Base):
        x: int
        colour: Colour = Colour.RED

        def moved(self):
            super().moved()
            return Point(self.x + 1, Colour.RED)

    def move(point):
        assert isinstance(point, Point) and point.colour is Colour.RED
        return point.moved()

    mover = dispy.JobCluster(move, nodes=nodes.nodes, **options)
"""


def test_classes_that_are_defined_anew_make_no_difference(kernel: Kernel):
    kernel.run(SET_UP)
    kernel.run(CLASSES)
    kernel.run('first, first_point, job = mover, Point, mover.submit(Point(1))')
    for _ in range(2):
        kernel.run('"""on another line"""\n' + dedent(CLASSES))
        assert answer(kernel, 'mover is first, Point is first_point') == 'True False'
        kernel.run('found = mover.submit(Point(2))()')
        assert answer(kernel, 'isinstance(found, Point), found == Point(3)') == 'True True'
        assert answer(kernel, 'job().x') == '2'
    kernel.run(CLASSES.replace('self.x + 1', 'self.x + 10'))
    assert answer(kernel, 'mover is first, mover.submit(Point(2))()') == (
        'False Point(x=12, colour=<Colour.RED: 1>)'
    )
    assert kernel.text['stderr'] == ''


def test_clusters_of_one_cell_are_several_and_each_meets_its_own_again(kernel: Kernel):
    kernel.run(SET_UP)
    cell = 'several = [dispy.JobCluster(wait_for, nodes=nodes.nodes, **options) for _ in range(10)]'
    kernel.run(cell)
    assert answer(kernel, 'len(set(several)), len(closing._kept)') == '10 11'
    kernel.run('first = several')
    kernel.run(cell)
    assert answer(kernel, '[a is b for a, b in zip(first, several)].count(True)') == '10'
    assert answer(kernel, 'len(closing._kept)') == '11'


def test_other_variables_hold_clusters_of_their_own(kernel: Kernel):
    kernel.run(SET_UP)
    kernel.run('other = dispy.JobCluster(wait_for, nodes=nodes.nodes, **options)')
    assert answer(kernel, 'other is cluster, cluster._is_closed') == 'False False'


@pytest.mark.parametrize(
    'block',
    ['%%time\n{}', '%%capture\n{}', '%time {}', 'if True:\n    {}', 'try:\n    {}\nfinally: pass'],
)
def test_magics_and_blocks_around_a_statement_make_no_difference(kernel: Kernel, block: str):
    kernel.run(SET_UP)
    statement = 'cluster = dispy.JobCluster(wait_for, nodes=nodes.nodes, callback=note, **options)'
    kernel.run('first = cluster')
    kernel.run(block.format(statement))
    assert answer(kernel, 'cluster is first') == 'True'
    kernel.run(block.format(statement.replace('callback=note', 'reentrant=True')))
    assert answer(kernel, 'cluster is first, len(closing._kept)') == 'False 1'


def test_another_index_is_another_place(kernel: Kernel):
    kernel.run(SET_UP)
    kernel.run('options_of = {"a": {**options, "cleanup": False}, "b": options}')
    cell = 'runs[name] = dispy.JobCluster(wait_for, nodes=nodes.nodes, **options_of[name])'
    kernel.run('runs, name = {}, "a"')
    kernel.run(cell)
    kernel.run('job, name = runs["a"].submit(os.devnull + "x"), "b"')
    kernel.run(cell)
    assert answer(kernel, 'runs["a"]._is_closed, runs["a"] is runs["b"]') == 'False False'
    assert answer(kernel, 'job.status.name in ("CREATED", "RUNNING")') == 'True'
    kernel.run('first, name = dict(runs), "a"')
    kernel.run(cell)
    assert answer(kernel, 'runs == first, len(closing._kept)') == 'True 3'


def test_a_closed_cluster_is_not_used_again(kernel: Kernel):
    kernel.run(SET_UP)
    kernel.run('first = cluster; cluster.close()')
    kernel.run(SET_UP)
    kernel.run('job = cluster.submit(os.devnull, 5)')
    assert answer(kernel, 'cluster is first, job()') == 'False 5'


def test_subclasses_of_users_are_theirs(kernel: Kernel):
    kernel.run(SET_UP)
    kernel.run("""
        class Own(dispy.JobCluster):
            def __init__(self, function):
                super().__init__(function, nodes=nodes.nodes, **options)
                self.mark = 'made'
    """)
    for _ in range(2):
        kernel.run('own = Own(wait_for)')
    assert answer(kernel, 'own.mark, own.submit(os.devnull)()') == 'made 1'


@pytest.mark.leaves('processes')  # servers that end with the kernel of all tests here
def test_servers_that_ended_are_started_anew(kernel: Kernel):
    kernel.run("""
        import signal
        for pid in nodes.pids:
            os.kill(pid, signal.SIGKILL)
            while nodes._is_alive():
                pass
        first_nodes = nodes
    """)
    kernel.run(SET_UP)
    kernel.run('job = cluster.submit(os.devnull, 6)')
    assert answer(kernel, 'nodes is first_nodes, nodes._is_alive(), job()') == 'False True 6'
