"""What a cluster says of a scheduler that is in another program, and away."""

from math import inf

from nodeserver.core import levels
from nodeserver.core.clientevents import SchedulerMissed
from nodeserver.core.effects import Effect, Report, TakeBackNotice
from nodeserver.core.explain import KEY_ADVICE

SAY_INTERVAL = 60.0
SAY_OTHER_INTERVAL = 10.0  # where there is another reason than was said last
_NOT_YET = 'it has not answered yet'


class Missing:
    """Knows why the scheduler is away, and when people are to be told of it."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._event: SchedulerMissed | None = None
        self._reason = _NOT_YET
        self._said = ''
        self._said_at = -inf

    def lost(self, reason: str, now: float) -> list[Effect]:
        """It was here until now."""
        self._event, self._reason = None, reason
        text = f'the scheduler is gone: {reason}; jobs go on, and it is waited for'
        return self._say(text, text, now)

    def missed(self, event: SchedulerMissed, now: float) -> list[Effect]:
        """It was tried in vain."""
        self._event, self._reason = event, event.reason
        return self._say('; '.join(self.words()), event.reason, now)

    def closing(self) -> list[Effect]:
        """The cluster is closed, of which it cannot be told."""
        text = (
            f'{self._title}: the scheduler is away ({self._reason}): it is waited for some '
            'seconds, to be told that the cluster is closed; else what nodes keep of it goes '
            'later, by itself'
        )
        return [Report(levels.WARNING, text)]

    def found(self, place: str, is_back: bool) -> list[Effect]:
        """It is here; whatever was said of it is over."""
        again = ' again' if is_back else ''
        text = f'{self._title}: connected{again} to the scheduler at {place or "this machine"}'
        effects: list[Effect] = [Report(levels.INFO, text)]
        return effects + self.mended()

    def mended(self) -> list[Effect]:
        """Nothing is wrong any more."""
        said, self._said, self._event = self._said, '', None
        return [TakeBackNotice()] if said else []

    def words(self) -> list[str]:
        """Say why it is away, and what to do."""
        event = self._event
        if event is None:
            return [f'the scheduler cannot be asked now: {self._reason}']
        if event.is_refusal:
            return refused_in_words(event)
        return [
            f'no dispyscheduler answers at {event.place}: {event.reason}',
            'it is tried until one does: start `dispyscheduler` there, or give its machine as '
            'scheduler_node and its port as scheduler_port',
        ]

    @property
    def reason(self) -> str:
        """Why a request cannot be answered, in words."""
        return f'the scheduler cannot be reached now: {self._reason}'

    def _say(self, text: str, reason: str, now: float) -> list[Effect]:
        pause = SAY_INTERVAL if reason == self._said else SAY_OTHER_INTERVAL
        if now - self._said_at < pause:
            return []
        self._said, self._said_at = reason, now
        return [Report(levels.WARNING, f'{self._title}: {text}')]


def refused_in_words(event: SchedulerMissed) -> list[str]:
    """Say that a scheduler turns us away, or who answers in its place; and what to do."""
    lines = [f'the program at {event.place} cannot be used as scheduler: {event.reason}']
    return [*lines, KEY_ADVICE] if 'another key' in event.reason else lines
