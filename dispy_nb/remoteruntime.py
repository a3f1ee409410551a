"""The loop thread of clusters whose scheduler is in another program.

user's threads ── outbox ──▶ loop thread: ClusterCore, RemoteScheduler ──▶ dispyscheduler
"""

import concurrent.futures
import contextlib
import secrets
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from dispy_nb import runtime
from dispy_nb.options import ClusterOptions
from dispy_nb.runtime import Runtime, Service, Trust
from dispy_nb.sharedoptions import SharedOptions
from nodeserver.core.errors import SchedulerRefused
from nodeserver.core.noderows import NodeList
from nodeserver.io.certificate import Certificate
from nodeserver.services.remotescheduler import ANSWER_LIMIT, RemoteOptions, RemoteScheduler

Answer = TypeVar('Answer')

GREETING_LIMIT = 2.0  # seconds that a new cluster waits to hear how it stands with its scheduler
_GRACE = 2.0  # for the loop, which has a time limit of its own for each question


class RemoteRuntime(Runtime):
    """One loop thread with the way to a scheduler on it."""

    def __init__(
        self,
        trust: Trust,
        certificate: Certificate | None,
        options: ClusterOptions,
        taken: Iterable[int] = (),
    ) -> None:
        assert isinstance(options, SharedOptions)
        self.place = self._at = options.place
        self._greeting: concurrent.futures.Future[None] = concurrent.futures.Future()
        super().__init__(trust, certificate, options, taken)

    def meet(self) -> None:
        """Wait a moment to hear how it stands with the scheduler.

        Raises
        ------
        SchedulerRefused
            It, or who answers in its place, turns this program away.
        """
        with contextlib.suppress(TimeoutError):  # it is said when that is known
            self._greeting.result(GREETING_LIMIT)
        refusal = self.call(self._way.refusal)
        if refusal:
            raise SchedulerRefused(refusal)

    def list_nodes(self) -> NodeList:
        """List the nodes that the scheduler has found for this program."""
        return self._asked(self._way.list_nodes)

    def _explain(self, computation: int) -> list[str]:
        return self._asked(lambda tell: self._way.explain(computation, tell))

    def _asked(self, ask: Callable[[Callable[[Answer], None]], None]) -> Answer:
        """Ask on the loop's thread, and wait for what is told there later."""
        answer: concurrent.futures.Future[Answer] = concurrent.futures.Future()
        self.call(lambda: ask(answer.set_result))
        return answer.result(ANSWER_LIMIT + _GRACE)

    def _make_service(self) -> Service:
        listening = self.ip_addr, self.port, self._is_port_given
        more: tuple[Any, ...] = self._certificate, tuple(self.ext_ip_addr or ())
        trusted = secrets.token_hex(16), self.trust.secret, self._at
        options = RemoteOptions(*trusted, *listening, *more)
        self._way = RemoteScheduler(self._driver, options, self._greeted)
        return self._way

    def _greeted(self) -> None:
        if not self._greeting.done():
            self._greeting.set_result(None)


def acquire(options: SharedOptions, alone: bool = False) -> Runtime:
    """Return the runtime for a new cluster whose scheduler is elsewhere.

    Raises
    ------
    SchedulerRefused
        The scheduler turns this program away.
    PortBusy
        Another program has the `port` that was given.
    UsageError
        Open clusters of this program wait for the same scheduler at another place.
    """
    acquired = runtime.acquire_kind(RemoteRuntime, options, options.place, alone)
    try:
        acquired.meet()
    except BaseException:
        runtime.release(acquired)
        raise
    return acquired
