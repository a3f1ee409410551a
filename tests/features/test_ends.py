"""Programs and threads that end, fork or are interrupted in unlucky moments: nothing hangs."""

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dispy_nb as dispy
from dispy_nb import closing
from tests.support.programs import client_program, eventually

START = """
import os, signal, sys, threading, time
import dispy_nb as dispy

def nap(seconds):
    time.sleep(seconds)
    return seconds
"""


def same(value: int) -> int:
    return value


@pytest.fixture
def make_nodes() -> Iterator[dispy.LocalNodes]:
    """One node with one cpu."""
    with dispy.LocalNodes(1, cpus=1) as local:
        yield local


@pytest.mark.slow
@pytest.mark.parametrize(
    ('end', 'printed'),
    [
        ('pass', '6 done\n'),
        ('raise ValueError("the block fails")', ''),
        ('sys.exit(3)', ''),
    ],
)
def test_a_cluster_ends_with_the_only_nodes_it_has(end: str, printed: str) -> None:
    began = time.monotonic()
    done = client_program(
        START
        + f"""
import atexit
jobs = []
try:
    with dispy.LocalNodes(1, cpus=1) as local:
        cluster = dispy.JobCluster(nap, nodes=local.nodes, ip_addr='127.0.0.1')
        jobs += [cluster.submit(0.2) for _ in range(6)]
        {end}
    print(sum(job.status == dispy.DispyJob.Finished for job in jobs), 'done')
finally:
    assert all(job.wait(0) for job in jobs)
""",
        check=False,
    )
    assert done.stdout == printed
    assert 'AssertionError' not in done.stderr
    assert time.monotonic() - began < 15


@pytest.mark.leaves('files')  # of the killed nodes: the next ones sweep them up
def test_a_cluster_whose_local_nodes_were_killed_keeps_nobody_waiting() -> None:
    done = client_program(
        START
        + """
import signal
with dispy.LocalNodes(1, cpus=1) as local:
    cluster = dispy.JobCluster(nap, nodes=local.nodes, ip_addr='127.0.0.1', loglevel=50)
    jobs = [cluster.submit(0.1) for _ in range(3)]
    jobs[0]()
    for pid in local.pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
print('over')
"""
    )
    assert done.stdout == 'over\n'


@pytest.mark.parametrize('end', ['', 'pool.shutdown(wait=False)', 'local.close()'])
def test_calls_that_wait_in_an_executor_are_run_before_the_end(tmp_path: Path, end: str) -> None:
    path = tmp_path / 'done'
    done = client_program(
        START
        + f"""
def note(number):
    time.sleep(0.02)
    with open({str(path)!r}, 'a') as file:
        file.write(f'{{number}} ')

local = dispy.LocalNodes(1, cpus=1)
pool = dispy.Executor(max_workers=1, nodes=local.nodes, ip_addr='127.0.0.1')
for number in range(5):
    pool.submit(note, number).add_done_callback(lambda future: future.result())
{end}
"""
    )
    assert path.read_text() == '0 1 2 3 4 '
    assert done.stderr == ''


# In programs of their own: other libraries' gc callbacks and destructors swallow an interrupt that
# comes in them.
INTERRUPT = """
import contextlib, signal, threading

@contextlib.contextmanager
def interrupt_after(seconds):
    main = threading.main_thread().ident
    timer = threading.Timer(seconds, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
"""


@pytest.mark.slow
def test_an_interrupt_while_submitting_loses_no_job() -> None:
    done = client_program(
        START
        + INTERRUPT
        + """
def same(value):
    return value

with dispy.LocalNodes(1, cpus=1) as local:
    with dispy.JobCluster(
        same, nodes=local.nodes, ip_addr='127.0.0.1', isolation='worker'
    ) as cluster:
        jobs, interrupts = [], 0
        for number in range(40):
            try:
                with interrupt_after(0.001 + 0.0003 * number):
                    end = time.monotonic() + 2  # an interrupt can be swallowed: not for ever
                    while time.monotonic() < end:
                        jobs.append(cluster.submit(len(jobs)))
            except KeyboardInterrupt:
                interrupts += 1
        assert interrupts > 30, interrupts
        print(cluster.wait(30), all(job.result is not None for job in jobs))
"""
    )
    assert done.stdout == 'True True\n'


