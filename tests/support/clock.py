"""A clock that moves only when a test says so."""


class Clock:
    """Stands where code takes a time source; `clock()` and `clock.now` are the same moment."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Answer the current moment, as `time.monotonic` does."""
        return self.now

    def advance(self, seconds: float) -> float:
        """Let time pass; it never runs backwards."""
        if seconds < 0:
            raise ValueError(f'time cannot go back by {-seconds} s')
        self.now += seconds
        return self.now
