"""Jobs in processes that are no forks of the one that `setup` ran in."""

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from nodeserver.core.effects import OpenTemplate
from nodeserver.core.events import TemplateFailed, TemplateNoted, TemplateReady, WorkerEnded
from nodeserver.payload import dump_call, dump_package, load_result
from nodeserver.worker.fresh import START
from tests.support.deathmatrix import DYING
from tests.support.ways import die
from tests.worker.rig import Bench, on_bench

both = pytest.mark.parametrize('isolation', ['job', 'worker'])


@pytest.fixture
def all_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(START, 'fresh')


def made_of(text: str) -> dict[str, Any]:
    """Functions of a client's `__main__`."""
    names: dict[str, Any] = {'__name__': '__main__'}
    exec(compile(text, '<cell>', 'exec'), names)
    return names


PROGRAM = """
import os

class Kind:
    def __init__(self, n):
        self.n = n

    def twice(self):
        return 2 * self.n + offset

def helper():
    return offset

offset, kept, gone = 1, {}, 5

def setup():
    global offset, table, kinds, late, gone
    offset, kinds = 100, [Kind(4)]
    kept['in place'] = helper
    del gone
    def late():
        return helper() + len(table)
    import numpy
    table = numpy.ones(100_000)
    START_THREAD
    return 0

def cleanup():
    import pathlib
    pathlib.Path(TOLD).write_text(f'{os.getpid()} {len(table)}')

def work():
    table[0] += 1
    one = (isinstance(kinds[0], Kind), kinds[0].twice(), late(), kept['in place'] is helper)
    return one, float(table[:2].sum()), 'gone' in globals(), os.getpid(), os.getppid(), os.getcwd()
"""
THREAD = 'import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()'
FOUND = (True, 108, 100_100, True)


async def opened_notes(made: Bench) -> list[str]:
    return [event.text for event in made.events if isinstance(event, TemplateNoted)]


def play_program(tmp_path: Path, isolation: str, thread: str) -> tuple[list[Any], list[str], str]:
    told = tmp_path / 'told'
    text = PROGRAM.replace('TOLD', repr(str(told))).replace('START_THREAD', thread or 'pass')
    names = made_of(text)

    async def play(made: Bench) -> tuple[list[Any], list[str]]:
        parts = {'setup': names['setup'], 'cleanup': names['cleanup'], 'depends': [names['Kind']]}
        opened = await made.open(names['work'], isolation, **parts)
        assert isinstance(opened, TemplateReady), opened
        notes = await opened_notes(made)
        if isolation == 'job':
            found = [(await made.run()).result for _ in range(3)]
        else:
            worker = await made.worker()
            made.give(worker, (), (), ())
            found = [ran.result for ran in await made.reports(worker, 3)]
        return found, notes

    found, notes = on_bench(tmp_path / 'node', play)
    return found, notes, told.read_text()


@pytest.mark.row('F24')
@both
@pytest.mark.parametrize('thread', ['', THREAD])
def test_fresh_processes_have_the_globals_that_setup_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolation: str, thread: str
) -> None:
    if not thread:
        monkeypatch.setenv(START, 'fresh')
    found, notes, told = play_program(tmp_path, isolation, thread)
    first = 3.0 if isolation == 'job' else None  # objects changed in place stay with a worker
    for number, (one, total, gone, pid, parent, directory) in enumerate(found, 3):
        assert (one, total, gone) == (FOUND, first or number, False)
        assert str(pid) not in told and str(parent) not in told  # the template cleans up
        assert directory.startswith(str(tmp_path / 'node'))
    assert told.endswith(' 100000')
    (note,) = notes
    assert note.startswith('jobs get copies of what setup made global')
    assert ('threads run since setup' if thread else f'{START}=fresh') in note


def test_forks_of_a_process_without_threads_need_no_copies(tmp_path: Path) -> None:
    found, notes, told = play_program(tmp_path, 'job', '')
    assert notes == []
    assert {str(parent) for *_, parent, _ in found} == {told.split()[0]}


REFUSED = [
    ('import threading; lock = threading.Lock()', 'lock', "'lock' of type _thread.lock cannot be"),
    ('import zlib', 'zlib', "global variable 'zlib' is the module zlib, which is not passed on"),
]