@pytest.mark.slow
def test_an_interrupt_while_closing_leaves_no_thread_behind() -> None:
    done = client_program(
        START
        + INTERRUPT
        + """
with dispy.LocalNodes(1, cpus=1) as local:
    cluster = dispy.JobCluster(nap, nodes=local.nodes, ip_addr='127.0.0.1')
    cluster.submit(0)()
    os.kill(local.pids[0], signal.SIGSTOP)  # its confirmation does not come
    try:
        with interrupt_after(0.5):
            cluster.close()
    except KeyboardInterrupt:
        print('interrupted')
    finally:
        os.kill(local.pids[0], signal.SIGCONT)
    print(cluster.close(), 'dispy-loop' in {thread.name for thread in threading.enumerate()})
"""
    )
    assert done.stdout == 'interrupted\nTrue False\n'


@pytest.mark.parametrize('moment', ['before', 'after'])
def test_an_interrupt_while_a_cluster_is_marked_closed_releases_it(
    make_nodes: dispy.LocalNodes, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The nodes give it up as well, also when the order to do so had not been given."""
    """The nodes give it up as well, also when the order to do so had not been given."""
    cluster = dispy.JobCluster(same, nodes=make_nodes.nodes, ip_addr='127.0.0.1')
    cluster.submit(0)()
    post = cluster._runtime.post

    def interrupted(seat: Any, event: Any) -> None:
        if moment == 'after':
            post(seat, event)
        raise KeyboardInterrupt

    with dispy.JobCluster(same, nodes=make_nodes.nodes, ip_addr='127.0.0.1') as other:
        with monkeypatch.context() as patched:
            patched.setattr(cluster._runtime, 'post', interrupted)
            with pytest.raises(KeyboardInterrupt):
                cluster.close()
        assert cluster.close()
        assert list(closing._kept.values()) == [other]
        fleet = cluster._runtime._service._core._fleet
        eventually(lambda: list(fleet.computations) == [other._computation])
    assert not cluster._runtime._thread.is_alive()


@pytest.mark.slow
@pytest.mark.parametrize('wait', ['job.wait()', 'next(cluster.as_completed([job]))'])
def test_an_interrupt_just_before_a_wait_ends_it(wait: str) -> None:
    """It comes again and again in the moment in which Python does not see it before the wait."""
    done = client_program(
        START
        + f"""
def interrupt():
    while not begins:
        pass
    os.kill(os.getpid(), signal.SIGINT)

with dispy.LocalNodes(1, cpus=1) as local:
    with dispy.JobCluster(nap, nodes=local.nodes, ip_addr='127.0.0.1') as cluster:
        job = cluster.submit(60)
        for _ in range(2000):
            begins = False
            thread = threading.Thread(target=interrupt)
            thread.start()
            began = time.monotonic()
            try:
                begins = True
                {wait}
            except KeyboardInterrupt:
                pass
            thread.join()
            if time.monotonic() > began + 0.4:
                break
        print('interrupted')
        cluster.cancel(job)
"""
    )
    assert done.stdout == 'interrupted\n'


def test_an_awaiter_that_is_gone_costs_no_other_job_its_end(make_nodes: dispy.LocalNodes) -> None:
    def pause(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    async def impatient(job: dispy.DispyJob) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(_result_of(job)), 0.05)

    async def _result_of(job: dispy.DispyJob) -> float:
        return float(await job)

    with dispy.JobCluster(pause, nodes=make_nodes.nodes, ip_addr='127.0.0.1') as cluster:
        jobs = [cluster.submit(0.3), cluster.submit(0.0)]
        asyncio.run(impatient(jobs[0]))
        assert cluster.wait(10)
        assert [job.result for job in jobs] == [0.3, 0.0]


def test_a_cluster_can_be_awaited(make_nodes: dispy.LocalNodes) -> None:
    async def run() -> list[int]:
        with dispy.JobCluster(same, nodes=make_nodes.nodes, ip_addr='127.0.0.1') as cluster:
            jobs = [cluster.submit(number) for number in range(5)]
            assert await cluster
            return [job.result for job in jobs]

    assert asyncio.run(run()) == [0, 1, 2, 3, 4]


def test_a_callback_that_exits_stops_nothing(
    make_nodes: dispy.LocalNodes, caplog: pytest.LogCaptureFixture
) -> None:
    called = []

    def leave(job: dispy.DispyJob) -> None:
        called.append(job.id)
        sys.exit(1)

    with dispy.JobCluster(
        same, nodes=make_nodes.nodes, ip_addr='127.0.0.1', callback=leave
    ) as cluster:
        for number in range(3):
            cluster.submit(number)
        assert cluster.wait(10)
    assert sorted(called) == [1, 2, 3]
    assert 'SystemExit' in caplog.text


def test_polling_a_job_leaves_no_waiters_behind(make_nodes: dispy.LocalNodes) -> None:
    with dispy.JobCluster(time.sleep, nodes=make_nodes.nodes, ip_addr='127.0.0.1') as cluster:
        job = cluster.submit(0.2)
        while not job.wait(0.001):
            assert len(job._waiters) == 0
        assert job.status == dispy.DispyJob.Finished


@pytest.mark.parametrize('timeout', ['3', True, float('nan')])
def test_a_timeout_that_is_no_number_is_refused_by_name(
    make_nodes: dispy.LocalNodes, timeout: object
) -> None:
    with dispy.JobCluster(same, nodes=make_nodes.nodes, ip_addr='127.0.0.1') as cluster:
        job = cluster.submit(1)
        for wait in (job.wait, cluster.wait, cluster.close):
            with pytest.raises(dispy.UsageError, match='timeout must be a number of seconds'):
                wait(timeout)
        assert job.wait(1e12)


@pytest.mark.slow
def test_a_fork_of_the_program_is_told_to_make_a_cluster_of_its_own(tmp_path: Path) -> None:
    done = client_program(
        START
        + """
import multiprocessing

def cancel():
    cluster.cancel(job)

def child(results):
    for call in (lambda: cluster.submit(0), cluster.wait, lambda: job.wait(1), cancel):
        try:
            call()
        except dispy.ClusterClosed as error:
            results.put(str(error).partition(' belongs ')[1])
    with dispy.JobCluster(nap, nodes=local.nodes, ip_addr='127.0.0.1', node_port=1) as own:
        results.put(own.submit(0.01).wait(0))

if __name__ == '__main__':
    context = multiprocessing.get_context('fork')
    with dispy.LocalNodes(1, cpus=1) as local:
        cluster = dispy.JobCluster(nap, nodes=local.nodes, ip_addr='127.0.0.1')
        job = cluster.submit(2.0)
        results = context.Queue()
        process = context.Process(target=child, args=(results,))
        process.start()
        print([results.get(timeout=10) for _ in range(5)])
        cluster.close()
        process.join()
"""
    )
    assert done.stdout == "[' belongs ', ' belongs ', ' belongs ', ' belongs ', False]\n"


def test_a_fork_that_leaves_the_block_ends_no_node_of_its_parent() -> None:
    done = client_program(
        START
        + """
with dispy.LocalNodes(1, cpus=1) as local:
    with dispy.JobCluster(nap, nodes=local.nodes, ip_addr='127.0.0.1') as cluster:
        cluster.submit(0)()
        pid = os.fork()
        if pid == 0:
            sys.exit(0)
        os.waitpid(pid, 0)
        print(cluster.submit(0.01)())
"""
    )
    assert done.stdout == '0.01\n'
