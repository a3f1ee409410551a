"""`dispyscheduler`: lets several programs share the nodes of a network (section M).

Programs find it at one port; it finds the nodes, and nodes that cannot be found connect to it.
"""

import argparse
import asyncio
import gc
import logging
import secrets
import socket
import sys
from pathlib import Path
from typing import Any

from nodeserver.cli.commands import LineReader, can_have_commands
from nodeserver.cli.configuration import add_configuration_options
from nodeserver.cli.console import StopSignals
from nodeserver.cli.options import (
    Joined,
    Repeated,
    add_alias,
    add_health_option,
    add_option,
    count,
    new_parser,
    node_name,
    outside_hosts,
    patience,
    place_to_watch,
    port_number,
    port_to_dial,
    seconds,
)
from nodeserver.cli.schedulercommands import SchedulerCommands
from nodeserver.cli.server import (
    no_terminal,
    run_server,
    tell_certificate,
    tell_health,
    tell_security,
)
from nodeserver.core.errors import UsageError
from nodeserver.core.nodefacts import ZOMBIE_SECONDS
from nodeserver.core.pulses import PULSE_INTERVAL
from nodeserver.io import netif
from nodeserver.io.certificate import Certificate, choose_certificate
from nodeserver.io.concealing import conceal_variable
from nodeserver.io.keys import SECRET_VARIABLE, Secret, choose_secret
from nodeserver.io.limits import raise_file_limit
from nodeserver.io.linkoptions import MSG_TIMEOUT
from nodeserver.io.privileges import JobUser, separate_users
from nodeserver.io.schedulerstate import clean_state, state_directory
from nodeserver.io.udp import CLIENT_PORT, NODE_PORT, SCHEDULER_PORT
from nodeserver.services.clientdoor import DoorOptions
from nodeserver.services.scheduler import SchedulerOptions
from nodeserver.services.sharedscheduler import (
    DRAIN_TIMEOUT,
    SharedOptions,
    SharedSchedulerService,
)

_log = logging.getLogger('nodeserver.dispyscheduler')


def parser() -> argparse.ArgumentParser:
    """Return the parser of all options."""
    parser = new_parser('dispyscheduler', 'Let several dispy programs share the same nodes.')
    repeated: dict[str, Any] = {'action': Repeated, 'default': []}
    add_option(parser, '-n', '--nodes', metavar='HOST', help=_NODES_HELP, **repeated)
    add_alias(parser, '--node', dest='nodes', action=Repeated)
    add_option(parser, '-i', '--ip_addr', metavar='ADDRESS', help=_ADDRESS_HELP, **repeated)
    add_alias(parser, '--host', dest='ip_addr', action=Repeated)
    add_option(
        parser, '--ext_ip_addr', action=Joined, type=outside_hosts, metavar='HOST', help=_EXT_HELP
    )
    add_alias(parser, '--ext_host', dest='ext_ip_addr', action=Joined, type=outside_hosts)
    add_option(parser, '-p', '--port', type=port_number, metavar='PORT', help=_PORT_HELP)
    add_option(
        parser,
        '--node_port',
        type=port_to_dial,
        default=NODE_PORT,
        metavar='PORT',
        help='port at which the hosts of --nodes are asked (default: %(default)d)',
    )
    add_option(
        parser,
        '--scheduler_port',
        type=port_number,
        default=SCHEDULER_PORT,
        metavar='PORT',
        help='TCP port at which programs connect; 0: any free one (default: %(default)d)',
    )
    add_option(parser, '--ipv4_udp_multicast', action='store_true', help=_MULTICAST_HELP)
    add_option(parser, '--name', type=node_name, default='', help=_NAME_HELP)
    add_option(parser, '--dest_path_prefix', type=Path, metavar='DIRECTORY', help=_PREFIX_HELP)
    add_option(parser, '--clean', action='store_true', help=_CLEAN_HELP)
    add_option(parser, '--daemon', action='store_true', help=_DAEMON_HELP)
    add_option(
        parser,
        '--most_cpus_per_client',
        type=count,
        default=0,
        metavar='N',
        help='how many processors the jobs of one program have at most; 0: any number',
    )
    add_health_option(parser)
    _add_time_options(parser)
    _add_security_options(parser)
    add_configuration_options(parser)
    return parser


