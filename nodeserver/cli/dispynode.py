"""`dispynode`: offers this machine's processors to dispy programs (section L).

Started on each machine that should run jobs; it is found by programs on the network and serves
one program at a time.
"""

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import secrets
import socket
import sys
from pathlib import Path

from nodeserver.cli.commands import LineReader, NodeCommands, can_have_commands
from nodeserver.cli.configuration import add_configuration_options
from nodeserver.cli.console import EXIT_FINE, StopSignals
from nodeserver.cli.options import (
    Joined,
    add_alias,
    add_certificate_options,
    add_health_option,
    add_option,
    add_secret_options,
    clients,
    file_size,
    new_parser,
    node_name,
    open_descriptor,
    outside_hosts,
    patience,
    place_to_watch,
    port_after,
    port_number,
    port_to_dial,
    seconds,
    time_of_day,
)
from nodeserver.cli.server import no_terminal, run_server, tell_health, tell_security
from nodeserver.core.errors import UsageError
from nodeserver.core.hours import ServiceHours, service_hours
from nodeserver.core.nodefacts import ZOMBIE_SECONDS, NodeRules
from nodeserver.io import gpus, gpuvariables, netif
from nodeserver.io.certificate import choose_certificate
from nodeserver.io.clock import second_of_day
from nodeserver.io.concealing import conceal_variable
from nodeserver.io.deputy import OWN_USER, Owner, owner_of
from nodeserver.io.keys import SECRET_VARIABLE, choose_secret
from nodeserver.io.limits import raise_file_limit
from nodeserver.io.linkoptions import MSG_TIMEOUT
from nodeserver.io.prefix import choose_prefix, clean, leave
from nodeserver.io.privileges import JobUser, separate_users
from nodeserver.io.sysinfo import processor_count
from nodeserver.io.udp import CLIENT_PORT, NODE_PORT
from nodeserver.services.node import NodeOptions, NodeService

_log = logging.getLogger('nodeserver.dispynode')


def parser() -> argparse.ArgumentParser:
    """Return the parser of all options."""
    parser = new_parser('dispynode', 'Run jobs of dispy programs on this machine.')
    add_option(parser, '-c', '--cpus', type=int, default=0, metavar='N', help=_CPUS_HELP)
    add_option(parser, '--gpus', metavar='N|LIST', help=_GPUS_HELP)
    add_option(parser, '-i', '--ip_addr', default='', metavar='ADDRESS', help=_ADDRESS_HELP)
    add_alias(parser, '--host', dest='ip_addr')
    add_option(
        parser,
        '--ext_ip_addr',
        action=Joined,
        type=outside_hosts,
        metavar='HOST',
        help=_EXT_HELP,
    )
    add_option(parser, '--ipv4_udp_multicast', action='store_true', help=_MULTICAST_HELP)
    add_option(parser, '-p', '--node_port', type=port_number, metavar='PORT', help=_PORT_HELP)
    add_alias(parser, '--dispy_port', dest='node_port', type=port_after)
    add_option(parser, '--scheduler_node', metavar='HOST', help=_SCHEDULER_HELP)
    add_option(
        parser,
        '--scheduler_port',
        type=port_to_dial,
        metavar='PORT',
        help=f'TCP port of --scheduler_node (default: {CLIENT_PORT})',
    )
    add_option(parser, '--name', type=node_name, default='', help=_NAME_HELP)
    add_option(parser, '--dest_path_prefix', type=Path, metavar='DIRECTORY', help=_PREFIX_HELP)
    add_option(
        parser,
        '--max_file_size',
        type=file_size,
        default=MAX_FILE_SIZE,
        metavar='N',
        help=_SIZE_HELP,
    )
    add_option(parser, '--clean', action='store_true', help=_CLEAN_HELP)
    add_option(parser, '--daemon', action='store_true', help=_DAEMON_HELP)
    add_health_option(parser)
    # for programs that start nodes for themselves: end of file tells of their end, and the
    # node's port is written
    add_option(parser, '--owner_fd', type=open_descriptor, default=-1, help=argparse.SUPPRESS)
    add_option(parser, '--ready_fd', type=open_descriptor, default=-1, help=argparse.SUPPRESS)
    _add_service_options(parser)
    add_secret_options(parser)
    add_certificate_options(parser)
    add_configuration_options(parser)
    return parser


