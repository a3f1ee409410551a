"""Commands on standard input of `dispyscheduler`: what is done, and its end."""

from collections.abc import Callable
from typing import Final

from nodeserver.cli.commands import say
from nodeserver.services.sharedscheduler import SharedSchedulerService

HELP: Final = {
    'status': 'which programs are here, what runs and waits, and which nodes there are',
    'status json': 'the same as one line of JSON',
    'quit': 'take no more programs, end once no job runs or waits, as Ctrl-C does (also `exit`)',
    'terminate': 'end at once; jobs go on at the nodes, programs wait for the next scheduler',
    'help': 'show this list',
}


class SchedulerCommands:
    """Does what a line says, and answers on standard output."""

    def __init__(self, service: SharedSchedulerService) -> None:
        self._table: dict[str, Callable[[], None]] = {
            'status': lambda: say(service.status()),
            'status json': lambda: say([service.status_as_json().strip()]),
            'quit': lambda: service.stop(False, 'quit was entered'),
            'exit': lambda: service.stop(False, 'exit was entered'),
            'terminate': lambda: service.stop(True, 'terminate was entered'),
            'help': lambda: say(_help()),
        }

    def obey(self, line: str) -> None:
        """Do what the line says, or say what could be said instead."""
        words = ' '.join(line.lower().split())
        act = self._table.get(words)
        if act is not None:
            act()
        elif words:
            say([f'{line.strip()!r} is not understood', *_help()])


def _help() -> list[str]:
    return [f'  {name:<12} {text}' for name, text in HELP.items()]