def _add_time_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('times')
    add_option(
        group,
        '--pulse_interval',
        type=seconds,
        default=PULSE_INTERVAL,
        metavar='SECONDS',
        help='how often each node is to give a sign of life; one that leaves 5 of them out is '
        'lost. It holds for all programs (default: %(default)g)',
    )
    add_option(
        group,
        '--ping_interval',
        type=seconds,
        metavar='SECONDS',
        help='how often more nodes are looked for (default: as each program wants it)',
    )
    add_option(
        group,
        '--zombie_interval',
        type=seconds,
        default=ZOMBIE_SECONDS / 60,
        metavar='MINUTES',
        help='how long the place of a program that is gone is kept for it (default: %(default)g)',
    )
    add_option(
        group,
        '--msg_timeout',
        type=patience,
        default=MSG_TIMEOUT,
        metavar='SECONDS',
        help='until a connection of a program that does not answer is given up '
        '(default: %(default)g)',
    )
    add_option(
        group,
        '--drain_timeout',
        type=seconds,
        default=DRAIN_TIMEOUT,
        metavar='SECONDS',
        help='how long jobs may go on after SIGTERM before the scheduler ends without them '
        '(default: %(default)g)',
    )


def _add_security_options(parser: argparse.ArgumentParser) -> None:
    """Add the secrets and certificates of both sides (M04-M07)."""
    group = parser.add_argument_group(
        'secrets', "whom to work with; programs and nodes that use this user's own key need none"
    )
    for side, whom in (('cluster', 'programs'), ('node', 'nodes')):
        add_option(
            group,
            f'--{side}_secret',
            default='',
            metavar='TEXT',
            help=f'passphrase shared with {whom}; others on this machine can see it in the list of '
            f'processes, so better use --{side}_secret_file, or set DISPY_SECRET for both',
        )
        add_option(
            group,
            f'--{side}_secret_file',
            metavar='FILE',
            help='file of mode 0600 that holds this passphrase, or a key made by `dispy key '
            'export`',
        )
    add_alias(group, '--clustersecret', dest='cluster_secret')
    add_option(
        group,
        '--insecure',
        action='store_true',
        help='neither encrypt nor authenticate, on both sides: whoever reaches a port can run '
        'programs at the nodes',
    )
    group = parser.add_argument_group('SSL', 'see docs/ssl.md')
    for side, whom in (('cluster', 'programs'), ('node', 'nodes')):
        add_option(
            group,
            f'--{side}_certfile',
            metavar='FILE',
            help=f'certificate in PEM for TLS 1.3 with {whom}, which have the same file',
        )
        add_option(
            group,
            f'--{side}_keyfile',
            metavar='FILE',
            help=f'its private key (default: the key is in --{side}_certfile)',
        )


_NODES_HELP = (
    'ask this host for nodes, besides those that programs name; may be repeated. Nodes of this '
    'network are found without'
)
_ADDRESS_HELP = 'use this address of this machine only; may be repeated (default: every interface)'
_EXT_HELP = (
    'address or name at which nodes are to connect to --port, in place of the own one: that of a '
    'gateway or tunnel which forwards the port here'
)
_PORT_HELP = (
    'TCP and UDP port for nodes that announce themselves or connect '
    f'(default: {CLIENT_PORT}, or a free one if that is in use)'
)
_MULTICAST_HELP = 'look for nodes by IPv4 multicast instead of broadcast'
_NAME_HELP = 'what this scheduler is called (default: host name)'
_PREFIX_HELP = (
    'directory in which the scheduler keeps its state, with which another one could go on '
    '(default: one below the temporary directory)'
)
_CLEAN_HELP = 'first remove what an earlier scheduler has left there'
_DAEMON_HELP = 'do not touch the terminal: no commands are read from standard input'


