"""Hosts of a test network as their users see them: each with a home, and so a key, of its own."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.support.netns import Host
from tests.support.programs import Program, client_program, node_program, program


class Machine:
    """A host, and the home of whoever works there."""

    def __init__(self, host: Host, home: Path) -> None:
        self.host, self.home = host, home
        self.wrapper: list[str] = []  # words that go before each command there
        for name in ('.config', 'run', 'tmp'):
            (home / name).mkdir(mode=0o700, parents=True)
        self.env = {
            'HOME': str(home),
            'XDG_CONFIG_HOME': str(home / '.config'),
            'XDG_RUNTIME_DIR': str(home / 'run'),
            'TMPDIR': str(home / 'tmp'),
        }

    @property
    def within(self) -> list[str]:
        """Words that run a command there."""
        return [*self.host.command([]), *self.wrapper]

    def knows(self, **names: str) -> None:
        """Give programs there these host names, each with its address, and no others.

        Those that run already see a change, if the host knew some names when they were started.
        """
        lines = ['127.0.0.1 localhost', *(f'{address} {name}' for name, address in names.items())]
        directory = self.home / 'etc'
        directory.mkdir(exist_ok=True)
        (directory / 'hosts').write_text('\n'.join(lines) + '\n', encoding='ascii')
        # nobody answers there, at once: other names are unknown without waiting for a server
        (directory / 'resolv.conf').write_text('nameserver 127.0.0.1\n', encoding='ascii')
        self.host.names = str(directory)

    @property
    def ip(self) -> str:
        """The IPv4 address."""
        return str(self.host.ip)

    def node(
        self, *options: object, env: Mapping[str, str] | None = None
    ) -> AbstractContextManager[Program]:
        """Run `dispynode` there; the block begins when it serves."""
        return node_program(*options, env={**self.env, **(env or {})}, within=self.within)

    def program(
        self, *command: object, ready: str = '', env: Mapping[str, str] | None = None
    ) -> AbstractContextManager[Program]:
        """Run any program there; the block begins when its log contains `ready`."""
        return program(*self.within, *command, ready=ready, env={**self.env, **(env or {})})

    def client(
        self,
        source: str,
        timeout: float = 30,
        env: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> 'subprocess.CompletedProcess[str]':
        """Run a script there to its end."""
        env = {**self.env, **(env or {})}
        return client_program(source, timeout, env, check, self.within)

    def dispy(self, *words: str, text: str = '') -> 'subprocess.CompletedProcess[str]':
        """Run the `dispy` command there, with this text as its standard input."""
        return self.host.run(
            [sys.executable, '-m', 'dispy_nb', *words],
            check=False,
            input=text,
            env={**subprocess_environment(), **self.env},
        )

    def trust(self, other: 'Machine') -> None:
        """Carry the key of another machine over, as the README says: with one copied line."""
        self.import_key(other.dispy('key', 'export').stdout)

    def import_key(self, line: str) -> None:
        """Take over the key that another machine has written in this line."""
        done = self.dispy('key', 'import', '--replace', text=line)
        assert done.returncode == 0, done.stderr


def subprocess_environment() -> dict[str, str]:
    """What of this process's environment a program on another machine would have too."""
    names = ('PATH', 'LANG', 'PYTHONPATH')
    return {name: os.environ[name] for name in names if name in os.environ}


@contextmanager
def machines(*hosts: Host, same_key: bool = True) -> Iterator[list[Machine]]:
    """Give each host a home; with `same_key`, all trust the first, as one user's machines do."""
    root = Path(tempfile.mkdtemp(prefix='dnm', dir='/tmp'))  # short: socket paths end at 107
    try:
        made = [Machine(host, root / str(host.label)) for host in hosts]
        if same_key and made[1:]:
            line = made[0].dispy('key', 'export').stdout
            with ThreadPoolExecutor(len(made)) as pool:
                list(pool.map(lambda machine: machine.import_key(line), made[1:]))
        yield made
    finally:
        shutil.rmtree(root)
