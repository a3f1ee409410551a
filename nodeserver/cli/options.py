"""What the command lines of all programs have in common (D14).

An option has one documented name, with underscores, and is understood with hyphens as well.
"""

import argparse
import importlib
import logging
import os
import re
import sys
from typing import Any, Final, NoReturn

from nodeserver.core.errors import UsageError
from nodeserver.core.hours import read_time, write_time
from nodeserver.io.netif import is_address
from nodeserver.wire.beacon import HOST_LIMIT, is_host

LEVELS: Final = ('debug', 'info', 'warning', 'error')
SECRETS: Final = ('secret', 'cluster_secret', 'node_secret')  # options that hold one
LOG_FORMATS: Final = ('text', 'json')

_log = logging.getLogger(__name__)
_LEAST_PATIENCE, _MOST_PATIENCE = 0.1, 3600  # ZeroMQ takes less than 1 ms for no limit
_LONGEST_NAME = 255
_SIZE = re.compile(r'([0-9]{1,19})([kmgt]?)')


class OptionParser(argparse.ArgumentParser):
    """A parser without abbreviations (`--dest` today, two options tomorrow), and with aliases."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault('allow_abbrev', False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """End with 2 and one line that says what is wrong, and where the rest is to be read."""
        self.exit(2, f'{self.prog}: {message} (`{self.prog} -h` lists the options)\n')


class Repeated(argparse.Action):
    """An option that may be given several times; in a configuration file, commas are between."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Add a value to those that were given before."""
        before = getattr(namespace, self.dest, None)
        setattr(namespace, self.dest, [*(before if isinstance(before, list) else ()), values])


def add_option(group: argparse._ActionsContainer, *names: str, **details: Any) -> argparse.Action:
    """Add an option under its names and, unseen in the help, under their other spellings."""
    action = group.add_argument(*names, *_other_spellings(names), **details)
    action.option_strings = list(names)  # what help and errors call it; parsing knows them all
    return action


def new_parser(program: str, description: str) -> OptionParser:
    """Return a program's parser, with the options that every program has."""
    parser = OptionParser(prog=program, description=description)
    parser.add_argument(
        '--version',
        action=_ShowVersion,
        nargs=0,
        default=argparse.SUPPRESS,
        help='show the version and end',
    )
    add_log_options(parser)
    return parser


def add_log_options(parser: argparse.ArgumentParser) -> None:
    """Add what rules the messages that people read."""
    group = parser.add_argument_group('messages')
    add_option(
        group,
        '--log_level',
        type=str.lower,
        choices=LEVELS,
        default='info',
        help='least important messages to show: %(choices)s (default: %(default)s)',
    )
    add_option(
        group,
        '--log_format',
        choices=LOG_FORMATS,
        default='text',
        help='how messages are written: %(choices)s, one JSON object a line (default: %(default)s)',
    )
    group.add_argument(
        '-d', '--debug', action='store_true', help='show debug messages, and where errors arise'
    )


def add_secret_options(parser: argparse.ArgumentParser) -> None:
    """Add the ways to say whom this program trusts; without any it is this user's own key."""
    group = parser.add_argument_group(
        'secret', "whom to work with; programs that use this user's own key need none of these"
    )
    add_option(
        group,
        '-s',
        '--secret',
        default='',
        metavar='TEXT',
        help='passphrase that all machines share; others on this machine can see it in the list '
        'of processes, so better use --secret_file, or set DISPY_SECRET',
    )
    add_option(
        group,
        '--secret_file',
        metavar='FILE',
        help='file of mode 0600 that holds the passphrase, or a key made by `dispy key export`',
    )
    add_option(
        group,
        '--insecure',
        action='store_true',
        help='neither encrypt nor authenticate: whoever reaches a port can run programs here',
    )


def add_certificate_options(parser: argparse.ArgumentParser) -> None:
    """Add the files with which all connections are made over SSL."""
    group = parser.add_argument_group('SSL', 'the same files on all machines (docs/ssl.md)')
    add_option(
        group,
        '--certfile',
        metavar='FILE',
        help='certificate in PEM, with which all connections use TLS 1.3 (see `dispy cert new`)',
    )
    add_option(
        group,
        '--keyfile',
        metavar='FILE',
        help='its private key in PEM (default: the key is in --certfile)',
    )


def add_alias(parser: argparse._ActionsContainer, *names: str, **details: Any) -> None:
    """Add other names of an option (`dest`), which the help does not show."""
    add_option(parser, *names, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **details)


def hint_at_secret_file(arguments: argparse.Namespace) -> None:
    """Tell who gave a secret that there is a way that others cannot read; with logging up."""
    named = [f'--{name}' for name in SECRETS if getattr(arguments, name, '')]
    if named == ['--secret']:
        _log.warning(
            'other users of this machine can read the secret given by -s in the list of '
            'processes: put it in a file of mode 0600 and give --secret_file, or set DISPY_SECRET'
        )
    elif named:
        _log.warning(
            'other users of this machine can read the secret given by %s in the list of processes: '
            'put it in a file of mode 0600 and give %s_file',
            ' and '.join(named),
            named[0],
        )


