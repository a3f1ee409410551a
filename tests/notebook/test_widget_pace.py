"""Whatever a run is like, its display sends little: five messages and 100 kB a second at most."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import comm
import pytest
from comm.base_comm import BaseComm

from dispy_nb.notebook.widget import displays
from dispy_nb.snapshot import JobSnapshot, NodeSnapshot, Snapshot
from tests.notebook.kernel import WIDGET, Kernel, running_kernel
from tests.notebook.widget import Ledger, Shown

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.usefixtures('loop_of_the_jupyter_client'),
]

MOST_MESSAGES = 5
MOST_BYTES = 100_000

START = """
    import dispy_nb as dispy

    def work(n, fails, bytes=0):
        import sys, time
        end = time.monotonic() + 20
        while bytes > 0 and time.monotonic() < end:
            sys.stdout.write('x' * 99 + '\\n')
            bytes -= 100
            if bytes % 50_000 == 0:
                sys.stdout.flush()
                time.sleep(0.05)
        if fails:
            raise ValueError(f'job {n} ' + 'with a long text ' * 100)
        return n

    nodes = dispy.LocalNodes(2, cpus=1)
    options = {'nodes': nodes.nodes, 'ip_addr': '127.0.0.1', 'port': 0, 'isolation': 'worker'}
    cluster = dispy.JobCluster(work, **options)
    cluster.wait_for_nodes(2)
"""


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with running_kernel() as kernel:
        kernel.run(START)
        yield kernel
        kernel.run('cluster.close(timeout=0, terminate=True); nodes.close()')


@pytest.mark.slow
@pytest.mark.row('V12')
@pytest.mark.parametrize(('count', 'fails'), [(10_000, True), (20_000, False)])
def test_many_short_jobs_send_few_messages(kernel: Kernel, count: int, fails: bool):
    ledger = Ledger(kernel)
    kernel.run('display(cluster); display(cluster)')
    ledger.rows.clear()  # the widget itself, once
    kernel.run(f"""
        for n in range({count}):
            cluster.submit(n, {fails})
        cluster.wait()
    """)
    kernel.hear_until(lambda: all(WIDGET not in each for each in kernel.displays.values()))
    messages, size = ledger.most()
    # at the end the picture goes to both cells as well
    assert messages <= MOST_MESSAGES + 2
    assert size <= MOST_BYTES
    assert sum(size for _, size in ledger.rows) < 1_000_000
    word = 'failed' if fails else 'finished'
    assert all(f'{count} {word}' in each['text/plain'] for each in kernel.displays.values())


@pytest.mark.slow
@pytest.mark.row('V12', 'V18')
def test_a_job_that_prints_a_megabyte_a_second_is_watched_by_its_last_lines(kernel: Kernel):
    kernel.run('job = cluster.submit(0, False, bytes=4_000_000)\ncluster')
    ledger, widget = Ledger(kernel), Shown(kernel)
    kernel.hear_until(lambda: widget.figures['running'] == 1 and widget.jobs['rows'])
    widget.wish('watch', job=widget.jobs['rows'][0]['number'])
    kernel.hear_until(lambda: widget.output.get('stdout'))
    kernel.hear_until(lambda: widget.output['status'] == 'finished')
    assert len(widget.output['stdout']) <= 8192
    messages, size = ledger.most()
    assert messages <= MOST_MESSAGES + 2  # an answer to the wish, and the picture
    assert size <= MOST_BYTES


class Collector:
    """What would be sent of widgets and displays, where there is no kernel: when, and its size."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rows: list[tuple[float, int]] = []

    def publish(self, data: Any, **transient: Any) -> None:
        self.rows.append((self.now, len(str(data))))


def test_three_hundred_busy_nodes_are_shown_at_the_pace(monkeypatch: pytest.MonkeyPatch):
    sent = Collector()

    class Comm(BaseComm):
        def publish_msg(self, msg_type: str, data: Any = None, **more: Any) -> None:
            if msg_type == 'comm_msg':
                sent.publish(data)

    monkeypatch.setattr(comm, 'create_comm', Comm)

    class Busy:
        name = 'busy'

        def snapshot(self, jobs: int = 0) -> Snapshot:
            return snapshot_at(sent.now)

        def _watch_nodes(self) -> None:
            pass

    class Shell:
        display_pub = sent

    display = displays.ClusterDisplay(Busy())
    display._budget.clock = lambda: sent.now
    display.show_in(Shell())
    sent.rows.clear()
    while sent.now < 20:
        sent.now += 0.2
        display.refresh(sent.now)
    for begin, _ in sent.rows:
        window = [size for at, size in sent.rows if begin <= at < begin + 0.99]
        assert len(window) <= MOST_MESSAGES
        assert sum(window) <= MOST_BYTES
    assert len(sent.rows) >= 20  # and yet it moves
    assert display._widget.figures['finished'] > 1900
    assert all(row['id'] for row in display._widget.jobs['rows'])
    assert display._widget.jobs['rows'][0]['number'] > 1900


def snapshot_at(now: float) -> Snapshot:
    """Make a snapshot in which everything changes all the time."""
    done = int(100 * now)
    node = NodeSnapshot('', '10.0.0.1', 64, 64, done, 30.0, False, '', 64, 50.0, 10**9, 10**10)
    job = JobSnapshot(0, 'a job with a name', 'running', 'n001', 3.0, 'arguments ' * 8)
    return Snapshot(
        *('busy', 10_000, 9_000 - done, 1000, done, 0, 0, 0, None),
        *(now, 100.0),
        tuple(
            replace(node, name=f'n{n:03}', id=f'{n}', jobs_done=done + n * done) for n in range(300)
        ),
        *((), '', False, (10.0, 100.0)),
        tuple(replace(job, number=done + n) for n in range(50)),
    )