@pytest.mark.row('F24')
@pytest.mark.parametrize(('statement', 'name', 'text'), REFUSED)
def test_what_cannot_be_passed_on_refuses_the_node_and_is_named(
    tmp_path: Path, all_fresh: None, statement: str, name: str, text: str
) -> None:
    names = made_of(f'def setup():\n    global {name}\n    {statement}\n    return 0')

    async def play(made: Bench) -> str:
        failed = await made.open(abs, setup=names['setup'])
        assert isinstance(failed, TemplateFailed)
        return failed.reason

    reason = on_bench(tmp_path, play)
    assert text in reason and f'the node was started with {START}=fresh' in reason
    assert 'Traceback' not in reason


def test_what_cannot_be_made_there_refuses_the_node(tmp_path: Path, all_fresh: None) -> None:
    names = made_of(
        'import os\n'
        'class Once:\n'
        '    def __reduce__(self):\n'
        '        return eval, ("1 // 0",)\n'
        'def setup():\n    global once\n    once = Once()\n    return 0\n'
    )

    async def play(made: Bench) -> str:
        reason: str = (await made.open(abs, setup=names['setup'])).reason
        return reason

    reason = on_bench(tmp_path, play)
    assert 'the first process for jobs could not be made' in reason
    assert 'ZeroDivisionError' in reason


# ways to die


@both
@pytest.mark.parametrize('way', DYING)
def test_a_fresh_process_that_dies_says_how(
    tmp_path: Path, all_fresh: None, isolation: str, way: str
) -> None:
    async def play(made: Bench) -> None:
        assert isinstance(await made.open(die, isolation), TemplateReady)
        worker = await made.start(way)
        ended = await made.until(lambda event: isinstance(event, WorkerEnded))
        assert (ended.worker, ended.begun) == (worker, True)
        assert ended.exit_status not in (None, 0)
        assert b'last words' in ended.outcome

    on_bench(tmp_path, play)


def leave_children() -> list[int]:
    """Leave a child and an orphan of its own session."""
    child = subprocess.Popen(['sleep', '600'])
    other = subprocess.run(
        ['sh', '-c', 'setsid sleep 600 >&- 2>&- & echo $!'], stdout=subprocess.PIPE, check=True
    )
    return [child.pid, int(other.stdout)]


def test_nothing_of_a_fresh_job_is_left(tmp_path: Path, all_fresh: None) -> None:
    async def play(made: Bench) -> list[int]:
        await made.open(leave_children)
        pids: list[int] = (await made.run()).result
        return pids

    pids = on_bench(tmp_path, play)
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []


@pytest.mark.parametrize('who', ['nursery', 'template'])
def test_a_killed_nursery_or_template_takes_its_workers_along(
    tmp_path: Path, all_fresh: None, who: str
) -> None:
    def work() -> int:
        dispy_provisional_result(os.getpid())  # type: ignore[name-defined]  # noqa: F821
        threading.Event().wait(600)
        return 0

    async def play(made: Bench) -> str:
        await made.open(work)
        await made.start()
        found = await made.until(lambda event: type(event).__name__ == 'ProvisionalReported')
        nursery = psutil.Process(_pid_of(found)).parent()
        assert nursery is not None and nursery.name() == 'dispy nursery'
        template = nursery.parent()
        assert template is not None and template.name() == 'dispy template'
        (nursery if who == 'nursery' else template).kill()
        reason: str = (await made.until_type(TemplateFailed)).reason
        await made.close()
        assert not nursery.is_running() and not template.is_running()
        return reason

    reason = on_bench(tmp_path, play)
    assert 'SIGKILL' in reason
    assert ('the process that its jobs come from' in reason) == (who == 'nursery')


def _pid_of(event: Any) -> int:
    pid: int = load_result(event.result)
    return pid


def test_setup_gets_its_arguments_and_cleanup_too(tmp_path: Path) -> None:
    told = str(tmp_path / 'told')

    def note(what: str) -> Callable[..., int]:
        def call(*args: Any) -> int:
            with Path(told).open('a') as file:
                file.write(f'{what} {args}\n')
            return 0

        return call

    package = dump_package(abs, setup=note('setup'), cleanup=note('cleanup'))
    args = dump_call((1, 'two'), {})

    async def play(made: Bench) -> None:
        made.processes.open_template(
            OpenTemplate(7, 'test', package, 'job', '', True, setup_args=args)
        )
        await made.until_type(TemplateReady)
        assert (await made.run(-3)).result == 3

    on_bench(tmp_path / 'node', play)
    assert Path(told).read_text() == "setup (1, 'two')\ncleanup (1, 'two')\n"
