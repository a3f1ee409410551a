"""The page that a lasting worker shares with its node: no job is lost or run twice by a recall."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nodeserver.io.workerpage import PageOfNode, PageOfWorker, cells_of, new_page

Pages = tuple[PageOfNode, PageOfWorker]


@pytest.fixture
def pages() -> Iterator[Pages]:
    fd = new_page()
    ours, theirs = cells_of(fd), cells_of(fd)
    os.close(fd)
    node = PageOfNode(ours)
    yield node, PageOfWorker(theirs)
    node.close()
    PageOfNode(theirs).close()


def test_what_was_not_begun_is_skipped_and_nothing_else(pages: Pages) -> None:
    node, worker = pages
    assert worker.begins(1)
    assert node.recall(last_given=4, answered=0)
    assert [worker.begins(number) for number in (2, 3, 4, 5)] == [False, False, False, True]


def test_a_worker_in_a_long_job_gives_back_what_waits_behind_it(pages: Pages) -> None:
    node, worker = pages
    worker.begins(1)
    node.recall(last_given=4, answered=0)
    assert node.take_back(answered=0) == (2, 4)
    assert node.begun == 1


def test_a_worker_that_has_moved_on_is_looked_at_again(pages: Pages) -> None:
    node, worker = pages
    worker.begins(1)
    worker._cells[0] = 0  # the recall comes before the worker has said that it begins
    node.recall(last_given=3, answered=0)
    worker._cells[0] = 1
    assert node.take_back(answered=0) is None
    assert node.take_back(answered=0) == (2, 3)


def test_a_worker_between_two_jobs_tells_by_itself(pages: Pages) -> None:
    node, worker = pages
    worker.begins(1)
    node.recall(last_given=3, answered=1)  # it has answered for the first already
    assert node.take_back(answered=1) is None
    assert not worker.begins(2)
    assert not worker.begins(3)
    assert node.take_back(answered=3) == (0, -1)  # nothing is left to take


def test_a_second_recall_keeps_what_the_first_took(pages: Pages) -> None:
    node, worker = pages
    worker.begins(1)
    node.recall(last_given=3, answered=0)
    assert node.take_back(answered=0) == (2, 3)
    worker._cells[0] = 2  # it is just looking at the second, which it is to skip
    node.recall(last_given=5, answered=1)
    worker._cells[0] = 1
    assert [worker.begins(number) for number in (2, 3, 4, 5, 6)] == [False] * 4 + [True]


def test_there_is_nothing_to_recall_when_all_were_begun(pages: Pages) -> None:
    node, worker = pages
    for number in (1, 2):
        worker.begins(number)
    assert not node.recall(last_given=2, answered=1)


def test_an_interrupt_is_for_one_job(pages: Pages) -> None:
    node, worker = pages
    worker.begins(3)
    node.interrupt(3)
    assert worker.is_interrupted(3)
    assert not worker.is_interrupted(4)


def test_a_job_that_the_worker_only_seemed_to_be_in_comes_back_by_its_own_word(
    pages: Pages,
) -> None:
    node, worker = pages
    worker.begins(1)
    node.recall(last_given=5, answered=0)
    assert not worker.begins(2)
    worker._cells[0] = 3  # it looks at the third for so long that it seems to be in it
    assert node.take_back(answered=2) is None
    assert node.take_back(answered=2) == (4, 5)
    worker._cells[0] = 1
    assert [worker.begins(number) for number in (3, 4, 5)] == [False] * 3
    assert [node.was_taken(number) for number in (3, 4, 5)] == [False, True, True]


class Cells(list[int]):
    """A page in which something else happens just after a cell was read."""

    def __init__(self) -> None:
        super().__init__([0] * 4)
        self.after: dict[int, Callable[[], object]] = {}

    def __getitem__(self, cell: Any) -> Any:
        value = super().__getitem__(cell)
        self.after.pop(cell, lambda: None)()
        return value


@pytest.mark.parametrize('cell', [1, 2])
def test_a_recall_between_two_looks_of_the_worker_skips_no_job_that_counts_as_begun(
    cell: int,
) -> None:
    cells: Any = Cells()
    node, worker = PageOfNode(cells), PageOfWorker(cells)
    worker.begins(1)
    node.recall(last_given=2, answered=0)
    assert not worker.begins(2)  # an interval that is done with stays in the page
    cells.after[cell] = lambda: node.recall(last_given=9, answered=2)
    is_run = worker.begins(3)
    for recall in cells.after.values():  # that cell was not looked at
        recall()
    assert is_run == (node._low > 3)
    assert [worker.begins(number) for number in range(4, 10)] == [False] * 6
