"""What was sent to a client and has not been acknowledged: letters of nodes, and our own."""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import replace

from nodeserver.core.fleet import NodeRecord
from nodeserver.core.messages import JobsDone, JobsSettled, KnownNode

MOST_ENDINGS = 100_000  # of a client that acknowledges nothing
_NOTHING: tuple[list[int], list[int]] = [], []


class Undelivered:
    """Of the letters of nodes only what was believed in them: nodes keep the letters themselves."""

    __slots__ = ('_number', '_spare', 'endings', 'gone', 'letters', 'owing')

    def __init__(self) -> None:
        # ids and attempts by node and number: letters come with every few jobs, so it is flat
        self.letters: dict[tuple[str, int], tuple[list[int], list[int]]] = {}
        self.gone: dict[tuple[str, int], tuple[list[int], list[int]]] = {}  # with their nodes
        self._spare: set[tuple[str, int]] = set()  # letters that the client has without thanks
        self.endings: dict[int, JobsSettled] = {}  # by number
        self.owing: set[str] = set()  # nodes that were lost, and may still have letters
        self._number = 0

    def believed_in(self, node: str, letter: int) -> list[int]:
        """Which jobs of a letter were believed, that comes again; none if it comes for once."""
        ids, _ = self.letters.get((node, letter), _NOTHING)
        return ids

    def believe_more(self, node: str, message: JobsDone) -> None:
        """Some jobs of a letter are believed, of which others may have been before."""
        ids, attempts = self.letters.get((node, message.letter), _NOTHING)
        rows = dict(zip(ids, attempts, strict=True))
        rows.update(zip(message.ids, message.attempts, strict=True))
        self.letters[node, message.letter] = [*rows], [*rows.values()]

    def acknowledged(self, node: str, numbers: Iterable[int]) -> None:
        """The client has these."""
        if node:
            for number in numbers:
                self.letters.pop((node, number), None)
                self.gone.pop((node, number), None)
                self._spare.discard((node, number))
            if not self.letters:
                self.owing.clear()
        else:
            for number in numbers:
                self.endings.pop(number, None)

    def lacked(self, jobs: Container[int], here: Container[str]) -> None:
        """A client that is back lacks the outcomes of these jobs, and of no others.

        Nodes that are here send all letters again, and are thanked.
        """
        letters = self.letters.items()
        self._spare = {key for key, (ids, _) in letters if not any(job in jobs for job in ids)}
        self._drop_spare([key for key in self._spare if key[0] not in here])

    def _drop_spare(self, keys: Iterable[tuple[str, int]]) -> None:
        for key in keys:
            self.letters.pop(key, None)
            self._spare.discard(key)

    def node_gone(self, node: str) -> None:
        """A node is lost: if it comes back, it is to say once more what is not acknowledged."""
        self._drop_spare([key for key in self._spare if key[0] == node])
        if self.has_letters_of(node):
            self.owing.add(node)

    def may_be_at(self, node: NodeRecord, nodes: Mapping[str, KnownNode]) -> bool:
        """Whether a node that is met may have letters, under its id or one that it had before."""
        if node.id in self.owing:
            return True
        if not (self.owing or self.letters):
            return False
        before = ids_before(node, nodes)
        if not before:
            return False
        return bool(before & self.owing) or any(name in before for name, _ in self.letters)

    def forget(self, node: str) -> None:
        """What a node has is not wanted any more."""
        self.owing.discard(node)
        for key in [key for key in self.letters if key[0] == node]:
            del self.letters[key]

    def lose(self, node: str, but: Container[int]) -> None:
        """What a node has not sent again is lost; its client may have it all the same."""
        self.owing.discard(node)
        for key in [key for key in self.letters if key[0] == node and key[1] not in but]:
            self.gone[key] = self.letters.pop(key)

    def give_up(self, jobs: Container[int]) -> None:
        """Nobody waits for these outcomes any more, and they are not believed if they come."""
        for letters in (self.letters, self.gone):
            for key, (ids, attempts) in [*letters.items()]:
                rows = [row for row in zip(ids, attempts, strict=True) if row[0] not in jobs]
                if not rows:
                    del letters[key]
                elif len(rows) < len(ids):
                    letters[key] = [job for job, _ in rows], [attempt for _, attempt in rows]

    def take_gone(self) -> list[int]:
        """Jobs whose outcomes were lost: whoever has told of them does not have these."""
        jobs = [job for ids, _ in self.gone.values() for job in ids]
        self.gone.clear()
        return jobs

    def came_again(self, before: Iterable[str], node: str, number: int) -> None:
        """A node that has another id now has sent a letter of before once more."""
        for name in before:
            if (name, number) in self.letters:
                self.letters[node, number] = self.letters.pop((name, number))

    def numbers_of(self) -> dict[str, list[int]]:
        """The numbers of all letters, by node."""
        by_node: dict[str, list[int]] = {}
        for node, number in self.letters:
            by_node.setdefault(node, []).append(number)
        return by_node

    def has_letters_of(self, node: str) -> bool:
        """Whether the client may lack something that one node has: seen at its first letter."""
        return any(name == node for name, _ in self.letters)

    def jobs_at(self, node: str) -> set[int]:
        """The jobs in the letters of one node."""
        return {job for (name, _), (ids, _) in self.letters.items() if name == node for job in ids}

    def numbered(self, message: JobsSettled) -> JobsSettled:
        """Keep an ending of our own, as a letter."""
        self._number += 1
        numbered = self.endings[self._number] = replace(message, letter=self._number)
        if len(self.endings) > MOST_ENDINGS:
            del self.endings[next(iter(self.endings))]
        return numbered

    def forget_left(self) -> None:
        """Jobs that a later try may have are not told of: who comes next may be that one."""
        self.endings = {n: ending for n, ending in self.endings.items() if not ending.kind}

    def take_over(self, endings: Iterable[JobsSettled]) -> None:
        """Keep what was to be told when the client was not there."""
        for message in endings:
            self.numbered(message)

    def places(self) -> Iterator[tuple[str, list[int], list[int]]]:
        """Which node keeps outcomes of which attempts of which jobs, or has lost them."""
        for letters in (self.letters, self.gone):
            for (node, _), (ids, attempts) in letters.items():
                yield node, ids, attempts

    def ended(self) -> Iterator[int]:
        """Jobs that were ended here."""
        for message in self.endings.values():
            yield from message.ids


def ids_before(node: NodeRecord, nodes: Mapping[str, KnownNode]) -> set[str]:
    """Ids of nodes that were where this one is."""
    places = node.places
    return {
        name
        for name, each in nodes.items()
        if name != node.id and each.port and (each.address, each.port) in places
    }