def _add_service_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('service', 'whom to serve, when, and how patiently')
    for name, text in _HOURS_HELP.items():
        add_option(group, name, type=time_of_day, metavar='HH:MM', help=text)
    add_option(group, '--serve', type=clients, default=-1, metavar='N', help=_SERVE_HELP)
    add_option(
        group,
        '--zombie_interval',
        type=seconds,
        default=ZOMBIE_SECONDS / 60,
        metavar='MINUTES',
        help=_ZOMBIE_HELP,
    )
    add_option(
        group,
        '--msg_timeout',
        type=patience,
        default=MSG_TIMEOUT,
        metavar='SECONDS',
        help=_MSG_TIMEOUT_HELP,
    )


MAX_FILE_SIZE = 10 * 1024 * 1024
_CPUS_HELP = 'processors to offer; negative: how many to leave free (default: all)'
_GPUS_HELP = 'gpus to offer: how many, or which, such as 0,1 (default: all; of one: 0,)'
_NAME_HELP = 'name shown for this node (default: host name)'
_ADDRESS_HELP = 'address of this machine to serve on (default: every interface)'
_EXT_HELP = (
    'address or name to be connected to, in place of the own one: that of a gateway which forwards '
    'the port here, or the public one of a cloud'
)
_MULTICAST_HELP = 'announce the node by IPv4 multicast instead of broadcast'
_PORT_HELP = f'TCP and UDP port (default: {NODE_PORT}, or a free one if that is in use)'
_SCHEDULER_HELP = (
    'connect to the program (or scheduler) at this address: for a node that it does not find, or '
    'cannot connect to'
)
_PREFIX_HELP = 'directory below which files are stored (default: one below the temporary directory)'
_SIZE_HELP = 'largest file to transfer, in bytes, or with k, m, g, t; 0: any size (default: 10m)'
_CLEAN_HELP = 'first remove what earlier runs have left below the directory'
_DAEMON_HELP = 'do not touch the terminal: no commands are read from standard input'
_HOURS_HELP = {
    '--service_start': 'time of day from which jobs are taken (default: now)',
    '--service_stop': 'time of day from which no more jobs are taken; those that run go on',
    '--service_end': 'time of day at which running jobs are killed',
}
_SERVE_HELP = 'end after so many clients; 0: only do the cleaning of --clean (default: -1, no end)'
_ZOMBIE_HELP = 'silence after which a client loses the node, in minutes (default: %(default)g)'
_MSG_TIMEOUT_HELP = 'seconds until a connection that does not answer is given up (default: 5)'


def cpus_to_offer(wanted: int, present: int) -> int:
    """Return how many processors to use of those present (L06-L08)."""
    if wanted > present:
        raise UsageError(f'--cpus {wanted}: this machine has {present} processors')
    if wanted < 0 and present + wanted < 1:
        raise UsageError(f'--cpus {wanted} leaves none of the {present} processors to use')
    return wanted if wanted > 0 else present + wanted


def options_of(arguments: argparse.Namespace, prefix: Path, owner: Owner = OWN_USER) -> NodeOptions:
    """Check the command line's values and gather them."""
    address = ''
    if arguments.ip_addr:
        address = netif.resolve(arguments.ip_addr)[0]
        netif.check_bindable(address)
    return NodeOptions(
        secrets.token_hex(16),
        arguments.name or socket.gethostname(),
        cpus_to_offer(arguments.cpus, processor_count()),
        address,
        _port(arguments),
        arguments.node_port is not None,
        choose_secret(arguments.secret, arguments.secret_file, arguments.insecure),
        prefix,
        arguments.owner_fd,
        arguments.max_file_size,
        NodeRules(arguments.zombie_interval * 60, arguments.serve, _hours(arguments)),
        arguments.msg_timeout,
        _gpus(arguments.gpus),
        _scheduler(arguments),
        _outside_host(arguments.ext_ip_addr),
        arguments.ipv4_udp_multicast,
        choose_certificate(arguments.certfile, arguments.keyfile, arguments.insecure),
        owner=owner,
        health=place_to_watch(arguments.health) if arguments.health else None,
    )


