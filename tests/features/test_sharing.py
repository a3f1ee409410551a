"""Who gets the nodes of a shared scheduler: equal parts, exclusive clusters, a limit for each."""

import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.programs import (
    Program,
    eventually,
    free_port,
    node_program,
    program,
    scheduler_program,
)

pytestmark = pytest.mark.slow

CPUS = 2
CLIENT = """
    import time
    from pathlib import Path
    import dispy_nb as dispy

    def load():
        global loaded
        loaded = 'in memory'
        return 0

    def unload():
        global loaded
        del loaded
        open({log!r} + '.unloaded', 'a').write({label!r} + ' ')

    def work(log, label, seconds):
        import os, time
        began = time.time()
        time.sleep(seconds)
        with open(log, 'a') as file:
            file.write(f'{{label}} {{began}} {{time.time()}} {{loaded}}\\n')

    cluster = dispy.SharedJobCluster(work, ['127.0.0.2'], node_port={port}, port=0,
                                     scheduler_port={scheduler}, ip_addr='127.0.0.1', setup=load,
                                     cleanup=unload, exclusive={exclusive}, name={label!r})
    jobs = [cluster.submit({log!r}, {label!r}, {seconds}) for _ in range({jobs})]
    print('submitted', flush=True)
    while not Path({gate!r}).exists():
        time.sleep(0.05)
        if Path({gate!r} + '.explain').exists():
            print(cluster.explain(), flush=True)
            Path({gate!r} + '.explain').unlink()
    cluster.close(timeout=0, terminate=True)
    print('OVER', flush=True)
"""


class Span(NamedTuple):
    """One job, as it says itself."""

    label: str
    began: float
    ended: float


