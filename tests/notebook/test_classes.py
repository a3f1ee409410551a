"""Classes of cells travel to jobs and back."""

import pytest

from tests.notebook.kernel import running_kernel

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.usefixtures('loop_of_the_jupyter_client'),
]

CLASSES = """
    import dispy_nb as dispy

    class Point:
        def __init__(self, x):
            self.x = x

        def moved(self):
            return Point(self.x + step)
"""
JOBS = """
    step = 1

    def setup():
        global step
        step = 10
        return 0

    def move(point):
        assert isinstance(point, Point)
        return point.moved()

    nodes = dispy.LocalNodes(1, cpus=1)
    options = {'nodes': nodes.nodes, 'ip_addr': '127.0.0.1', 'port': 0}
    with dispy.JobCluster(move, depends=[Point], setup=setup, **options) as cluster:
        found = [cluster.submit(Point(number))() for number in range(3)]
    nodes.close()
    print([isinstance(point, Point) and (point.x, point.moved().x) for point in found])
"""


@pytest.mark.row('F09')
def test_a_class_of_a_cell_is_the_same_in_jobs_and_back() -> None:
    with running_kernel() as kernel:
        kernel.run(CLASSES)
        kernel.run(JOBS)
        assert kernel.text['stdout'] == '[(10, 11), (11, 12), (12, 13)]\n'
