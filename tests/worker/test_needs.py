"""What arguments need is imported once, by the template, and not by each of its forks."""

import sys
import types
from pathlib import Path
from typing import Any

import numpy

from nodeserver.core.events import TemplateReady
from nodeserver.worker.needs import Needs, import_all, imported_since
from tests.worker.rig import Bench, on_bench


def has_numpy(*args: Any) -> bool:
    """Whether the template, of which this process was forked, has numpy."""
    import os
    from pathlib import Path

    return 'numpy' in Path(f'/proc/{os.getppid()}/maps').read_text()


def imports_itself() -> bool:
    import numpy

    return has_numpy(numpy)


def in_two_jobs(prefix: Path, function: Any, *args: Any) -> list[bool]:
    async def play(bench: Bench) -> list[bool]:
        assert isinstance(await bench.open(function), TemplateReady)
        return [(await bench.run(*args)).result for _ in range(2)]

    answers: list[bool] = on_bench(prefix, play)
    return answers


def test_second_job_with_an_array_finds_numpy_imported(tmp_path: Path) -> None:
    assert in_two_jobs(tmp_path, has_numpy, numpy.ones(3)) == [False, True]


def test_what_a_function_imports_itself_stays_in_its_process(tmp_path: Path) -> None:
    assert in_two_jobs(tmp_path, imports_itself) == [False, False]


def test_modules_of_the_user_are_not_imported_ahead(tmp_path: Path) -> None:
    import numpy.linalg

    own = types.ModuleType('users_own')
    own.__file__ = str(tmp_path / 'users_own.py')
    before = len(sys.modules)
    sys.modules['users_own'] = own
    sys.modules['numpy_again'] = numpy.linalg
    try:
        assert list(imported_since(before)) in (['numpy_again'], [])  # []: the tests have threads
    finally:
        del sys.modules['users_own'], sys.modules['numpy_again']


def test_nonsense_from_a_job_is_taken_as_such() -> None:
    needs = Needs()
    assert needs.take() == []
    needs._page[:] = b'\xff' * len(needs._page)
    import_all(needs.take())
    needs.tell(['', '.', '..x', 'no_such_module', '\0', 'this is\tno name', 'numpy.no_such_part'])
    import_all(needs.take())
    assert needs.take() == []


def test_more_names_than_there_is_room_for_are_cut_between_two() -> None:
    needs = Needs()
    needs.tell(f'module_{number}' for number in range(20_000))
    names = needs.take()
    assert 2000 < len(names) < 20_000
    assert names == [f'module_{number}' for number in range(len(names))]