class Place:
    """A node, a scheduler, and programs that use them through it."""

    def __init__(self, scheduler: int, port: int, directory: Path, node: Program) -> None:
        self.node = node
        self._ports = {'scheduler': scheduler, 'port': port}
        self._directory = directory
        self._log = directory / 'log'

    def client(
        self, label: str, jobs: int, seconds: float, exclusive: bool = False
    ) -> AbstractContextManager[Program]:
        """Run a program whose cluster is open until it is told to close it."""
        values = {'label': label, 'jobs': jobs, 'seconds': seconds, 'exclusive': exclusive}
        paths = {'log': str(self._log), 'gate': str(self._gate(label))}
        source = textwrap.dedent(CLIENT).format(**self._ports, **values, **paths)
        script = self._directory / f'{label}.py'
        script.write_text(source, encoding='utf-8')
        return program(sys.executable, script)

    def cleaned(self) -> list[str]:
        """Of which programs the cleanup has run, in that order."""
        return Path(f'{self._log}.unloaded').read_text().split()

    def _gate(self, label: str) -> Path:
        return self._directory / f'{label}.gate'

    def close(self, label: str) -> None:
        """Have a program close its cluster, whatever becomes of its jobs."""
        self._gate(label).touch()

    def explained(self, label: str, client: Program) -> str:
        """What a program's cluster says of itself."""
        before, wish = len(client.output()), Path(f'{self._gate(label)}.explain')
        wish.touch()
        eventually(lambda: not wish.exists())
        return client.output()[before:]

    def spans(self, label: str = '') -> list[Span]:
        """Jobs that have ended."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        rows = [line.split(' ', 3) for line in lines]
        assert all(row[3] == 'in memory' for row in rows)
        spans = [Span(row[0], float(row[1]), float(row[2])) for row in rows]
        return [span for span in spans if label in ('', span.label)]


@pytest.fixture
def make_place(own_home: Path) -> Iterator[Callable[..., Place]]:
    """Start a node of two cpus and a scheduler with these options."""
    with ExitStack() as stack:

        def make(*options: object) -> Place:
            port, scheduler = free_port(), free_port()
            # what is kept of a program that was killed is left behind: that is a promise
            place = ('-i', '127.0.0.2', '-p', port, '--dest_path_prefix', own_home / 'node')
            node = stack.enter_context(node_program(*place, '-c', CPUS))
            where = ('-i', '127.0.0.1', '--dest_path_prefix', own_home / 'state')
            stack.enter_context(scheduler_program(scheduler, *where, *options))
            return Place(scheduler, port, own_home, node)

        yield make


def most_at_once(spans: list[Span]) -> int:
    """How many jobs ran at the same time."""
    return max(sum(o.began <= span.began < o.ended for o in spans) for span in spans)


@pytest.mark.row('B07')
def test_ten_jobs_are_done_soon_beside_thousands_and_time_is_shared_fairly(
    make_place: Callable[..., Place],
) -> None:
    place = make_place()
    with place.client('many', 4000, 0.05) as many, place.client('long', 200, 0.4) as long:
        eventually(lambda: len(place.spans('long')) >= 2 and len(place.spans('many')) >= 10)
        with place.client('ten', 10, 0.05) as ten:
            eventually(lambda: len(place.spans('ten')) == 10)
            assert len(place.spans('many')) < 1000
            place.close('ten')
            eventually(lambda: 'OVER' in ten.output())
        began = time.time()
        eventually(lambda: time.time() > began + 3.0)
        text = place.explained('long', long)
        used = dict.fromkeys(('many', 'long'), 0.0)
        for span in place.spans():
            if span.label in used and span.ended > began:
                used[span.label] += span.ended - max(span.began, began)
        assert 0.8 < used['many'] / used['long'] < 1.25
        assert any(
            one.began < other.began < one.ended
            for one in place.spans('long')
            for other in place.spans('many')
        )
        assert 'the cpus are shared with 1 other client' in text
        assert 'many: ' in text
        for label in ('many', 'long'):
            place.close(label)
        eventually(lambda: 'OVER' in many.output() and 'OVER' in long.output())


@pytest.mark.row('B08', 'B09', 'B16')
def test_an_exclusive_cluster_has_the_nodes_for_itself(make_place: Callable[..., Place]) -> None:
    place = make_place()
    with place.client('first', 4, 0.2) as first:
        eventually(lambda: len(place.spans('first')) >= 1)
        with ExitStack() as stack:
            alone = stack.enter_context(place.client('alone', 4, 0.2, exclusive=True))
            eventually(lambda: 'submitted' in alone.output())
            later = stack.enter_context(place.client('later', 4, 0.2))
            eventually(lambda: 'submitted' in later.output())
            eventually(lambda: len(place.spans('first')) == 4)
            text = place.explained('alone', alone)
            assert 'it is exclusive, and starts when these are closed' in text
            assert 'first of ' in text
            place.close('first')
            eventually(lambda: 'OVER' in first.output())
            closed_at = time.time()
            eventually(lambda: len(place.spans('alone')) == 4)
            text = place.explained('later', later)
            assert 'all nodes are for another cluster, which is exclusive' in text
            assert not place.spans('later')
            place.close('alone')
            eventually(lambda: len(place.spans('later')) == 4)
            place.close('later')
            eventually(lambda: 'OVER' in later.output() and 'OVER' in alone.output())
    assert min(span.began for span in place.spans('alone')) > closed_at - 1.0
    firsts, alones, laters = (place.spans(label) for label in ('first', 'alone', 'later'))
    assert max(s.ended for s in firsts) < min(s.began for s in alones)
    assert max(s.ended for s in alones) < min(s.began for s in laters)
    assert place.cleaned() == ['first', 'alone', 'later']


@pytest.mark.row('B08', 'B09')
def test_an_exclusive_program_that_is_killed_frees_the_way(
    make_place: Callable[..., Place],
) -> None:
    place = make_place()
    with place.client('alone', 6, 0.3, exclusive=True) as alone:
        eventually(lambda: len(place.spans('alone')) >= 1)
        with place.client('later', 2, 0.1) as later:
            eventually(lambda: 'submitted' in later.output())
            alone.kill()
            eventually(lambda: len(place.spans('later')) == 2)
            place.close('later')
            eventually(lambda: 'OVER' in later.output())
    # what it had given out or queued was run before
    assert len(place.spans('alone')) == 6
    began = min(span.began for span in place.spans('later'))
    assert max(span.ended for span in place.spans('alone')) < began


def test_a_client_has_no_more_cpus_than_the_scheduler_gives_one(
    make_place: Callable[..., Place],
) -> None:
    place = make_place('--most_cpus_per_client', 1)
    with place.client('one', 12, 0.1) as one, place.client('other', 12, 0.1) as other:
        eventually(lambda: len(place.spans('one')) >= 3)
        assert 'at most 1 cpu at a time' in place.explained('one', one)
        eventually(lambda: len(place.spans()) == 24)
        for label in ('one', 'other'):
            place.close(label)
        eventually(lambda: 'OVER' in one.output() and 'OVER' in other.output())
    assert most_at_once(place.spans('one')) == 1
    assert most_at_once(place.spans('other')) == 1
    assert most_at_once(place.spans()) == CPUS
