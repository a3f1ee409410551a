"""What a worker's jobs print, seen from the node: in files that the worker writes and empties."""

import os
from collections.abc import Sequence

from nodeserver.io import memfile
from nodeserver.wire.outcome import encode_failure

LEAST_LOOKS = 2  # at a job, before what it prints is told: short ones end without a word
MOST_OF_A_STREAM = 32 * 1024  # bytes told of it at a time
MOST_BEHIND = 128 * 1024  # of what is there; of more, only the end is told
LEAST_OF_A_STREAM = 1024
MOST_AT_A_TIME = 256 * 1024  # told of all jobs of a computation


class Printed:
    """Standard output and error of one worker, and how much of its present job's was told."""

    def __init__(self, files: Sequence[int]) -> None:
        self.files = list(files)
        self._number = 0  # of the job that the worker was in at the last look
        self._looks = 0
        self._told = [0] * len(self.files)

    def look(self, number: int) -> list[int]:
        """Note which job the worker is in (0: none); the streams of which there is news to tell.

        The memory of a very long output's middle is freed.
        """
        if number != self._number:
            self._number, self._looks = number, 0
            self._told = [0] * len(self.files)
        self._looks += 1
        news = []
        for place, file in enumerate(self.files):
            size = _size(file)
            if size > self._told[place]:
                news.append(place)
                memfile.give_back_middle(file, size)
        return news if number and self._looks > LEAST_LOOKS else []

    def read(self, place: int, most: int) -> tuple[int, bytes]:
        """Where the news of a stream begin that are told now, and the news.

        A job that prints faster than is told is told of by its beginning and what it printed last.
        """
        start, size = self._told[place], _size(self.files[place])
        if start and size - start > MOST_BEHIND:
            start = size - most
        return start, memfile.read(self.files[place], start, min(most, size - start))

    def told(self, place: int, end: int) -> None:
        """Remember how far a stream was told."""
        self._told[place] = end

    def leftover(self) -> bytes:
        """Make an outcome of what is there; b'' if that is nothing."""
        texts = [memfile.read_text(file, _size(file)) for file in self.files]
        return encode_failure(*texts) if any(texts) else b''


def _size(file: int) -> int:
    return os.fstat(file).st_size
