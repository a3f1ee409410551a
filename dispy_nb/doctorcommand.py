"""`dispy doctor`: what keeps this machine and its nodes from working together, and what to do.

It looks at this machine, at every node that answers on the local network, and at each HOST named,
and asks the nodes how they see this machine.  Nothing is changed anywhere.
"""

import argparse
import asyncio
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, Final

from dispy_nb.doctor.examination import examine
from dispy_nb.doctor.facts import Order
from dispy_nb.doctor.findings import (
    Fault,
    Finding,
    as_json,
    exit_status,
    printable,
    summary,
)
from dispy_nb.doctor.machine import Credentials
from nodeserver.cli.options import (
    add_certificate_options,
    add_option,
    add_secret_options,
    hint_at_secret_file,
    port_to_dial,
    seconds,
)
from nodeserver.core.errors import UsageError
from nodeserver.io.certificate import check_choice
from nodeserver.io.udp import CLIENT_PORT, NODE_PORT

TIMEOUT: Final = 1.5
MOST_TIMEOUT: Final = 60.0
MOST_HOSTS: Final = 256
_LEAST_WIDTH: Final = 60
_WITH_PORT = re.compile(r'\[(?P<v6>[^\]]+)\](?::(?P<v6port>\d+))?|(?P<host>[^:]*):(?P<port>\d+)')


def add_doctor_parser(subparsers: 'argparse._SubParsersAction[Any]') -> None:
    """Add `doctor` to the `dispy` command."""
    parser = subparsers.add_parser(
        'doctor',
        help='what is wrong between this machine and its nodes, and what to do',
        description=__doc__,
        epilog=status_table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_doctor_options(parser)
    parser.set_defaults(run=run_doctor)


def add_doctor_options(parser: argparse.ArgumentParser) -> None:
    """Add what `dispy doctor` and `%dispy doctor` understand."""
    parser.add_argument(
        'hosts',
        nargs='*',
        metavar='HOST[:PORT]',
        help='machines where nodes should be, besides those that a broadcast finds',
    )
    add_option(
        parser,
        '--port',
        type=port_to_dial,
        default=CLIENT_PORT,
        metavar='PORT',
        help='port of clusters (default: %(default)s)',
    )
    add_option(
        parser,
        '--node_port',
        type=port_to_dial,
        default=NODE_PORT,
        metavar='PORT',
        help='port of nodes (default: %(default)s)',
    )
    add_option(
        parser,
        '--timeout',
        type=seconds,
        default=TIMEOUT,
        metavar='SECONDS',
        help='how long an answer may take (default: %(default)s); all ends within three times that',
    )
    add_option(parser, '--json', action='store_true', help='write one JSON object')
    add_option(parser, '--strict', action='store_true', help='warnings count as problems')
    add_secret_options(parser)
    add_certificate_options(parser)


def run_doctor(arguments: argparse.Namespace) -> int:
    """Examine everything, write what was found, and answer the exit status."""
    order = order_of(arguments)
    hint_at_secret_file(arguments)
    tell = _keep_quiet if arguments.json else Printer(_width())
    findings = asyncio.run(examine(order, credentials_of(arguments), tell))
    if arguments.json:
        sys.stdout.write(json.dumps(as_json(findings, arguments.strict), indent=1) + '\n')
    else:
        sys.stdout.write(f'\n{summary(findings, arguments.strict)}\n')
    return exit_status(findings, arguments.strict)


def order_of(arguments: argparse.Namespace) -> Order:
    """Check the command line's values and gather them."""
    if len(arguments.hosts) > MOST_HOSTS:
        raise UsageError(f'{len(arguments.hosts)} hosts: at most {MOST_HOSTS} are examined at once')
    if arguments.timeout > MOST_TIMEOUT:
        raise UsageError(f'--timeout {arguments.timeout:g}: at most {MOST_TIMEOUT:g} s')
    targets = dict.fromkeys(target_of(text, arguments.node_port) for text in arguments.hosts)
    return Order(tuple(targets), arguments.port, arguments.node_port, arguments.timeout)


def credentials_of(arguments: argparse.Namespace) -> Credentials:
    """Gather secret and certificate; what contradicts itself is refused here."""
    if arguments.insecure and (arguments.secret or arguments.secret_file):
        raise UsageError('--insecure contradicts a secret: give only one of them')
    check_choice(arguments.certfile, arguments.keyfile, arguments.insecure)
    return Credentials(
        arguments.secret,
        arguments.secret_file,
        arguments.insecure,
        arguments.certfile,
        arguments.keyfile,
    )


def target_of(text: str, node_port: int) -> tuple[str, int]:
    """Part HOST, HOST:PORT, [ADDRESS]:PORT, or an IPv6 address alone."""
    found = _WITH_PORT.fullmatch(text)
    host, port = text, node_port
    if found:
        host = found['v6'] or found['host'] or ''
        port = int(found['v6port'] or found['port'] or node_port)
    if not host.strip() or not 0 < port < 65536 or host.count(':') == 1:
        raise UsageError(
            f'{text!r} is not HOST, HOST:PORT or [ADDRESS]:PORT with a port from 1 to 65535'
        )
    return host, port


def status_table() -> str:
    """List the exit statuses, the most severe first."""
    lines = [
        'exit status: that of the most severe problem, in this order',
        *(f'  {fault.status:>5}  {fault.words}' for fault in Fault),
        '      0  no problem, or warnings only (without --strict)',
        '      1  dispy doctor itself failed',
        '      2  the command line is wrong',
        '  128+n  signal n ended it (130: Ctrl-C)',
    ]
    return '\n'.join(lines)


class Printer:
    """Writes groups of findings as they come, a line for each; on a terminal they are wrapped."""

    def __init__(self, width: int = 0) -> None:
        self._width = width
        self._place = ''

    def __call__(self, place: str, findings: Sequence[Finding]) -> None:
        """Write one group; a host may have two places, a node's and a relay's."""
        lines = []
        for finding in findings:
            if finding.where != self._place:
                self._place = finding.where
                lines.append(printable(self._place))
            lines.append(self._wrapped('  ' + finding.line()))
        sys.stdout.write('\n'.join(lines) + '\n')
        sys.stdout.flush()

    def _wrapped(self, line: str) -> str:
        if not self._width:
            return line
        return textwrap.fill(line, self._width, subsequent_indent=' ' * 11)


def _width() -> int:
    """Return the columns of the terminal; 0 where lines go to a file or a pipe."""
    if not sys.stdout.isatty():
        return 0
    return max(_LEAST_WIDTH, shutil.get_terminal_size().columns)


def _keep_quiet(place: str, findings: Sequence[Finding]) -> None:
    """Say nothing: one object at the end has it all."""
