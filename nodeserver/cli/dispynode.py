"""`dispynode`: offers this machine's processors to dispy programs (section L).

Started on each machine that should run jobs; it is found by programs on the network and serves
one program at a time.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import secrets
import socket
import sys
from pathlib import Path

from nodeserver.cli.console import StopSignals, run_program, set_up_logging
from nodeserver.cli.options import (
    add_option,
    add_secret_options,
    hint_at_secret_file,
    new_parser,
    open_descriptor,
    port_number,
)
from nodeserver.core.errors import UsageError
from nodeserver.io import gpus, netif
from nodeserver.io.keys import choose_secret
from nodeserver.io.limits import raise_file_limit
from nodeserver.io.prefix import choose_prefix, clean, leave
from nodeserver.io.sysinfo import processor_count
from nodeserver.io.udp import NODE_PORT
from nodeserver.services.node import NodeOptions, NodeService

_log = logging.getLogger('nodeserver.dispynode')


def parser() -> argparse.ArgumentParser:
    """Return the parser of all options."""
    parser = new_parser('dispynode', 'Run jobs of dispy programs on this machine.')
    add_option(parser, '-c', '--cpus', type=int, default=0, metavar='N', help=_CPUS_HELP)
    add_option(parser, '--gpus', metavar='N|LIST', help=_GPUS_HELP)
    add_option(parser, '-i', '--ip_addr', default='', metavar='ADDRESS', help=_ADDRESS_HELP)
    add_option(parser, '-p', '--node_port', type=port_number, metavar='PORT', help=_PORT_HELP)
    add_option(parser, '--name', default='', help='name shown for this node (default: host name)')
    add_option(parser, '--dest_path_prefix', type=Path, metavar='DIRECTORY', help=_PREFIX_HELP)
    add_option(parser, '--clean', action='store_true', help=_CLEAN_HELP)
    add_option(parser, '--daemon', action='store_true', help=_DAEMON_HELP)
    # for programs that start nodes for themselves: end of file tells of their end, and the
    # node's port is written
    add_option(parser, '--owner_fd', type=open_descriptor, default=-1, help=argparse.SUPPRESS)
    add_option(parser, '--ready_fd', type=open_descriptor, default=-1, help=argparse.SUPPRESS)
    add_secret_options(parser)
    return parser


_CPUS_HELP = 'processors to offer; negative: how many to leave free (default: all)'
_GPUS_HELP = 'gpus to offer: how many, or which, such as 0,1 (default: all; of one: 0,)'
_ADDRESS_HELP = 'address of this machine to serve on (default: every interface)'
_PORT_HELP = f'TCP and UDP port (default: {NODE_PORT}, or a free one if that is in use)'
_PREFIX_HELP = 'directory below which files are stored (default: one below the temporary directory)'
_CLEAN_HELP = 'first remove what earlier runs have left below the directory'
_DAEMON_HELP = 'do not touch the terminal: standard input is not read'


def cpus_to_offer(wanted: int, present: int) -> int:
    """Return how many processors to use of those present (L06-L08)."""
    if wanted > present:
        raise UsageError(f'--cpus {wanted}: this machine has {present} processors')
    if wanted < 0 and present + wanted < 1:
        raise UsageError(f'--cpus {wanted} leaves none of the {present} processors to use')
    return wanted if wanted > 0 else present + wanted


def options_of(arguments: argparse.Namespace, prefix: Path) -> NodeOptions:
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
        _gpus(arguments.gpus),
    )


def _gpus(wanted: str | None) -> tuple[str, ...]:
    """Choose the gpus to offer, and hide all of them from what is started here."""
    present = gpus.visible_gpus(os.environ)
    offered = gpus.gpus_to_offer(wanted, present)
    if present or wanted is not None:
        gpus.show(os.environ, '')
    return offered


async def serve(options: NodeOptions, ready_fd: int = -1) -> int:
    """Run a node until it is asked to end; its exit status."""
    loop = asyncio.get_running_loop()
    service = NodeService(loop, options)
    signals = StopSignals(loop, service.stop)
    try:
        address, port = service.start()
        _tell_start(options, address, port, ready_fd)
        reason = await service.run()
        _log.info('dispynode %s ended: %s', options.name, reason)
    finally:
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
    if options.secret.is_insecure:
        _log.warning('INSECURE: whoever reaches this port can run programs as this user')
    elif options.secret.is_own:
        _log.info(
            "serving programs with this user's key; for a program on another machine run "
            '`dispy key export` here and the line it prints there'
        )


def main(argv: list[str] | None = None) -> int:
    """Run the program; its exit status (D13)."""
    arguments = parser().parse_args(argv)
    set_up_logging(arguments.log_level, arguments.log_format, arguments.debug, sys.stdout)
    if arguments.daemon:
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
    return run_program(lambda: _run(arguments), debug=arguments.debug)


def _run(arguments: argparse.Namespace) -> int:
    hint_at_secret_file(arguments)
    raise_file_limit()
    prefix, lock = choose_prefix(arguments.dest_path_prefix, _port(arguments))
    try:
        if arguments.clean:
            clean(prefix, lock)
        return asyncio.run(serve(options_of(arguments, prefix), arguments.ready_fd))
    finally:
        leave(prefix, lock)


def _port(arguments: argparse.Namespace) -> int:
    return NODE_PORT if arguments.node_port is None else int(arguments.node_port)


if __name__ == '__main__':
    sys.exit(main())
