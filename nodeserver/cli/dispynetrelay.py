"""`dispynetrelay`: tells programs on other networks of the nodes of this one (M10).

Started on one machine of a network; with `--forward` it also carries connections to the nodes.
"""

import argparse
import asyncio
import logging
import secrets
import socket
import sys
from typing import Any

from nodeserver.cli.commands import LineReader, can_have_commands, say
from nodeserver.cli.configuration import add_configuration_options
from nodeserver.cli.console import StopSignals
from nodeserver.cli.options import (
    Repeated,
    add_certificate_options,
    add_option,
    add_secret_options,
    new_parser,
    node_name,
    patience,
    port_number,
    port_to_dial,
)
from nodeserver.cli.server import no_terminal, run_server, tell_security
from nodeserver.core.errors import UsageError
from nodeserver.core.knocking import RELAY_PORT
from nodeserver.io import netif
from nodeserver.io.certificate import choose_certificate
from nodeserver.io.concealing import conceal_variable
from nodeserver.io.keys import SECRET_VARIABLE, choose_secret
from nodeserver.io.limits import raise_file_limit
from nodeserver.io.privileges import JobUser, separate_users
from nodeserver.io.udp import CLIENT_PORT, NODE_PORT
from nodeserver.services.relay import RelayOptions, RelayService

_log = logging.getLogger('nodeserver.dispynetrelay')

PING_INTERVAL = 5.0
HELP = {
    'status': 'which nodes are known, which programs are told of them, what is carried',
    'quit': 'end once no connection is carried, as Ctrl-C does (also `exit`)',
    'terminate': 'end at once; connections that are carried break',
    'help': 'show this list',
}


def parser() -> argparse.ArgumentParser:
    """Return the parser of all options."""
    parser = new_parser('dispynetrelay', 'Tell programs elsewhere of the nodes of this network.')
    repeated: dict[str, Any] = {'action': Repeated, 'default': []}
    add_option(parser, '-i', '--ip_addr', metavar='ADDRESS', help=_ADDRESS_HELP, **repeated)
    add_option(
        parser,
        '--relay_port',
        type=port_number,
        metavar='PORT',
        help=_PORT_HELP,
    )
    add_option(
        parser,
        '-p',
        '--node_port',
        type=port_to_dial,
        default=NODE_PORT,
        metavar='PORT',
        help='UDP port at which nodes are asked, besides those that programs name '
        '(default: %(default)d)',
    )
    add_option(parser, '--scheduler_node', metavar='HOST', help=_SCHEDULER_HELP, **repeated)
    add_option(
        parser,
        '--scheduler_port',
        type=port_to_dial,
        metavar='PORT',
        help=f'TCP port of each --scheduler_node (default: {CLIENT_PORT})',
    )
    add_option(parser, '--ipv4_udp_multicast', action='store_true', help=_MULTICAST_HELP)
    add_option(parser, '--forward', action='store_true', help=_FORWARD_HELP)
    add_option(parser, '--ext_ip_addr', default='', metavar='HOST', help=_EXT_HELP)
    add_option(
        parser,
        '--ping_interval',
        type=patience,
        default=PING_INTERVAL,
        metavar='SECONDS',
        help='how often nodes are asked while a program wants them (default: %(default)g)',
    )
    add_option(parser, '--name', type=node_name, default='', help=_NAME_HELP)
    add_option(parser, '--daemon', action='store_true', help=_DAEMON_HELP)
    add_secret_options(parser)
    add_certificate_options(parser)
    add_configuration_options(parser)
    return parser


_ADDRESS_HELP = 'use this address of this machine only; may be repeated (default: every interface)'
_PORT_HELP = (
    'TCP and UDP port at which programs find the relay '
    f'(default: {RELAY_PORT}, or a free one if that is in use)'
)
_SCHEDULER_HELP = (
    'connect to the program at this address, which need not know of the relay; may be repeated'
)
_MULTICAST_HELP = 'ask for nodes by IPv4 multicast instead of broadcast'
_FORWARD_HELP = 'carry the connections of programs to the nodes, through --relay_port'
_EXT_HELP = (
    'address or name at which programs reach --relay_port, if that is not where they find the relay'
)
_NAME_HELP = 'what programs call the relay (default: host name)'
_DAEMON_HELP = 'do not touch the terminal: no commands are read from standard input'