def _outside_host(given: str | None) -> str:
    """Choose of the hosts of `--ext_ip_addr`: the first that can be looked up here (L10)."""
    hosts = (given or '').split(',')
    if len(hosts) == 1:
        return hosts[0]
    for host in hosts:
        with contextlib.suppress(UsageError):
            netif.resolve(host)
            return host
    _log.warning('no address is known here for %s: %s is announced', given, hosts[0])
    return hosts[0]


def _scheduler(arguments: argparse.Namespace) -> tuple[str, int] | None:
    """Where to connect to by itself, if anywhere (L17, L18)."""
    if arguments.scheduler_node is None:
        if arguments.scheduler_port is not None:
            raise UsageError('--scheduler_port is that of --scheduler_node, which is missing')
        return None
    try:
        netif.check_host(arguments.scheduler_node)
    except UsageError as error:
        raise UsageError(f'--scheduler_node: {error}') from error
    return arguments.scheduler_node, arguments.scheduler_port or CLIENT_PORT


def _hours(arguments: argparse.Namespace) -> ServiceHours | None:
    return service_hours(
        arguments.service_start or '',
        arguments.service_stop or '',
        arguments.service_end or '',
        int(second_of_day()),
    )


def _gpus(wanted: str | None) -> tuple[str, ...]:
    """Choose the gpus to offer, and hide all of them from what is started here."""
    present = gpus.visible_gpus(os.environ)
    offered = gpus.gpus_to_offer(wanted, present)
    if present or wanted is not None:
        gpuvariables.show(os.environ, '')
    return offered


async def serve(options: NodeOptions, ready_fd: int = -1) -> int:
    """Run a node until it is asked to end; its exit status."""
    loop = asyncio.get_running_loop()
    service = NodeService(loop, options)
    signals = StopSignals(loop, service.stop)
    commands: LineReader | None = None
    try:
        address, port = service.start()
        gc.freeze()  # what is there now stays: no need to look through it again and again
        tell_health(options.health, service.health_port)
        _tell_start(options, address, port, ready_fd)
        if can_have_commands():
            obey = NodeCommands(service, lambda n: cpus_to_offer(n, processor_count())).obey
            commands = LineReader(loop, sys.stdin.fileno(), obey)
        reason = await service.run()
        _log.info('dispynode %s ended: %s', options.name, reason)
    finally:
        if commands is not None:
            commands.close()
        await service.close()
        signals.close()
    return signals.status()


def _tell_start(options: NodeOptions, address: str, port: int, ready_fd: int) -> None:
    cpus = f'{options.cpus} cpu' if options.cpus == 1 else f'{options.cpus} cpus'
    _log.info('dispynode %s serving at %s:%d with %s', options.name, address, port, cpus)
    if ready_fd >= 0:
        with contextlib.suppress(BrokenPipeError):  # whoever waits is gone: `owner_fd` tells
            os.write(ready_fd, b'%d' % port)
        os.close(ready_fd)
    tell_security(options.secret, options.certificate, 'can run programs as this user')


def main(argv: list[str] | None = None) -> int:
    """Run the program; its exit status (D13)."""
    return run_server(parser(), argv, separate_users, _run, _check)


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what no machine could start with; for options that are to be saved."""
    _hours(arguments)
    if arguments.secret:
        choose_secret(arguments.secret)


def _run(arguments: argparse.Namespace, job_user: JobUser | None) -> int:
    if arguments.daemon:
        no_terminal()
    raise_file_limit()
    prefix, lock = choose_prefix(arguments.dest_path_prefix, _port(arguments), job_user)
    owner = OWN_USER
    try:
        owner = owner_of(job_user, prefix)
        if arguments.clean or not arguments.serve:
            clean(prefix, lock, owner.directories(prefix))
        if not arguments.serve:
            return EXIT_FINE
        options = options_of(arguments, prefix, owner)
        conceal_variable(SECRET_VARIABLE)
        return asyncio.run(serve(options, arguments.ready_fd))
    finally:
        owner.close()
        leave(prefix, lock)


def _port(arguments: argparse.Namespace) -> int:
    return NODE_PORT if arguments.node_port is None else int(arguments.node_port)


if __name__ == '__main__':
    sys.exit(main())
