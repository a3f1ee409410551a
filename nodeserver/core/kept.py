"""What a node keeps of computations whose clients may be gone: letters in its spool, by number.

    Hosted.letters ──▶ KeepLetters ──▶ spool ──▶ SendKept ──▶ acknowledged ──▶ ForgetLetters
                                                              the last of all ──▶ ForgetKept

Whoever shows the computation's token gets them.  They outlive the template, and the node.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from math import inf

from nodeserver.core import levels
from nodeserver.core.effects import Effect, Report
from nodeserver.core.hosted import Hosted
from nodeserver.core.messages import OpenComputation
from nodeserver.core.nodeevents import KeptFound
from nodeserver.core.recoveryeffects import ForgetKept, ForgetLetters, KeepComputation, KeepLetters

MOST_KEPT = 1000  # computations; the oldest give way
MOST_SECONDS = 30 * 86400.0  # that something is kept for somebody who does not come
# and so long at least after a start: the age is by two clocks on the wall, which may be wrong
LEAST_SECONDS = 7 * 86400.0


class Kept:
    """What is kept of one computation."""

    __slots__ = (
        'expires_at',
        'formerly',
        'holder',
        'is_claimed',
        'is_on_disk',
        'letters',
        'opened',
        'returned',
        'since',
        'unwanted_by',
    )

    def __init__(self, opened: OpenComputation, holder: str, since: float) -> None:
        self.opened = replace(opened, package=b'', setup_args=b'', manifest=b'')
        self.holder = holder  # the scheduler that had it last
        self.is_claimed = False  # by it, and over the connection that still stands
        self.unwanted_by = ''  # through which its client has closed it: it goes with `holder`
        self.since = since
        self.expires_at = since + MOST_SECONDS
        self.letters: dict[int, int] = {}  # number -> how many jobs
        self.returned: dict[int, int] = {}  # job -> attempt that will not run here
        self.formerly: tuple[str, ...] = ()
        self.is_on_disk = False

    @property
    def outcomes(self) -> int:
        """How many jobs have ended."""
        return sum(self.letters.values())

    @property
    def words(self) -> str:
        """What there is to say of it."""
        return f'keeps {self.what}'

    @property
    def what(self) -> str:
        """What is kept, and for whom."""
        outcomes = _count(self.outcomes, 'outcome')
        return f'{outcomes} of {self.opened.name} for {self.opened.owner}'


class Shelf:
    """All that a node keeps."""

    def __init__(self, emit: Callable[[Effect], None]) -> None:
        self._emit = emit
        self._kept: dict[int, Kept] = {}  # the oldest first
        self._expires_at = inf  # when the first of them may have been kept for too long
        # no number is given twice, however often a computation comes back: a client that has
        # a letter of that number would take the new one for it
        self.last_letter = 0

    def get(self, computation: int) -> Kept | None:
        """What is kept of a computation, if there is something."""
        return self._kept.get(computation)

    def __len__(self) -> int:
        return len(self._kept)

    # coming

    def store(self, hosted: Hosted, now: float) -> None:
        """Have the letters of a computation kept that nobody has acknowledged."""
        if not hosted.letters:
            return
        kept = self._place(hosted, now)
        letters = list(hosted.letters.values())
        hosted.letters.clear()
        if not kept.is_on_disk:
            kept.is_on_disk = True
            self._emit(KeepComputation(kept.opened))
        kept.letters.update((letter.letter, len(letter.ids)) for letter in letters)
        self._emit(KeepLetters(hosted.id, letters))

    def retire(self, hosted: Hosted, now: float) -> None:
        """Nothing of a computation runs any more: what it leaves behind is kept."""
        self.store(hosted, now)
        if hosted.returned:
            self._place(hosted, now).returned.update(hosted.returned)
            hosted.returned = {}

    def found(self, event: KeptFound, now: float) -> None:
        """An earlier run of this node has left something."""
        computation = event.opened.computation
        kept = Kept(event.opened, '', now - event.age)
        kept.expires_at = max(kept.expires_at, now + LEAST_SECONDS)
        kept.is_on_disk = True
        kept.formerly = event.formerly
        kept.letters.update(zip(event.letters, event.jobs, strict=True))
        self.last_letter = max(self.last_letter, *event.letters, 0)
        self._kept[computation] = kept
        if kept.letters:
            text = f'this node {kept.words}, first kept {_ago(event.age)}'
            self._emit(Report(levels.INFO, text))
        self._expires_at = min(self._expires_at, kept.expires_at)
        self._tidy(computation)
        self._bound()

    def _place(self, hosted: Hosted, now: float) -> Kept:
        kept = self._kept.get(hosted.id)
        if kept is None:
            kept = self._kept[hosted.id] = Kept(hosted.opened, hosted.scheduler, now)
            kept.formerly = hosted.formerly
            self._expires_at = min(self._expires_at, now + MOST_SECONDS)
            self._bound()
        kept.holder, kept.is_claimed = hosted.scheduler, not hosted.orphaned
        kept.unwanted_by = hosted.unwanted_by
        return kept

    def _bound(self) -> None:
        """Let the oldest go where there are too many."""
        if len(self._kept) > MOST_KEPT:
            oldest = next(iter(self._kept))
            self._drop(oldest, f'outcomes of no more than {MOST_KEPT} computations are kept')

    def _drop(self, computation: int, reason: str) -> None:
        kept = self._kept[computation]
        text = f'{kept.what} are dropped: {reason}'
        self._emit(Report(levels.WARNING, text))
        self.forget(computation)

    # time

    def deadline(self) -> float:
        """When something may have been kept for too long."""
        return self._expires_at

    def expire(self, now: float) -> None:
        """Drop what nobody has come for; what a scheduler that is here has taken over stays."""
        if now < self._expires_at:
            return
        for computation, kept in list(self._kept.items()):
            if now >= kept.expires_at:
                if kept.is_claimed:
                    kept.since, kept.expires_at = now, now + MOST_SECONDS
                else:
                    self._drop(computation, f'nobody came for it in {_ago(MOST_SECONDS)[:-4]}')
        self._expires_at = min((k.expires_at for k in self._kept.values()), default=inf)

    # going

    def of(self, peer: str) -> list[Kept]:
        """All that this scheduler has, or had last."""
        return [kept for kept in self._kept.values() if kept.holder == peer]

    def held_by(self, peer: str, computation: int) -> Kept | None:
        """What is kept of a computation, if this is the scheduler that has it, or had it last."""
        kept = self._kept.get(computation)
        return kept if kept is not None and kept.holder == peer else None

    def acknowledged(self, peer: str, computation: int, letters: Collection[int]) -> None:
        """These have arrived; once all have, nothing is kept."""
        kept = self.held_by(peer, computation)
        if kept is not None:
            gone = [letter for letter in letters if kept.letters.pop(letter, None) is not None]
            if gone and kept.letters:
                self._emit(ForgetLetters(computation, gone))
            self._tidy(computation)

    def handed_over(self, computation: int) -> None:
        """A scheduler was told of everything: what is not in letters need not be kept."""
        kept = self._kept.get(computation)
        if kept is not None:
            kept.returned.clear()
            self._tidy(computation)

    def _tidy(self, computation: int) -> None:
        kept = self._kept[computation]
        if not (kept.letters or kept.returned):
            self.forget(computation)

    def forget(self, computation: int) -> None:
        """Keep nothing of a computation any more."""
        kept = self._kept.pop(computation, None)
        if kept is not None and kept.is_on_disk:
            self._emit(ForgetKept(computation))

    # telling

    def awaits(self, peers: Collection[str]) -> bool:
        """Whether one of these schedulers is about to acknowledge something."""
        return any(kept.letters and kept.holder in peers for kept in self._kept.values())

    def lines(self, now: float) -> list[str]:
        """Say what is kept, for whom and for how long."""
        return [
            f'{kept.words}, first kept {_ago(now - kept.since)}'
            for kept in self._kept.values()
            if kept.letters
        ]


def _count(number: int, thing: str) -> str:
    return f'{number} {thing}' if number == 1 else f'{number} {thing}s'


def _ago(seconds: float) -> str:
    for size, unit in ((86400.0, 'day'), (3600.0, 'hour'), (60.0, 'minute')):
        if seconds >= size:
            return f'{_count(int(seconds / size), unit)} ago'
    return 'less than a minute ago'
