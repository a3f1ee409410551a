"""Nothing is left of a node that ends, however it does."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import psutil

from nodeserver.core.effects import (
    ForkWorkers,
)
from nodeserver.core.events import (
    WorkerForked,
)
from tests.worker.deaths.watch import (
    first_provisional,
    gone,
    leave_children,
)
from tests.worker.rig import COMPUTATION, bench


def test_nothing_is_left_after_an_abrupt_close(tmp_path: Path) -> None:
    before = set(os.listdir('/proc/self/fd'))  # noqa: PTH208

    async def main() -> list[int]:
        async with bench(tmp_path) as made:
            await made.open(leave_children)
            await made.start(True)
            pids: list[int] = await first_provisional(made)
            made.processes.fork_workers(ForkWorkers(COMPUTATION, 3))
            await made.until_type(WorkerForked)
            made.processes.close()
        assert [await gone(pid) for pid in pids] == [True, True]
        return pids

    asyncio.run(main())
    assert psutil.Process().children(recursive=True) == []
    assert set(os.listdir('/proc/self/fd')) == before  # noqa: PTH208
    assert list(tmp_path.iterdir()) == []


def test_processes_end_with_the_node(tmp_path: Path) -> None:
    program = (
        'import asyncio, os, sys\nfrom pathlib import Path\n'
        'sys.path.insert(0, sys.argv[2])\n'
        'from tests.worker import rig\n'
        'from tests.worker.deaths import watch\n'
        'async def main():\n'
        '    async with rig.bench(Path(sys.argv[1])) as made:\n'
        '        await made.open(watch.sleep_and_tell)\n'
        '        await made.start()\n'
        '        print(await watch.first_provisional(made), flush=True)\n'
        '        await asyncio.sleep(60)\n'
        'asyncio.run(main())\n'
    )
    root = str(Path(__file__).parents[3])
    with subprocess.Popen(
        [sys.executable, '-c', program, str(tmp_path), root], stdout=subprocess.PIPE, text=True
    ) as node:
        assert node.stdout is not None
        worker = int(node.stdout.readline())
        node.kill()
    assert asyncio.run(gone(worker))