def options_of(arguments: argparse.Namespace) -> RelayOptions:
    """Check the command line's values and gather them."""
    addresses = dict.fromkeys(netif.resolve(address)[0] for address in arguments.ip_addr)
    for address in addresses:
        netif.check_bindable(address)
    if arguments.ext_ip_addr and not arguments.forward:
        raise UsageError('--ext_ip_addr is where connections are forwarded, without --forward none')
    return RelayOptions(
        secrets.token_hex(16),
        arguments.name or socket.gethostname(),
        tuple(addresses),
        RELAY_PORT if arguments.relay_port is None else arguments.relay_port,
        arguments.relay_port is not None,
        choose_secret(arguments.secret, arguments.secret_file, arguments.insecure),
        (arguments.node_port,),
        arguments.ping_interval,
        _schedulers(arguments),
        arguments.forward,
        arguments.ipv4_udp_multicast,
        arguments.ext_ip_addr,
        choose_certificate(arguments.certfile, arguments.keyfile, arguments.insecure),
    )


def _schedulers(arguments: argparse.Namespace) -> tuple[tuple[str, int], ...]:
    """Where to connect to by itself, if anywhere."""
    if arguments.scheduler_port is not None and not arguments.scheduler_node:
        raise UsageError('--scheduler_port is that of --scheduler_node, which is missing')
    port, places = arguments.scheduler_port or CLIENT_PORT, []
    for host in arguments.scheduler_node:
        try:
            netif.check_host(host)
        except UsageError as error:
            raise UsageError(f'--scheduler_node: {error}') from error
        places.append((host, port))
    return tuple(dict.fromkeys(places))


async def serve(options: RelayOptions) -> int:
    """Run a relay until it is asked to end; its exit status."""
    loop = asyncio.get_running_loop()
    service = RelayService(loop, options)
    signals = StopSignals(loop, service.stop)
    commands: LineReader | None = None
    try:
        _tell_start(options, service.start())
        if can_have_commands():
            commands = LineReader(loop, sys.stdin.fileno(), lambda line: _obey(service, line))
        reason = await service.run()
        _log.info('dispynetrelay %s ended: %s', options.name, reason)
    finally:
        if commands is not None:
            commands.close()
        await service.close()
        signals.close()
    return signals.status()


def _obey(service: RelayService, line: str) -> None:
    """Do what a line of standard input says, or say what could be said instead."""
    table = {
        'status': lambda: say(service.status()),
        'quit': lambda: service.stop(False, 'quit was entered'),
        'exit': lambda: service.stop(False, 'exit was entered'),
        'terminate': lambda: service.stop(True, 'terminate was entered'),
        'help': lambda: say(_help()),
    }
    word = line.strip().lower()
    if word in table:
        table[word]()
    elif word:
        say([f'{line.strip()!r} is not understood', *_help()])


def _help() -> list[str]:
    return [f'  {name:<10} {text}' for name, text in HELP.items()]


def _tell_start(options: RelayOptions, port: int) -> None:
    what = 'carrying connections to nodes' if options.carries else 'telling of nodes'
    places = ', '.join(options.addresses) or '*'
    _log.info('dispynetrelay %s serving at %s:%d, %s', options.name, places, port, what)
    more = ', and is connected to them' if options.carries else ''
    tell_security(options.secret, options.certificate, f'learns of the nodes here{more}')


def main(argv: list[str] | None = None) -> int:
    """Run the program; its exit status (D13)."""
    return run_server(parser(), argv, separate_users, _run, _check)


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what no machine could start with; for options that are to be saved."""
    if arguments.secret:
        choose_secret(arguments.secret)


def _run(arguments: argparse.Namespace, job_user: JobUser | None) -> int:
    """Run the relay as whoever started it; no computation runs here as another user."""
    if arguments.daemon:
        no_terminal()
    raise_file_limit()
    options = options_of(arguments)
    conceal_variable(SECRET_VARIABLE)
    return asyncio.run(serve(options))


if __name__ == '__main__':
    sys.exit(main())
