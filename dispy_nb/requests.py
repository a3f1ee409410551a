"""Questions of the user's threads to the scheduler, each of which waits for its answer.

user's thread ── RequestMade ──▶ ClusterCore ──▶ scheduler
user's thread ◀── SettleRequest ── ClusterCore ◀── RequestAnswered ── scheduler
"""

import concurrent.futures
import threading
from collections.abc import Callable

from nodeserver.core.fleetmessages import RequestAnswered

_LOOK_SECONDS = 1.0  # between looks whether anybody can still answer

Waiter = concurrent.futures.Future[RequestAnswered | None]


class Requests:
    """The questions of one cluster that are not answered yet."""

    def __init__(self, is_closed: Callable[[], bool]) -> None:
        self._is_closed = is_closed
        self._lock = threading.Lock()
        self._last = 0
        self._waiters: dict[int, Waiter] = {}

    def ask(self, post: Callable[[int], None]) -> RequestAnswered | None:
        """Post a question by its number, and wait; None: the cluster was closed meanwhile."""
        waiter: Waiter = concurrent.futures.Future()
        number = 0
        try:
            with self._lock:
                self._last = number = self._last + 1
                self._waiters[number] = waiter
                post(number)  # in here: questions leave in the order of their numbers
            while not self._is_closed():
                try:
                    return waiter.result(_LOOK_SECONDS)
                except TimeoutError:
                    continue
        finally:
            with self._lock:
                self._waiters.pop(number, None)
        return None

    def settle(self, answer: RequestAnswered) -> None:
        """Hand an answer to the thread that waits for it."""
        with self._lock:
            waiter = self._waiters.pop(answer.request, None)
        if waiter is not None:
            waiter.set_result(answer)

    def give_up(self) -> None:
        """Nobody answers any more."""
        with self._lock:
            waiters = list(self._waiters.values())
            self._waiters.clear()
        for waiter in waiters:
            waiter.set_result(None)
