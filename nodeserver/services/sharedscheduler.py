"""`dispyscheduler` on a loop: the scheduler that a cluster embeds, with a door for many programs.

programs ◀── ClientDoor ──▶ SchedulerService ◀── ZmqLink ──▶ nodes
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nodeserver.core.events import PlacementsKnown
from nodeserver.core.nodefacts import ZOMBIE_SECONDS
from nodeserver.core.overview import Overview
from nodeserver.core.recoveryeffects import (
    ForgetComputation,
    ForgetUntold,
    RecordClosed,
    RecordComputation,
    RecordNode,
    RecordPlacements,
    RewritePlacements,
)
from nodeserver.core.scheduler import SchedulerCore
from nodeserver.io.driver import Driver, Performers
from nodeserver.io.health import HealthServer
from nodeserver.io.lookup import look_up
from nodeserver.io.schedulerstate import Place, SchedulerState
from nodeserver.services.clientdoor import ClientDoor, DoorOptions
from nodeserver.services.scheduler import SchedulerOptions, SchedulerService
from nodeserver.services.schedulerpages import SchedulerPages

SEARCH_INTERVAL = 5.0  # seconds between two questions to a node of `--nodes`: they do no harm
DRAIN_TIMEOUT = 60.0
# A connection that a program has made is better: both ends see at once when the other one dies.
SEEK_DELAY = 1.2  # in which programs come to where the scheduler was
WRITE_INTERVAL = 5.0  # between two tries to write what the disk had no room for
_LOOK_INTERVAL = 0.2  # whether everything has ended

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SharedOptions:
    """How a dispyscheduler was started."""

    name: str
    scheduler: SchedulerOptions  # towards nodes
    door: DoorOptions  # towards programs
    nodes: tuple[tuple[str, int], ...] = ()  # hosts that are asked for nodes, whatever programs ask
    most_cpus_per_client: int = 0  # 0: any number
    drain_timeout: float = DRAIN_TIMEOUT
    zombie_seconds: float = ZOMBIE_SECONDS  # without a word of a program that is gone
    directory: Path | None = None  # where the state is kept; None: nowhere
    health: tuple[str, int] | None = None  # where it can be watched by HTTP


class SharedSchedulerService:
    """A scheduler of many programs in this process, from start to stop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: SharedOptions) -> None:
        self._loop, self._options = loop, options
        self._stopped: asyncio.Future[str] = loop.create_future()
        self._closing = contextlib.ExitStack()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._state: SchedulerState | None = None
        self._missing: dict[int, Place] = {}  # programs of a scheduler of before, by computation
        self._unknown: set[str] = set()  # hosts of `--nodes`, which is said once
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
        closing.callback(self._close_state)  # behind everything that could give out a job
        is_tls = options.scheduler.certificate is not None
        core = SchedulerCore(is_tls, True, options.most_cpus_per_client, options.zombie_seconds)
        self._scheduler = SchedulerService(driver, options.scheduler, core, self._recording())
        closing.callback(self._leave_nodes)
        self._door = ClientDoor(driver, self._scheduler, options.door)
        closing.callback(self._door.close)
        port = self._door.listen()
        self._pages = SchedulerPages(options.name, self._scheduler, self._door)
        self.health_port = 0
        if options.health is not None:
            health = HealthServer(self._loop, self._pages.pages)
            closing.callback(health.close)
            self.health_port = health.listen(*options.health, '--health')
        closing.callback(self._stop_timers)
        if options.directory is not None:
            self._state = SchedulerState(options.directory)
        self._take_over()
        self._ask_for_nodes()
        self._write_again()
        return self._scheduler.port, port

    def stop(self, at_once: bool, reason: str) -> None:
        """Take no more programs, and end when all jobs have ended, or at once."""
        if at_once:
            self._end(reason)
        elif not self._reason:
            self._reason = self._pages.ending = reason
            self._door.admit_nobody(f'the scheduler at this place ends: {reason}')
            self._ends_at = self._loop.time() + self._options.drain_timeout
            self._look_for_end()

    def overview(self) -> Overview:
        """Count what there is to do."""
        return self._scheduler.overview()

    def status(self) -> list[str]:
        """Say in words what the scheduler does."""
        return self._pages.in_words()

    def status_as_json(self) -> str:
        """Say the same for programs."""
        return self._pages.as_json()

    async def run(self) -> str:
        """Serve until stopped; the reason of the end."""
        return await self._stopped

    def close(self) -> None:
        """End what was started, in the opposite order; also after a start that failed."""
        self._closing.close()

    def _close_state(self) -> None:
        if self._state is not None:
            self._state.close()

    def _leave_nodes(self) -> None:
        """Part from the nodes; those that have something of a program keep it for the next one."""
        is_missed = bool(self.overview().computations)
        if self._state is not None:  # it knows also those whose programs are away
            is_missed = is_missed or self._state.has_computations()
        self._scheduler.close('the scheduler has ended', comes_back=is_missed)

    def _look_for_end(self) -> None:
        seen = self.overview()
        unfinished = seen.waiting + seen.running
        if not unfinished:
            self._end(self._reason)
        elif self._loop.time() >= self._ends_at:
            words = f'{self._reason}; {unfinished} jobs that have not ended go on without it'
            self._end(words)
        else:
            self._later('end', _LOOK_INTERVAL, self._look_for_end)

    def _end(self, reason: str) -> None:
        if not self._stopped.done():
            self._stopped.set_result(reason)

    # nodes that no program has named

    def _ask_for_nodes(self) -> None:
        if self._options.nodes:
            self._later('nodes', SEARCH_INTERVAL, self._ask_for_nodes)
        for host, port in self._options.nodes:
            look_up(self._loop, host, partial(self._ask, host, port))

    def _ask(self, host: str, port: int, addresses: list[str]) -> None:
        if self._stopped.done():
            return
        if addresses:
            self._unknown.discard(host)
            self._scheduler.ask_for_nodes([(address, port) for address in addresses[:1]])
        elif host not in self._unknown:
            self._unknown.add(host)
            words = '--nodes: the address of %s is not known; it is looked up until it is'
            _log.warning(words, host)

    # what a scheduler of before has left

    def _recording(self) -> Performers:
        records: dict[type[Any], Callable[[SchedulerState, Any], None]] = {
            RecordNode: SchedulerState.node,
            RecordPlacements: SchedulerState.placements,
            RewritePlacements: SchedulerState.rewritten,
            ForgetComputation: SchedulerState.forgotten,
            RecordClosed: SchedulerState.closed,
            ForgetUntold: SchedulerState.told,
        }
        table = {kind: partial(self._write, record) for kind, record in records.items()}
        return {RecordComputation: self._declared, **table}

    def _write(self, record: Callable[[SchedulerState, Any], None], effect: Any) -> None:
        if self._state is not None:
            record(self._state, effect)

    def _take_over(self) -> None:
        """Tell the core of the computations of a scheduler of before, and seek their programs."""
        closings = self._state.closings() if self._state is not None else []
        found = self._state.take_over() if self._state is not None else []
        for closing in closings:
            self._scheduler.post(closing)
        for known in found:
            self._missing[known.computation] = known.place
            of = known.computation, known.token, known.epoch
            columns = known.places, known.ids, known.attempts
            self._scheduler.post(PlacementsKnown(*of, known.nodes, *columns, known.exclusive))
        if found:
            self._later('programs', SEEK_DELAY, self._seek_programs)
            computations = f'{len(found)} computation{"s" if found[1:] else ""}'
            words = 'the scheduler before this one had %s: waiting for the programs'
            _log.info(words, computations)
            self._later('missing', self._options.zombie_seconds, self._stop_seeking)

    def _seek_programs(self) -> None:
        """Connect to the programs that have not come by themselves: to them, this place is new."""
        for place in dict.fromkeys(self._missing.values()):
            self._door.seek(place)

    def _declared(self, effect: RecordComputation) -> None:
        """A program has declared a computation; one of before need not be sought any more."""
        declared = effect.declared
        if self._state is not None:
            self._state.computation(effect, self._door.place_of(effect.client, declared))
        place = self._missing.pop(declared.computation, None)
        if place is not None and place not in self._missing.values():
            self._door.found(place)

    def _stop_seeking(self) -> None:
        """Wait for programs that are gone, but call them no more: the core says how long."""
        for place in self._missing.values():
            self._door.found(place)
        self._missing.clear()

    def _write_again(self) -> None:
        if self._state is not None:
            self._state.try_again()
            self._later('state', WRITE_INTERVAL, self._write_again)

    # time

    def _later(self, what: str, seconds: float, act: Callable[[], None]) -> None:
        self._timers[what] = self._loop.call_later(seconds, act)

    def _stop_timers(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
