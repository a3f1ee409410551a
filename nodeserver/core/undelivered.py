"""What was sent to a client and has not been acknowledged: letters of nodes, and our own."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from nodeserver.core.messages import JobsSettled

MOST_ENDINGS = 100_000  # of a client that acknowledges nothing


class Undelivered:
    """Of the letters of nodes only what was believed in them: nodes keep the letters themselves."""

    __slots__ = ('_number', 'endings', 'letters')

    def __init__(self) -> None:
        self.letters: dict[str, dict[int, list[int]]] = {}  # ids by node and number
        self.endings: dict[int, JobsSettled] = {}  # by number
        self._number = 0

    def passed(self, node: str, letter: int, ids: list[int]) -> None:
        """A letter was passed on."""
        letters = self.letters.get(node)
        if letters is None:
            letters = self.letters[node] = {}
        letters[letter] = ids

    def believed_in(self, node: str, letter: int) -> list[int]:
        """Which jobs of a letter were believed, that comes again; none if it comes for once."""
        return self.letters.get(node, {}).get(letter, [])

    def acknowledged(self, node: str, numbers: Iterable[int]) -> None:
        """The client has these."""
        letters = self.letters.get(node) if node else self.endings
        if letters is not None:
            for number in numbers:
                letters.pop(number, None)
            if node and not letters:
                del self.letters[node]

    def renamed(self, before: str, node: str) -> None:
        """A node is known by another id now."""
        letters = self.letters.pop(before, None)
        if letters:
            self.letters.setdefault(node, {}).update(letters)

    def numbered(self, message: JobsSettled) -> JobsSettled:
        """Keep an ending of our own, as a letter."""
        self._number += 1
        numbered = self.endings[self._number] = replace(message, letter=self._number)
        if len(self.endings) > MOST_ENDINGS:
            del self.endings[next(iter(self.endings))]
        return numbered

    def take_over(self, endings: Iterable[JobsSettled]) -> None:
        """Keep what was to be told when the client was not there."""
        for message in endings:
            self.numbered(message)

    def places(self) -> Iterator[tuple[str, list[int]]]:
        """Which node keeps outcomes of which jobs."""
        for node, letters in self.letters.items():
            for ids in letters.values():
                yield node, ids

    def ended(self) -> Iterator[int]:
        """Jobs that were ended here."""
        for message in self.endings.values():
            yield from message.ids
