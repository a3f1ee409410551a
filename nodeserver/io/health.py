"""Whether a server works, for those who watch it: a few pages by HTTP, when asked to (Z16).

    connection ─▶ request, small and soon ─▶ a page ─▶ closed
         └── too many: the oldest one is closed for a new one

It is for machines and answers nothing but GET.  Slow clients cost a few hundred bytes each, for a
few seconds, and never keep others out.
"""

import asyncio
import errno
import logging
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from nodeserver.core.errors import PortBusy, UsageError
from nodeserver.io.acceptor import Acceptor
from nodeserver.io.netif import is_address
from nodeserver.io.zmqlisten import open_listening, stop_keeping_from_forks

LARGEST_REQUEST: Final = 4096
MOST_CONNECTIONS: Final = 64
PATIENCE: Final = 5.0  # seconds for the whole conversation
_ADVICE: Final = 'or leave it out to have no such pages'
_PORT: Final = re.compile(r':\d+$')
_REASONS: Final = {
    200: 'OK',
    400: 'Bad Request',
    403: 'Forbidden',
    404: 'Not Found',
    405: 'Method Not Allowed',
    431: 'Request Header Fields Too Large',
    500: 'Internal Server Error',
    503: 'Service Unavailable',
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a page says."""

    text: str
    status: int = 200
    kind: str = 'text/plain; charset=utf-8'


@dataclass(frozen=True, slots=True)
class Page:
    """One page; a private one says whose jobs run, which no page of the web may read."""

    make: Callable[[], Answer]
    is_private: bool = False


class HealthServer:
    """Answers at one address and port until it is closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pages: Mapping[str, Page]) -> None:
        self.loop = loop
        self._pages = pages
        self._open: dict[_Conversation, None] = {}  # the oldest first
        self._acceptor: Acceptor | None = None
        self._fd = -1

    def listen(self, address: str, port: int, option: str) -> int:
        """Begin to answer; the port.

        Raises
        ------
        PortBusy
            Another program has it.
        UsageError
            This machine has no such address, or this user may not use the port.
        """
        try:
            self._fd, bound = open_listening(address, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortBusy(port, address, option, _ADVICE) from error
            raise UsageError(f'{option} {address}, port {port}: {error.strerror}') from error
        self._acceptor = Acceptor(self.loop, socket.socket(fileno=self._fd), self._accepted)
        return bound

    def close(self) -> None:
        """Stop answering."""
        if self._acceptor is not None:
            stop_keeping_from_forks(self._fd)
            self._acceptor.close()
        for conversation in list(self._open):
            conversation.close()

    def _accepted(self, sock: socket.socket, where: object) -> None:
        self._open[_Conversation(self, sock)] = None
        if len(self._open) > MOST_CONNECTIONS:
            next(iter(self._open)).close()

    def ended(self, conversation: '_Conversation') -> None:
        """Count a connection out."""
        self._open.pop(conversation, None)

    def answer(self, request: bytes) -> Answer:
        """Answer a request that is complete."""
        line, *fields = request.decode('latin-1').split('\r\n')
        words = line.split(' ')
        if len(words) != 3 or not words[2].startswith('HTTP/1.'):
            return Answer('not a request of HTTP/1.1\n', 400)
        if words[0] not in ('GET', 'HEAD'):
            return Answer('GET only\n', 405)
        page = self._pages.get(words[1].partition('?')[0])
        if page is None:
            return Answer(f'pages: {" ".join(self._pages)}\n', 404)
        if page.is_private and not _is_plain_host(fields):
            return Answer('give an address or localhost as the host\n', 403)
        try:
            return page.make()
        except Exception:  # noqa: BLE001
            # a fault of ours must not end the server, and is no news for whoever asks
            _log.exception('the page %s could not be made', words[1][:100])
            return Answer('this page could not be made; the log says more\n', 500)


class _Conversation:
    """One connection: a request, an answer, the end."""

    def __init__(self, server: HealthServer, sock: socket.socket) -> None:
        self._server, self._loop, self._sock = server, server.loop, sock
        self._read = b''
        self._unsent = b''
        self._is_answered = False
        sock.setblocking(False)
        self._timer = self._loop.call_later(PATIENCE, self.close)
        self._loop.add_reader(sock, self._readable)

    def close(self) -> None:
        """End it, whatever it has come to."""
        self._server.ended(self)
        self._timer.cancel()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()

    def _readable(self) -> None:
        try:
            data = self._sock.recv(LARGEST_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            data = b''
        if not data:
            self.close()
        elif not self._is_answered:
            self._take(data)

    def _take(self, data: bytes) -> None:
        self._read += data
        head, end, _ = self._read.partition(b'\r\n\r\n')
        if len(head) > LARGEST_REQUEST:
            self._say(Answer('the request is too large\n', 431))
        elif end:
            self._say(self._server.answer(head), is_head=head.startswith(b'HEAD '))

    def _say(self, answer: Answer, is_head: bool = False) -> None:
        self._is_answered, self._read = True, b''
        body = answer.text.encode()
        head = (
            f'HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\n'
            f'Content-Type: {answer.kind}\r\nContent-Length: {len(body)}\r\n'
            'Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n'
            'Connection: close\r\n\r\n'
        )
        self._unsent = head.encode('ascii') + (b'' if is_head else body)
        self._loop.add_writer(self._sock, self._writable)

    def _writable(self) -> None:
        try:
            self._unsent = self._unsent[self._sock.send(self._unsent) :]
            if not self._unsent:
                self._loop.remove_writer(self._sock)
                self._sock.shutdown(socket.SHUT_WR)  # what it still sends is read, or it would
        except BlockingIOError:  # be told of a broken connection before it has read this
            pass
        except OSError:
            self.close()


def _is_plain_host(fields: list[str]) -> bool:
    """Whether a request names no host of its own choosing, as a page of the web could have it."""
    hosts = [field[5:].strip() for field in fields if field[:5].lower() == 'host:']
    host = _PORT.sub('', hosts[0]) if len(hosts) == 1 else ''
    return host == 'localhost' or is_address(host.strip('[]'))


# figures, as Prometheus reads them


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure, or several that differ by a label."""

    name: str
    kind: str  # 'gauge' or 'counter'
    words: str
    values: Mapping[str, float]  # by the label's value; '': no label
    label: str = ''


def metrics(figures: list[Figure]) -> Answer:
    """Write figures in the text format of Prometheus, version 0.0.4."""
    lines = []
    for figure in figures:
        lines.append(f'# HELP {figure.name} {figure.words}')
        lines.append(f'# TYPE {figure.name} {figure.kind}')
        for value, number in figure.values.items():
            label = f'{{{figure.label}="{value}"}}' if figure.label else ''
            lines.append(f'{figure.name}{label} {number:.15g}')
    return Answer('\n'.join(lines) + '\n', kind='text/plain; version=0.0.4; charset=utf-8')
