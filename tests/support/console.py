"""Commands that a page shows at the prompts of several machines, run on hosts of a test network.

    bigbox$ dispynode
    2026-11-20 18:40:11 INFO dispynode bigbox serving at *:51348 with 16 cpus
    laptop$ dispy key import dnk1-csay3stb3u...

A prompt names its machine.  Servers run until the block of the test ends; a text that the page cuts
short (`dnk1-csay3stb3u...`) is the one that a command before has written.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.support.machines import Machine
from tests.support.programs import Program

_PROMPT = re.compile(r'(\w+)\$ (.*)')
_CUT_SHORT = re.compile(r'\b(dnk1-)\w+\.\.\.')
_SERVERS = {'dispynode': 'serving', 'dispynetrelay': 'serving'}


class Step(NamedTuple):
    """A command at a machine's prompt, and the lines that the page shows below it."""

    machine: str
    command: str
    shown: tuple[str, ...]


def steps(text: str) -> Iterator[Step]:
    """Find the commands of all console blocks of a page, in their order."""
    for block in re.findall(r'```console\n(.*?)```', text, re.DOTALL):
        lines = [line.strip() for line in block.splitlines()]
        starts = [at for at, line in enumerate(lines) if _PROMPT.fullmatch(line)]
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            match = _PROMPT.fullmatch(lines[start])
            assert match is not None
            yield Step(match[1], match[2], tuple(lines[start + 1 : end]))


class Console:
    """Runs steps; what they start ends with the stack."""

    def __init__(self, machines: Mapping[str, Machine], stack: ExitStack) -> None:
        self._machines, self._stack = machines, stack
        self.written: list[str] = []
        self.servers: dict[str, Program] = {}
        self._env = {'PATH': f'{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin'}

    def run(self, step: Step) -> str:
        """Run a command at home to its end, or a server until it serves; what it has written."""
        machine = self._machines[step.machine]
        command = self._whole(step.command)
        program = step.command.split()[0]
        if program in _SERVERS:
            server = self._stack.enter_context(
                machine.program(
                    *('sh', '-c', f'cd {machine.home} && exec {command}'),
                    ready=_SERVERS[program],
                    env=self._env,
                )
            )
            self.servers[step.machine] = server
            return server.log()
        done = machine.host.run(
            ['sh', '-c', f'cd {machine.home} && {command}'],
            check=False,
            env={**machine.env, **self._env},
        )
        assert done.returncode == 0, f'{step.command}: {done.stderr}'
        self.written.append(done.stdout)
        return str(done.stdout)

    def _whole(self, command: str) -> str:
        """Write out what the page cuts short."""

        def found(match: re.Match[str]) -> str:
            words = [word for text in self.written for word in text.split()]
            return next(word for word in reversed(words) if word.startswith(match[1]))

        return _CUT_SHORT.sub(found, command)
