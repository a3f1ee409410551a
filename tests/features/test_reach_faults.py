"""Links that are cut, slow or forgotten, and machines that move: nothing is lost or done twice."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.machines import Machine, machines
from tests.support.netns import Lan, TwoLans
from tests.support.programs import Program, eventually

pytestmark = [pytest.mark.netns(nat=True), pytest.mark.slow]

LIMIT = 30.0
NOTICE_LIMIT = 10.0  # two pulses
HEAL_LIMIT = 2.0
BROKEN = 'broke; it is being made anew'

WORK = """
import pathlib, sys, time
import dispy_nb as dispy

def compute(number, seconds, done, size):
    import time
    time.sleep(seconds)
    with open(done, 'a') as file:
        print(number, file=file)
    return number, bytes(size)

nodes, place = {nodes!r}, pathlib.Path({place!r})
with dispy.JobCluster(compute, nodes, progress=False, loglevel=dispy.logger.INFO) as cluster:
    number = 0
    while not (place / 'stop').exists():
        job = cluster.submit(number, {seconds}, str(place / 'done'), {size})
        print(job()[0] if job.wait(60) else cluster.explain(), time.monotonic(), flush=True)
        number += 1
"""


class Work:
    """A program whose jobs follow each other, one at a time."""

    def __init__(self, program: Program, place: Path) -> None:
        self.program, self._place = program, place

    def results(self) -> list[tuple[str, float]]:
        """The results so far, and when they came."""
        lines = self.program.output().split('\n')[:-1]
        return [(line.split()[0], float(line.split()[1])) for line in lines]

    def goes_on(self, limit: float = LIMIT) -> float:
        """Wait for the next result; how long it took."""
        began, before = time.monotonic(), len(self.results())
        eventually(lambda: len(self.results()) > before, limit, self.program.log)
        return self.results()[before][1] - began

    def says(self, words: str, limit: float = NOTICE_LIMIT) -> None:
        """Wait until the program has said something."""
        eventually(lambda: words in self.program.log(), limit, self.program.log)

    def ends_well(self) -> None:
        """Stop it: each job has one result, and was run once."""
        (self._place / 'stop').touch()
        assert self.program.wait(LIMIT) == 0, self.program.log()
        numbers = [number for number, _ in self.results()]
        assert numbers == [str(number) for number in range(len(numbers))]
        assert (self._place / 'done').read_text().split() == numbers
        assert 'lost' not in self.program.log()


@contextmanager
def small_lan() -> Iterator[tuple[Machine, Machine, Program]]:
    """Two machines on one network, and the node that runs on the second one."""
    with Lan(2) as lan, machines(*lan) as (client, node), node.node('-c', 1) as running:
        yield client, node, running


@contextmanager
def work(client: Machine, nodes: list[Any], seconds: float = 0.1, size: int = 0) -> Iterator[Work]:
    """Run such a program, from its first result on."""
    script, place = client.home / 'work.py', client.home / 'work'
    place.mkdir()
    given = {'nodes': nodes, 'place': str(place), 'seconds': seconds, 'size': size}
    script.write_text(WORK.format(**given))
    with client.program(sys.executable, script) as program:
        working = Work(program, place)
        working.goes_on()
        yield working


def test_a_cut_link_is_noticed_within_two_pulses_and_work_goes_on_within_two_seconds() -> None:
    with small_lan() as (client, node, _), work(client, [node.ip]) as working:
        node.host.cut()
        time.sleep(2.0)  # as long as the fault is to last: too short for it to be noticed
        node.host.heal()
        assert working.goes_on() < HEAL_LIMIT
        node.host.cut()
        working.says(BROKEN)
        time.sleep(1.0)
        node.host.heal()
        assert working.goes_on() < HEAL_LIMIT
        working.ends_well()


def test_a_link_that_is_slow_but_alive_is_not_cut() -> None:
    with small_lan() as (client, node, _), work(client, [node.ip], size=5_000_000) as working:
        node.host.shape(rate=1_000_000)  # bytes a second
        assert working.goes_on() > 4  # seconds: as slow as it is meant to be
        node.host.shape()
        working.ends_well()
        assert BROKEN not in working.program.log()


def test_a_gateway_that_forgets_or_is_restarted_costs_nothing() -> None:
    """The gateway is a host with the kernel's own address translation."""
    with (
        TwoLans(1, 1, nat=True) as net,
        machines(*net.left, *net.right) as (client, node),
        node.node('-c', 1),
        work(client, [node.ip], seconds=2.5) as working,
    ):
        net.forget_connections()  # after a second without traffic, while the job runs
        working.says(BROKEN)
        working.goes_on()
        net.forget_connections(established=600)
        net.router.cut()
        time.sleep(4.0)  # as long as it takes to start anew
        net.router.heal()
        working.goes_on()
        working.ends_well()


def test_a_node_and_then_its_client_go_on_at_other_addresses() -> None:
    with small_lan() as (client, node, _), work(client, ['*'], seconds=0.5) as working:
        node.host.move('10.77.1.61')
        assert working.goes_on() < NOTICE_LIMIT
        client.host.move('10.77.1.62')
        assert working.goes_on() < NOTICE_LIMIT
        working.ends_well()


def test_programs_that_hang_for_a_while_go_on_where_they_were() -> None:
    with small_lan() as (client, node, running), work(client, [node.ip], seconds=0.5) as working:
        for program in (running, working.program):
            first = psutil.Process(program.pid)
            tree = [first, *first.children(recursive=True)]
            for process in tree:
                process.send_signal(signal.SIGSTOP)
            time.sleep(4.0)  # as long as the fault is to last
            for process in tree:
                process.send_signal(signal.SIGCONT)
            working.goes_on()
        working.ends_well()
