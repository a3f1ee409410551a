"""What is told of what jobs print: only of those that have run a while, and never very much."""

import os
from collections.abc import Iterator

import pytest

from nodeserver.io import memfile
from nodeserver.io.printed import LEAST_LOOKS, MOST_BEHIND, MOST_OF_A_STREAM, Printed


@pytest.fixture
def printed() -> Iterator[Printed]:
    files = [os.memfd_create(name) for name in ('stdout', 'stderr')]
    yield Printed(files)
    for file in files:
        os.close(file)


def looks(printed: Printed, number: int, times: int = LEAST_LOOKS) -> None:
    """Look at a job until what it prints would be told next time."""
    for _ in range(times):
        assert printed.look(number) == []


def test_short_jobs_end_without_a_word(printed: Printed) -> None:
    for number in range(1, 10):
        os.write(printed.files[0], b'short')
        looks(printed, number)
        os.ftruncate(printed.files[0], 0)
        looks(printed, 0)


def test_a_long_job_is_told_of_piece_by_piece(printed: Printed) -> None:
    looks(printed, 1)
    assert printed.look(1) == []
    os.write(printed.files[1], b'one')
    assert printed.look(1) == [1]
    assert printed.read(1, 100) == (0, b'one')
    printed.told(1, 3)
    assert printed.look(1) == []
    os.write(printed.files[0], b'x')
    os.write(printed.files[1], b' two')
    assert printed.look(1) == [0, 1]
    assert printed.read(1, 2) == (3, b' t')


def test_the_next_job_is_told_of_from_its_own_beginning(printed: Printed) -> None:
    os.write(printed.files[0], b'the first')
    looks(printed, 1)
    assert printed.look(1) == [0]
    printed.told(0, 9)
    os.ftruncate(printed.files[0], 0)
    os.lseek(printed.files[0], 0, os.SEEK_SET)
    os.write(printed.files[0], b'2')
    looks(printed, 2)
    assert printed.look(2) == [0]
    assert printed.read(0, 100) == (0, b'2')


def test_of_a_job_that_prints_too_fast_the_beginning_and_the_latest_are_told(
    printed: Printed,
) -> None:
    size = 4 * memfile.HEAD
    os.write(printed.files[0], b'a' * size)
    looks(printed, 1)
    start, text = printed.read(0, MOST_OF_A_STREAM)
    assert (start, text) == (0, b'a' * MOST_OF_A_STREAM)
    printed.told(0, len(text))
    start, text = printed.read(0, MOST_OF_A_STREAM)
    assert (start, text) == (size - MOST_OF_A_STREAM, b'a' * MOST_OF_A_STREAM)
    printed.told(0, size)
    os.write(printed.files[0], b'b' * MOST_BEHIND)
    assert printed.read(0, 10) == (size, b'b' * 10)
