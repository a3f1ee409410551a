"""Letters of the spool on their way to schedulers, some at a time: memory holds no more of them.

    begin ──▶ SendKept: the first ones ──▶ KeptSent ──▶ SendKept: the next ... ──▶ what waits behind

What is told of a computation meanwhile must not arrive before its letters, but for that they come.
"""

from collections.abc import Callable, Iterable
from itertools import islice

from nodeserver.core.effects import Effect, Send
from nodeserver.core.kept import Shelf
from nodeserver.core.nodeevents import KeptSent
from nodeserver.core.recoveryeffects import SendKept
from nodeserver.core.recoverymessages import HandoverBegun

MOST_AT_ONCE = 1000  # letters that one effect names; how much of them fits is for the spool to say


class _Run:
    """The letters of one computation that go to one scheduler."""

    __slots__ = ('again', 'behind', 'letters')

    def __init__(self) -> None:
        self.letters: dict[int, None] = {}  # that are yet to be sent, by number
        # asked for since the last ones went out: those among them may have come too early
        self.again: set[int] = set()
        self.behind: list[Effect] = []


class Resending:
    """Sends letters that are kept, in their order and that of all else that is told."""

    def __init__(self, shelf: Shelf, emit: Callable[[Effect], None]) -> None:
        self._shelf, self._emit = shelf, emit
        self._runs: dict[tuple[str, int], _Run] = {}  # by scheduler and computation

    def begin(self, peer: str, computation: int, letters: Iterable[int]) -> None:
        """Send these; what is told of the computation from now on follows them."""
        run = self._runs.get((peer, computation))
        if run is not None:
            run.again.update(letters)
            run.letters.update(dict.fromkeys(letters))
            return
        run = self._runs[peer, computation] = _Run()
        run.letters.update(dict.fromkeys(letters))
        self._go_on(peer, computation, run)

    def sent(self, event: KeptSent, now: float) -> None:
        """The spool has handed letters over, and the link has sent them."""
        run = self._runs.get((event.peer, event.computation))
        if run is not None:
            for letter in event.letters:
                if letter not in run.again:
                    run.letters.pop(letter, None)
            run.again.clear()
            self._go_on(event.peer, event.computation, run)

    def _go_on(self, peer: str, computation: int, run: _Run) -> None:
        kept = self._shelf.held_by(peer, computation)
        wanted = kept.letters if kept is not None else {}  # others have it now, or have all
        run.letters = {letter: None for letter in run.letters if letter in wanted}
        if run.letters:
            self._emit(SendKept(peer, computation, [*islice(run.letters, MOST_AT_ONCE)]))
        else:
            del self._runs[peer, computation]
            for effect in run.behind:
                self._emit(effect)

    def peer_lost(self, peer: str) -> None:
        """Nothing reaches it any more."""
        for key in [key for key in self._runs if key[0] == peer]:
            del self._runs[key]

    def in_order(self, effects: list[Effect]) -> list[Effect]:
        """Keep back what has to wait."""
        return [effect for effect in effects if not self._waits(effect)] if self._runs else effects

    def _waits(self, effect: Effect) -> bool:
        if not isinstance(effect, Send) or isinstance(effect.message, HandoverBegun):
            return False
        run = self._runs.get((effect.peer, getattr(effect.message, 'computation', 0)))
        if run is not None:
            run.behind.append(effect)
        return run is not None
