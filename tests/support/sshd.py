"""A real ssh server on a host of a test network, and tunnels to it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.machines import Machine
from tests.support.programs import eventually


@dataclass(frozen=True)
class SshServer:
    """Where it listens, and what whoever may log in needs."""

    machine: Machine
    port: int
    directory: Path


def _tool(name: str) -> str:
    """Find a program; one that CI forgot to install is a failure, elsewhere the test is skipped."""
    found = shutil.which(name, path=f'{os.environ["PATH"]}:/usr/sbin')
    if found is None:
        words = f'no {name!r} command (openssh-server, openssh-client)'
        if os.environ.get('CI') == 'true':
            pytest.fail(f'{words}: install it', pytrace=False)
        pytest.skip(words)
    return found


@contextmanager
def ssh_server(machine: Machine, port: int) -> Iterator[SshServer]:
    """Run a server with keys of its own."""
    server, directory = _tool('sshd'), machine.home / 'ssh'
    directory.mkdir(mode=0o700)
    Path('/run/sshd').mkdir(exist_ok=True)  # it separates its privileges there
    for name in ('key', 'hostkey'):
        words = [_tool('ssh-keygen'), '-q', '-t', 'ed25519', '-N', '', '-f', directory / name]
        subprocess.run(words, check=True)
    shutil.copy(directory / 'key.pub', directory / 'authorized')
    options = {
        'Port': port,
        'ListenAddress': machine.ip,
        'HostKey': directory / 'hostkey',
        'AuthorizedKeysFile': directory / 'authorized',
        'PidFile': 'none',
        'StrictModes': 'no',
        'UsePAM': 'no',
        'PasswordAuthentication': 'no',
    }
    words = [word for name, value in options.items() for word in ('-o', f'{name}={value}')]
    with machine.program(server, '-D', '-e', '-f', '/dev/null', *words, ready='Server listening'):
        yield SshServer(machine, port, directory)


@contextmanager
def forwarding(client: Machine, server: SshServer, kind: str, ports: str) -> Iterator[None]:
    """Forward ports as `ssh -R` or `ssh -L` does, until the block ends."""
    host, directory = f'[{server.machine.ip}]:{server.port}', server.directory
    if server.port == 22:
        host = server.machine.ip
    known = directory / 'known'
    known.write_text(f'{host} {(directory / "hostkey.pub").read_text()}')
    options = {
        'BatchMode': 'yes',
        'IdentitiesOnly': 'yes',
        'UserKnownHostsFile': known,
        'StrictHostKeyChecking': 'yes',
        'ExitOnForwardFailure': 'yes',
    }
    words = [word for name, value in options.items() for word in ('-o', f'{name}={value}')]
    login = ['-p', server.port, '-i', directory / 'key', server.machine.ip]
    command = [_tool('ssh'), '-v', '-F', '/dev/null', *words, '-N', f'-{kind}', ports, *login]
    with client.program(*command) as running:
        eventually(lambda: 'remote forward success' in running.log(), 10, running.log)
        yield
