"""A display that fails harms no other, neither between cells nor at the end of one."""

from typing import Any

import pytest

from dispy_nb.notebook.refresher import Refresher


class Cells:
    """Has what happens at the end of a cell called by hand."""

    def __init__(self) -> None:
        self.events = self
        self.ended: Any = None

    def register(self, event: str, call: Any) -> None:
        assert event == 'post_run_cell'
        self.ended = call


class Shown:
    """A display that is told of cells, and may fail then."""

    def __init__(self, fails: bool) -> None:
        self.refreshed_at = 0.0
        self.cells = 0
        self._fails = fails

    def refresh(self, now: float) -> bool:
        return False  # it will not change: the thread ends

    def stands_for(self, before: object) -> bool:
        return False

    def cell_ended(self) -> None:
        self.cells += 1
        if self._fails:
            raise RuntimeError('on purpose')


def test_a_display_that_fails_at_the_end_of_a_cell_harms_no_other(
    caplog: pytest.LogCaptureFixture,
):
    cells = Cells()
    refresher = Refresher(cells)
    first, second = Shown(fails=True), Shown(fails=False)
    refresher.keep(first)
    refresher.keep(second)
    thread = refresher._thread
    cells.ended(None)
    assert (first.cells, second.cells) == (1, 1)
    assert 'on purpose' in caplog.text
    assert thread is not None
    thread.join(5)
    assert not thread.is_alive()
