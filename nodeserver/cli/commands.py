"""Commands on standard input: what whoever runs a node at a terminal can ask of it.

line ──▶ LineReader ──▶ NodeCommands ──▶ NodeService ──▶ NodeCore
"""

import asyncio
import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterable
from typing import Final

from nodeserver.core.errors import UsageError
from nodeserver.core.events import (
    CloseAsked,
)
from nodeserver.core.nodeevents import (
    CpusChosen,
    PauseAsked,
    ReleaseAsked,
)
from nodeserver.services.node import NodeService

BACKGROUND_PAUSE: Final = 1.0  # seconds between looks at a terminal that is somebody else's now
_LONGEST_LINE = 4096

HELP: Final = {
    'status': 'who holds the node, and what runs and waits',
    'cpus N': 'offer N processors from now on, as -c does; what runs goes on',
    'stop': 'take no more jobs until `start`; those that run go on, those that wait go back',
    'start': 'take jobs again',
    'release': 'take the node from its client once its running jobs have ended',
    'close': 'take the node from its client now; its running jobs are killed',
    'quit': 'take no more jobs and end after the running ones, as Ctrl-C does (also `exit`)',
    'terminate': 'end at once; running jobs are killed',
    'help': 'show this list',
}


class NodeCommands:
    """Does what a line says, and answers on standard output."""

    def __init__(self, service: NodeService, choose_cpus: Callable[[int], int]) -> None:
        self._service = service
        self._choose_cpus = choose_cpus
        self._table: dict[str, Callable[[], None]] = {
            'status': lambda: say(service.status()),
            'stop': lambda: service.tell(PauseAsked()),
            'start': lambda: service.tell(PauseAsked(ends=True)),
            'release': lambda: service.tell(ReleaseAsked()),
            'close': lambda: service.tell(CloseAsked()),
            'quit': lambda: service.stop(False, 'quit was entered'),
            'exit': lambda: service.stop(False, 'exit was entered'),
            'terminate': lambda: service.stop(True, 'terminate was entered'),
            'help': lambda: say(_help()),
        }

    def obey(self, line: str) -> None:
        """Do what the line says, or say what could be said instead."""
        words = line.split()
        if not words:
            return
        act = self._table.get(words[0].lower())
        if words[0].lower() == 'cpus':
            self._cpus(words[1:])
        elif act is None or words[1:]:
            say([f'{line.strip()!r} is not understood', *_help()])
        else:
            act()

    def _cpus(self, words: list[str]) -> None:
        try:
            cpus = self._choose_cpus(int(words[0]))
        except UsageError as error:
            say([str(error)])
        except (IndexError, ValueError):
            say(['`cpus` needs a whole number: `cpus 2`, or `cpus -1` to leave one free'])
        else:
            self._service.tell(CpusChosen(cpus))
            say([f'offering {cpus} {"cpu" if cpus == 1 else "cpus"}'])


def _help() -> list[str]:
    return [f'  {name:<10} {text}' for name, text in HELP.items()]


def say(lines: Iterable[str]) -> None:
    """Answer whoever entered a command, if anybody reads that."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(''.join(f'{line}\n' for line in lines))
        sys.stdout.flush()


class LineReader:
    """Reads lines from a terminal, pipe or socket as they come, and never waits for one."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, descriptor: int, obey: Callable[[str], None]
    ) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._obey = obey
        self._begun = b''  # of a line
        self._timer: asyncio.TimerHandle | None = None
        self._is_reading = False
        self._watch()

    def close(self) -> None:
        """Read no more; the descriptor stays open, as it is not ours."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._descriptor)

    def _watch(self) -> None:
        self._timer = None
        self._is_reading = True
        self._loop.add_reader(self._descriptor, self._readable)

    def _readable(self) -> None:
        if _is_another_programs(self._descriptor):
            # reading would stop us (SIGTTIN); what is typed is for whoever is in the foreground
            self.close()
            self._timer = self._loop.call_later(BACKGROUND_PAUSE, self._watch)
            return
        try:
            data = os.read(self._descriptor, _LONGEST_LINE)
        except BlockingIOError:
            return
        except OSError:  # the terminal is gone
            data = b''
        *lines, self._begun = (self._begun + data).split(b'\n')
        if not data:
            lines, self._begun = [self._begun], b''
            self.close()
        self._begun = self._begun[:_LONGEST_LINE]
        for line in lines:
            self._obey(line.decode(errors='replace'))


def _is_another_programs(descriptor: int) -> bool:
    """Whether this is our terminal, and another group of processes is in its foreground."""
    try:
        return os.tcgetpgrp(descriptor) != os.getpgrp()
    except OSError:  # no terminal, or not the one that controls us
        return False


def can_have_commands() -> bool:
    """Whether somebody may write commands to standard input: files and nothing are not read."""
    if sys.stdin is None:  # it was closed: what has its number now is something else
        return False
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(0)
