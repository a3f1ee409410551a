"""What a node tells of what running jobs print: one piece, and the next once it is asked for."""

import asyncio
import os
from pathlib import Path

from nodeserver.core.effects import ReadOutput
from nodeserver.core.events import JobsPrinted, JobsReported
from nodeserver.core.outputmessages import STDOUT
from tests.worker.rig import COMPUTATION, Bench, on_bench


def print_in_turns(directory: str, names: list[str]) -> None:
    """Print each name once there is a file of this name."""
    import time
    from pathlib import Path

    for name in names:
        while not Path(directory, name).exists():
            time.sleep(0.01)
        print(name)


def test_the_next_piece_is_told_when_it_is_asked_for(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        await bench.open(print_in_turns, 'worker')
        worker = await bench.worker()
        bench.give(worker, (str(tmp_path), []), (str(tmp_path), ['one', 'two', 'end']))
        (tmp_path / 'one').touch()
        first = await bench.until_type(JobsPrinted)
        assert first == JobsPrinted(COMPUTATION, [worker], [2], [STDOUT], [0], [b'one\n'])
        (tmp_path / 'two').touch()
        (template,) = bench.processes._templates.values()
        while os.fstat(template.workers[worker].printed.files[0]).st_size < 8:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        template.look()
        assert not [event for event in bench.events if isinstance(event, JobsPrinted)]
        bench.processes.read_output(ReadOutput(COMPUTATION))
        second = await bench.until_type(JobsPrinted)
        assert (second.starts, second.texts) == ([4], [b'two\n'])
        bench.processes.read_output(ReadOutput(COMPUTATION))
        (tmp_path / 'end').touch()
        while (await bench.until_type(JobsReported)).ids[-1] != 2:
            pass
        bench.processes.read_output(ReadOutput(COMPUTATION + 1))  # one that is gone

    on_bench(tmp_path / 'node', play)


def test_short_jobs_are_not_told_of(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        await bench.open(print_in_turns, 'worker')
        worker = await bench.worker()
        (tmp_path / 'word').touch()
        ids = bench.give(worker, *[(str(tmp_path), ['word'] * 3)] * 2000)
        while (await bench.until_type(JobsReported)).ids[-1] != ids[-1]:
            pass
        assert not [event for event in bench.events if isinstance(event, JobsPrinted)]

    on_bench(tmp_path / 'node', play)
