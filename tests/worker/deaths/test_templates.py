"""Deaths of templates and of the zygote, and their end in order."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from nodeserver.core.effects import (
    CloseTemplate,
    OpenTemplate,
)
from nodeserver.core.events import (
    Event,
    TemplateClosed,
    TemplateFailed,
    TemplateReady,
    WorkerEnded,
)
from nodeserver.payload import dump_package
from tests.support.deathmatrix import DYING, RAISING, Promise, cells
from tests.support.ways import SIGNALS, Trapped, cleaning_up, setting_up
from tests.worker.deaths.watch import (
    first_provisional,
    gone,
    sleep_and_tell,
)
from tests.worker.rig import PATIENCE, Bench, on_bench


def test_template_killed_ends_its_workers_and_then_fails(tmp_path: Path) -> None:
    async def play(made: Bench) -> list[Event]:
        await made.open(sleep_and_tell)
        for _ in range(2):
            await made.start()
        await first_provisional(made)
        worker = psutil.Process(await first_provisional(made))
        os.kill(worker.ppid(), signal.SIGKILL)
        failed = await made.until_type(TemplateFailed)
        assert 'SIGKILL' in failed.reason
        assert await gone(worker.pid)
        return list(made.events)

    ended = [event for event in on_bench(tmp_path, play) if isinstance(event, WorkerEnded)]
    # what they died of nobody knows: their parent is gone that could have asked
    assert [event.exit_status for event in ended] == [None, None]


@pytest.mark.parametrize(
    ('package', 'text'),
    [
        (b'garbage', 'UnpicklingError'),
        (dump_package(abs, setup=lambda: 3), 'setup returned 3 instead of 0'),
        (dump_package(abs, setup=lambda: 1 / 0), 'ZeroDivisionError'),
        (dump_package(abs, setup=lambda: os._exit(4)), 'its template was ended by os._exit(4)'),
    ],
)
def test_package_that_does_not_load_fails_with_its_reason(
    tmp_path: Path, package: bytes, text: str
) -> None:
    async def play(made: Bench) -> str:
        made.open_bytes(package)
        reason: str = (await made.until_type(TemplateFailed)).reason
        await made.close()
        await made.until_type(TemplateClosed)
        return reason

    assert text in on_bench(tmp_path, play)
    assert list(tmp_path.iterdir()) == []


def test_setup_prints_are_in_the_reason_of_its_failure(tmp_path: Path) -> None:
    def setup() -> int:
        print('no such data')
        return 3

    async def play(made: Bench) -> str:
        reason: str = (await made.open(abs, setup=setup)).reason
        return reason

    assert 'no such data' in on_bench(tmp_path, play)


def test_zygote_killed_fails_its_templates_and_another_serves(tmp_path: Path) -> None:
    async def play(made: Bench) -> Any:
        await made.open(sleep_and_tell)
        await made.start()
        template = psutil.Process(await first_provisional(made)).parent()
        assert template is not None
        os.kill(template.ppid(), signal.SIGKILL)
        assert isinstance(await made.until_type(TemplateFailed), TemplateFailed)
        await made.close()
        await made.until_type(TemplateClosed)
        await made.open(abs)
        return (await made.run(-4)).result

    assert on_bench(tmp_path, play) == 4


def test_template_is_closed_while_it_is_still_unpacking(tmp_path: Path) -> None:
    def setup() -> int:
        time.sleep(60)
        return 0

    async def play(made: Bench) -> None:
        made.open_bytes(dump_package(abs, setup=setup))
        await made.close()
        await made.until_type(TemplateClosed)

    on_bench(tmp_path, play)


def test_cleanup_runs_in_the_template_before_the_files_go(tmp_path: Path) -> None:
    witness = tmp_path / 'witness'

    def setup() -> int:
        global prepared
        prepared = 17  # type: ignore[name-defined]
        return 0

    def cleanup() -> None:
        witness.write_text(f'{prepared} {len(os.listdir())}')  # type: ignore[name-defined]  # noqa: PTH208

    def work() -> None:
        Path('made-by-job').touch()

    async def play(made: Bench) -> None:
        await made.open(work, setup=setup, cleanup=cleanup)
        await made.run()
        await made.close()
        await made.until_type(TemplateClosed)

    on_bench(tmp_path / 'prefix', play)
    assert witness.read_text() == '17 1'
    assert list((tmp_path / 'prefix').iterdir()) == []


def test_files_stay_without_cleanup(tmp_path: Path) -> None:
    def work() -> None:
        Path('made-by-job').touch()

    async def play(made: Bench) -> None:
        made.open_bytes(dump_package(work), cleanup=False, dest_path='mine')
        await made.until_type(TemplateReady)
        await made.run()

    on_bench(tmp_path, play)
    assert (tmp_path / 'mine' / 'made-by-job').exists()


def test_dest_path_outside_the_prefix_is_refused(tmp_path: Path) -> None:
    async def play(made: Bench) -> str:
        made.open_bytes(dump_package(abs), dest_path='../out')
        reason: str = (await made.until_type(TemplateFailed)).reason
        await made.close()
        await made.until_type(TemplateClosed)
        return reason

    assert 'dest_path' in on_bench(tmp_path, play)


def test_a_shared_directory_goes_with_the_last_that_uses_it(tmp_path: Path) -> None:
    async def play(made: Bench) -> None:
        for number, dest_path in ((1, 'shared'), (2, 'shared/below'), (3, 'shared')):
            made.processes.open_template(
                OpenTemplate(number, 'test', dump_package(abs), 'job', dest_path, True)
            )
            await made.until_type(TemplateReady)
        (tmp_path / 'shared' / 'file').touch()
        for number, left in ((1, {'below', 'file'}), (3, {'below', 'file'}), (2, None)):
            made.processes.close_template(CloseTemplate(number))
            await made.until_type(TemplateClosed)
            shared = tmp_path / 'shared'
            assert (set(os.listdir(shared)) if shared.exists() else None) == left  # noqa: PTH208

    on_bench(tmp_path, play)


def test_what_is_to_stay_is_not_removed_by_another_that_used_it(tmp_path: Path) -> None:
    async def play(made: Bench) -> None:
        for number, cleanup in ((1, True), (2, False)):
            made.processes.open_template(
                OpenTemplate(number, 'test', dump_package(abs), 'job', 'shared', cleanup)
            )
            await made.until_type(TemplateReady)
        (tmp_path / 'shared' / 'file').touch()
        for number in (1, 2):
            made.processes.close_template(CloseTemplate(number))
            await made.until_type(TemplateClosed)

    on_bench(tmp_path, play)
    assert (tmp_path / 'shared' / 'file').exists()


# the matrix

SAID = RAISING | {way: f'its template {words}' for way, words in DYING.items()}


async def serves(made: Bench) -> None:
    """Close what there is; another computation is opened and has a job run."""
    await made.close()
    await made.until_type(TemplateClosed)
    assert isinstance(await made.open(abs), TemplateReady)
    assert (await made.run(-4)).result == 4


def of(who: str, moment: str) -> pytest.MarkDecorator:
    """One test for each cell."""
    found = cells(who, moment)
    return pytest.mark.parametrize(('way', 'promise'), found.items(), ids=list(found))


@pytest.mark.parametrize('moment', ['load', 'setup'])
@of('template', 'setup')
def test_a_template_that_does_not_become_ready_says_why(
    tmp_path: Path, moment: str, way: str, promise: Promise
) -> None:
    assert cells('template', moment)[way] is promise
    (tmp_path / 'trap').touch()
    if moment == 'load':
        package = dump_package(Trapped('load', way, str(tmp_path / 'trap')))
    else:
        package = dump_package(abs, setup=setting_up(way))

    async def play(made: Bench) -> None:
        made.open_bytes(package)
        if promise is Promise.REFUSES:
            reason = (await made.until_type(TemplateFailed)).reason
            assert SAID[way] in reason
        else:
            (zygote,) = psutil.Process().children()
            async with asyncio.timeout(PATIENCE):
                while not any(  # noqa: ASYNC110 - nobody tells us
                    child.status() == psutil.STATUS_STOPPED for child in zygote.children()
                ):
                    await asyncio.sleep(0.01)
        await serves(made)

    on_bench(tmp_path / 'prefix', play)
    assert list((tmp_path / 'prefix').iterdir()) == []


@of('template', 'run')
def test_a_serving_template_that_is_killed_takes_its_workers_along(
    tmp_path: Path, way: str, promise: Promise
) -> None:
    async def play(made: Bench) -> None:
        await made.open(sleep_and_tell)
        worker = await made.start()
        process = psutil.Process(await first_provisional(made))
        template = process.parent()
        assert template is not None
        template.send_signal(SIGNALS[way])
        if promise is Promise.REOPENS:
            ended = await made.end_of(worker)
            assert (ended.reported, ended.exit_status) == (False, None)
            reason = (await made.until_type(TemplateFailed)).reason
            assert f'its template {DYING[way]}' in reason
        await serves(made)
        assert await gone(process.pid)

    on_bench(tmp_path, play)


@of('template', 'cleanup')
def test_a_cleanup_that_dies_keeps_nothing_from_being_closed(
    tmp_path: Path, way: str, promise: Promise
) -> None:
    assert promise is Promise.CLOSES

    async def play(made: Bench) -> None:
        assert isinstance(await made.open(abs, cleanup=cleaning_up(way)), TemplateReady)
        await made.run(-1)
        await serves(made)

    on_bench(tmp_path, play)
    assert list(tmp_path.iterdir()) == []


@of('zygote', 'run')
def test_another_zygote_serves_when_one_is_killed(
    tmp_path: Path, way: str, promise: Promise
) -> None:
    assert promise is Promise.REOPENS

    async def play(made: Bench) -> None:
        await made.open(sleep_and_tell)
        worker = await made.start()
        pid = await first_provisional(made)
        (zygote,) = psutil.Process().children()
        zygote.send_signal(SIGNALS[way])
        ended = await made.end_of(worker)
        assert (ended.reported, ended.exit_status) == (False, None)
        assert isinstance(await made.until_type(TemplateFailed), TemplateFailed)
        assert await gone(pid)
        await serves(made)

    on_bench(tmp_path, play)
