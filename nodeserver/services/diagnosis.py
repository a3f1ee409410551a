"""A node's answers to doctors: what it measures of itself, and whether the way back is open.

Diagnose ──▶ a datagram and a connection to the asker's own address ──▶ Diagnosis
"""

import asyncio
import contextlib
import ipaddress
import os
import platform
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from nodeserver.core.diagnosis import TOKEN_SIZE, Diagnosis, Reach
from nodeserver.core.effects import Diagnose
from nodeserver.core.errors import DispyError
from nodeserver.core.messages import Message
from nodeserver.distributions import installed
from nodeserver.io import keys
from nodeserver.io.datagrams import DatagramSocket, bind_address, family_of
from nodeserver.io.keys import Secret
from nodeserver.io.reaching import try_tcp
from nodeserver.io.sysinfo import platform_name

WAY_BACK_SECONDS: Final = 1.0
MOST_AT_ONCE: Final = 16  # of ways back that are tried; for more doctors there is no try


class Examined:
    """The node as the one who is examined."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        send: Callable[[str, Message], None],
        secret: Secret,
        directory: Path,
    ) -> None:
        self._loop, self._send, self._secret, self._directory = loop, send, secret, directory
        self._tasks: set[asyncio.Task[None]] = set()

    def answer(self, effect: Diagnose) -> None:
        """Look at everything, and send what was found."""
        if len(self._tasks) >= MOST_AT_ONCE:
            self._send(effect.peer, self._diagnosis(effect, Reach.UNTRIED))
            return
        task = self._loop.create_task(self._answer(effect))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Leave unanswered what is not answered yet."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _answer(self, effect: Diagnose) -> None:
        ask, address = effect.ask, effect.address
        back = Reach.UNTRIED
        if _is_address(address):  # not a local socket, and not whom this node has called itself
            self._send_token(address, ask.udp_port, ask.token[:TOKEN_SIZE])
            if _is_port(ask.tcp_port):
                back, _ = await try_tcp(address, ask.tcp_port, WAY_BACK_SECONDS)
        self._send(effect.peer, self._diagnosis(effect, back))

    def _send_token(self, address: str, port: int, token: bytes) -> None:
        if not _is_port(port) or not token:
            return
        with contextlib.suppress(OSError):  # no descriptor is left: it does not arrive
            here = '::' if family_of(address) == socket.AF_INET6 else ''
            sock = DatagramSocket(self._loop, lambda *what: None, (here, 0))
            try:
                sock.send(token, bind_address(address, port))
            finally:
                sock.close()

    def _diagnosis(self, effect: Diagnose, back: Reach) -> Diagnosis:
        size, free, files = self._disk()
        return Diagnosis(
            dispy_version(),
            platform.python_version(),
            platform_name(),
            time.time(),
            str(self._directory),
            free,
            size,
            files,
            effect.standing,
            effect.address,
            str(back),
            self._key_warnings(),
        )

    def _disk(self) -> tuple[int, int, int]:
        """Return size and free bytes of the disk, and how many files can still be made."""
        try:
            disk = os.statvfs(self._directory)
        except OSError:  # the directory is gone
            return 0, 0, -1
        files = disk.f_favail if disk.f_files else -1  # some file systems have no limit
        return disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize, files

    def _key_warnings(self) -> list[str]:
        """Compare the key that this node runs with to the one that it would be started with now."""
        if not self._secret.is_own:
            return []
        if not keys.key_path().exists():
            return ['its key file is gone: started anew, this node would make another key']
        try:
            if keys.own_key() == self._secret:
                return []
        except DispyError as error:
            return [f'it would not start again: {error}']
        return ['its key file has been replaced since it was started: start it anew']


def dispy_version() -> str:
    """Return the version of dispy-nb that runs here; '' if it is not installed."""
    found = installed().get('dispy_nb')
    return found.version if found else ''


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_port(number: int) -> bool:
    return 0 < number < 65536
