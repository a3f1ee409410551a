"""Schedulers that nothing is heard of: after a long time they are taken for dead."""

from math import inf

from nodeserver.core.nodefacts import Peer


class Silence:
    """Looks at peers when the one that was silent longest may have been so for too long."""

    def __init__(self, peers: dict[str, Peer], limit: float) -> None:
        self._peers = peers
        self._limit = limit
        self._look_at = inf

    @property
    def words(self) -> str:
        """What is said of a scheduler that is given up."""
        minutes = f'{self._limit / 60:.4g}'
        return f'nothing was heard of it for {minutes} minute' + ('' if minutes == '1' else 's')

    def deadline(self) -> float:
        """When to look next."""
        return self._look_at if self._peers else inf

    def begins(self, now: float) -> None:
        """A peer has connected."""
        self._look_at = min(self._look_at, now + self._limit)

    def too_long(self, now: float) -> list[str]:
        """Who was silent for too long; the next look is when somebody else may have been."""
        if now < self._look_at:
            return []
        heard = {name: peer.heard_at for name, peer in self._peers.items()}
        dead = [name for name, moment in heard.items() if moment + self._limit <= now]
        alive = [moment for name, moment in heard.items() if name not in dead]
        self._look_at = min(alive, default=inf) + self._limit
        return dead
