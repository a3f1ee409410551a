"""`dispyscheduler` on a loop: the scheduler that a cluster embeds, with a door for many programs.

programs ◀── ClientDoor ──▶ SchedulerService ◀── ZmqLink ──▶ nodes
"""

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from functools import partial

from nodeserver.core.overview import Overview, describe
from nodeserver.core.scheduler import SchedulerCore
from nodeserver.io.driver import Driver
from nodeserver.io.lookup import look_up
from nodeserver.services.clientdoor import ClientDoor, DoorOptions
from nodeserver.services.scheduler import SchedulerOptions, SchedulerService

SEARCH_INTERVAL = 5.0  # seconds between two questions to a node of `--nodes`: they do no harm
DRAIN_TIMEOUT = 60.0
_LOOK_INTERVAL = 0.2  # whether everything has ended

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SharedOptions:
    """How a dispyscheduler was started."""

    name: str
    scheduler: SchedulerOptions  # towards nodes
    door: DoorOptions  # towards programs
    nodes: tuple[tuple[str, int], ...] = ()  # hosts that are asked for nodes, whatever programs ask
    drain_timeout: float = DRAIN_TIMEOUT


class SharedSchedulerService:
    """A scheduler of many programs in this process, from start to stop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: SharedOptions) -> None:
        self._loop, self._options = loop, options
        self._stopped: asyncio.Future[str] = loop.create_future()
        self._closing = contextlib.ExitStack()
        self._search: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._ends_at = float('inf')
        self._reason = ''

    def start(self) -> tuple[int, int]:
        """Open sockets; the ports for nodes and for programs.

        Raises
        ------
        PortBusy
            A port that was given is taken, or that for programs.
        """
        options, closing = self._options, self._closing
        driver = Driver(self._loop)
        closing.callback(driver.close)
        core = SchedulerCore(is_tls=options.scheduler.certificate is not None)
        self._scheduler = SchedulerService(driver, options.scheduler, core)
        closing.callback(self._leave_nodes)
        self._door = ClientDoor(driver, self._scheduler, options.door)
        closing.callback(self._door.close)
        port = self._door.listen()
        closing.callback(self._stop_timers)
        self._ask_for_nodes()
        return self._scheduler.port, port

    def stop(self, at_once: bool, reason: str) -> None:
        """Take no more programs, and end when all jobs have ended, or at once."""
        if at_once:
            self._end(reason)
        elif not self._reason:
            self._reason = reason
            self._door.admit_nobody(f'the scheduler at this place ends: {reason}')
            self._ends_at = self._loop.time() + self._options.drain_timeout
            self._look_for_end()

    def overview(self) -> Overview:
        """Count what there is to do."""
        return self._scheduler.overview()

    def status(self) -> list[str]:
        """Say in words what the scheduler does."""
        return describe(self._options.name, self.overview(), len(self._door.addresses))

    async def run(self) -> str:
        """Serve until stopped; the reason of the end."""
        return await self._stopped

    def close(self) -> None:
        """End what was started, in the opposite order; also after a start that failed."""
        self._closing.close()

    def _leave_nodes(self) -> None:
        """Part from the nodes; those that have something of a program keep it for the next one."""
        has_programs = bool(self.overview().computations)
        self._scheduler.close('the scheduler has ended', comes_back=has_programs)

    def _look_for_end(self) -> None:
        unfinished = self.overview().unfinished
        if not unfinished:
            self._end(self._reason)
        elif self._loop.time() >= self._ends_at:
            words = f'{self._reason}; {unfinished} jobs that have not ended go on without it'
            self._end(words)
        else:
            self._look = self._loop.call_later(_LOOK_INTERVAL, self._look_for_end)

    def _end(self, reason: str) -> None:
        if not self._stopped.done():
            self._stopped.set_result(reason)

    # nodes that no program has named

    def _ask_for_nodes(self) -> None:
        if self._options.nodes:
            self._search = self._loop.call_later(SEARCH_INTERVAL, self._ask_for_nodes)
        for host, port in self._options.nodes:
            look_up(self._loop, host, partial(self._ask, port))

    def _ask(self, port: int, addresses: list[str]) -> None:
        if addresses and not self._stopped.done():
            self._scheduler.ask_for_nodes([(address, port) for address in addresses[:1]])

    def _stop_timers(self) -> None:
        for timer in (self._search, self._look):
            if timer is not None:
                timer.cancel()