def options_of(arguments: argparse.Namespace, directory: Path) -> SharedOptions:
    """Check the command line's values and gather them."""
    addresses = list(dict.fromkeys(netif.resolve(each)[0] for each in arguments.ip_addr))
    for address in addresses:
        netif.check_bindable(address)
    scheduler = SchedulerOptions(
        secrets.token_hex(16),
        _secret(arguments, 'node'),
        addresses or None,
        CLIENT_PORT if arguments.port is None else arguments.port,
        arguments.port is not None,
        arguments.ipv4_udp_multicast,
        _certificate(arguments, 'node'),
        tuple((arguments.ext_ip_addr or '').split(',')) if arguments.ext_ip_addr else (),
        '--port',
    )
    door = DoorOptions(
        secrets.token_hex(16),
        _secret(arguments, 'cluster'),
        tuple(addresses) or ('',),
        arguments.scheduler_port,
        arguments.msg_timeout,
        arguments.pulse_interval,
        arguments.ping_interval or 0.0,
        _certificate(arguments, 'cluster'),
    )
    if arguments.port and arguments.port == arguments.scheduler_port:
        raise UsageError(
            f'--port and --scheduler_port are both {arguments.port}: nodes and programs need '
            f'a port each'
        )
    name = arguments.name or socket.gethostname()
    return SharedOptions(
        name,
        scheduler,
        door,
        _nodes(arguments),
        arguments.most_cpus_per_client,
        arguments.drain_timeout,
        arguments.zombie_interval * 60,
        directory,
        place_to_watch(arguments.health) if arguments.health else None,
    )


def _secret(arguments: argparse.Namespace, side: str) -> Secret:
    given = vars(arguments)
    try:
        return choose_secret(
            given[f'{side}_secret'], given[f'{side}_secret_file'], arguments.insecure
        )
    except UsageError as error:
        raise UsageError(f'--{side}_secret: {error}') from error


def _certificate(arguments: argparse.Namespace, side: str) -> Certificate | None:
    given = vars(arguments)
    try:
        return choose_certificate(
            given[f'{side}_certfile'], given[f'{side}_keyfile'], arguments.insecure
        )
    except UsageError as error:
        raise UsageError(f'--{side}_certfile: {error}') from error


def _nodes(arguments: argparse.Namespace) -> tuple[tuple[str, int], ...]:
    for host in arguments.nodes:
        try:
            netif.check_host(host)
        except UsageError as error:
            raise UsageError(f'--nodes: {error}') from error
    return tuple((host, arguments.node_port) for host in dict.fromkeys(arguments.nodes))


async def serve(options: SharedOptions) -> int:
    """Run a scheduler until it is asked to end; its exit status."""
    loop = asyncio.get_running_loop()
    service = SharedSchedulerService(loop, options)
    signals = StopSignals(loop, service.stop)
    commands: LineReader | None = None
    try:
        ports = service.start()
        tell_health(options.health, service.health_port)
        _tell_start(options, ports)
        gc.freeze()  # what is there now stays: no need to look through it again and again
        if can_have_commands():
            obey = SchedulerCommands(service).obey
            commands = LineReader(loop, sys.stdin.fileno(), obey)
        reason = await service.run()
        _log.info('dispyscheduler %s ended: %s', options.name, reason)
    finally:
        if commands is not None:
            commands.close()
        service.close()
        signals.close()
    return signals.status()


def _tell_start(options: SharedOptions, ports: tuple[int, int]) -> None:
    places = ', '.join(options.scheduler.ip_addr or ()) or '*'
    words = 'dispyscheduler %s serving at %s: port %d for programs, %d for nodes'
    _log.info(words, options.name, places, ports[1], ports[0])
    tell_certificate(options.door.certificate, 'connections to programs')
    tell_certificate(options.scheduler.certificate, 'connections to nodes')
    tell_security(options.door.secret, None, 'can run programs at the nodes')


def main(argv: list[str] | None = None) -> int:
    """Run the program; its exit status (D13)."""
    return run_server(parser(), argv, separate_users, _run, _check)


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what no machine could start with; for options that are to be saved."""
    for side in ('cluster', 'node'):
        if vars(arguments)[f'{side}_secret']:
            _secret(arguments, side)


def _run(arguments: argparse.Namespace, job_user: JobUser | None) -> int:
    """Run the scheduler as whoever started it; no computation runs here as another user."""
    if arguments.daemon:
        no_terminal()
    raise_file_limit()
    directory = state_directory(arguments.dest_path_prefix, arguments.scheduler_port)
    if arguments.clean:
        clean_state(directory)
    options = options_of(arguments, directory)
    conceal_variable(SECRET_VARIABLE)
    return asyncio.run(serve(options))


if __name__ == '__main__':
    sys.exit(main())