def package_version() -> str:
    """Return the installed version, or say that there is none (a source tree on the path)."""
    metadata = importlib.import_module('importlib.metadata')  # 45 modules that a node can spare
    try:
        return str(metadata.version('dispy-nb'))
    except metadata.PackageNotFoundError:
        return 'not installed'


class _ShowVersion(argparse.Action):
    """Prints the version, which is looked up only then, and ends the program."""

    def __call__(self, parser: argparse.ArgumentParser, *args: object) -> NoReturn:
        sys.stdout.write(f'{parser.prog} (dispy-nb) {package_version()}\n')
        parser.exit()


# types of options: a text in, a value out, and words for what is wrong


def port_number(text: str) -> int:
    """Read a port; 0 has a free one taken."""
    return _whole_number(text, 0, 65535)


def port_to_dial(text: str) -> int:
    """Read the port of another program."""
    return _whole_number(text, 1, 65535)


def port_after(text: str) -> int:
    """Read dispy's one port for everything, of which nodes have the next."""
    return _whole_number(text, 1, 65534) + 1


def clients(text: str) -> int:
    """Read how many clients to serve; -1 stands for any number."""
    return _whole_number(text, -1, None)


def count(text: str) -> int:
    """Read a whole number from 0 on."""
    return _whole_number(text, 0, None)


def open_descriptor(text: str) -> int:
    """Read the number of a descriptor that whoever started us has left open for us."""
    number = _whole_number(text, 0, None)
    try:
        os.fstat(number)
    except (OSError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f'{text!r} is not an open descriptor') from error
    return number


def file_size(text: str) -> int:
    """Read a number of bytes, with k, m, g or t for multiples of 1024; 0 stands for no limit."""
    found = _SIZE.fullmatch(text.lower())
    size = int(found[1]) * 1024 ** ' kmgt'.index(found[2] or ' ') if found else -1
    if not 0 <= size < 2**63:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a size: a whole number from 0 on, with k, m, g or t behind it for '
            'multiples of 1024 (0: no limit)'
        )
    return size


def time_of_day(text: str) -> str:
    """Read a time of day; it is kept as text, as a configuration file has it."""
    try:
        return write_time(read_time(text))
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def node_name(text: str) -> str:
    """Read what a node is to be called: people see it in lines of text."""
    if len(text) > _LONGEST_NAME or not text.isprintable():
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a name of at most {_LONGEST_NAME} printable characters'
        )
    return text


def outside_hosts(text: str) -> str:
    """Read the address or name by which others reach this machine, or several with commas."""
    for host in text.split(','):
        if not is_host(host) or '%' in host:
            raise argparse.ArgumentTypeError(
                f'{host!r} is not a host name or an address that other machines can use, of at '
                f'most {HOST_LIMIT} characters'
            )
    return text


def watching_place(text: str) -> str:
    """Read where a server is to be watched; it is kept as text, as a configuration file has it."""
    host, _ = place_to_watch(text)
    if not is_address(host):
        raise argparse.ArgumentTypeError(
            f'{text!r} is neither a port nor an address with a port, such as 10.1.2.3:9100'
        )
    return text


def place_to_watch(text: str) -> tuple[str, int]:
    """Split what stands for a port of this machine alone, or is ADDRESS:PORT."""
    host, colon, port = text.rpartition(':')
    return host.strip('[]') if colon else '127.0.0.1', port_number(port)


def add_health_option(group: argparse._ActionsContainer) -> None:
    """Add how a server can be watched (Z16)."""
    add_option(
        group,
        '--health',
        type=watching_place,
        metavar='PORT',
        help='answer /healthz, /metrics (for Prometheus) and /status by HTTP at this port of '
        '127.0.0.1, or at ADDRESS:PORT, to whoever asks there',
    )


class Joined(argparse.Action):
    """Stores the values of an option that may be repeated, with commas between them."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest)
        joined = f'{before},{values}' if before and isinstance(before, str) else values
        setattr(namespace, self.dest, joined)


def seconds(text: str) -> float:
    """Read a length of time above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f'{text!r} is not a number above 0')
    return value


def patience(text: str) -> float:
    """Read how long a peer may take to answer."""
    value = seconds(text)
    if not _LEAST_PATIENCE <= value <= _MOST_PATIENCE:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a number of seconds from {_LEAST_PATIENCE} to {_MOST_PATIENCE}'
        )
    return value


def _whole_number(text: str, least: int, most: int | None) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least or (most is not None and value > most):
        allowed = f'from {least} on' if most is None else f'from {least} to {most}'
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number {allowed}')
    return value


def _other_spellings(names: tuple[str, ...]) -> list[str]:
    """Return `--dest-path` for `--dest_path`, and the other way round."""
    other = []
    for name in names:
        if name.startswith('--'):
            word = name[2:]
            other += ['--' + word.replace('_', '-'), '--' + word.replace('-', '_')]
    return [name for name in dict.fromkeys(other) if name not in names]
