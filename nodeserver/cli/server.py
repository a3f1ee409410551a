"""How a server program begins: command line, configuration file, messages, and what saves them.

words ──▶ given ─┬─ --save_config ──▶ file
file  ──▶ merged ┴─ run(arguments) ──▶ exit status
"""

import argparse
import ipaddress
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from nodeserver.cli.configuration import (
    given_options,
    merged,
    read_configuration,
    save_configuration,
)
from nodeserver.cli.console import EXIT_FINE, run_program, set_up_logging
from nodeserver.cli.options import hint_at_secret_file
from nodeserver.core.errors import ConfigurationError, UsageError
from nodeserver.io.certificate import Certificate, words_of_facts
from nodeserver.io.keys import Secret

_log = logging.getLogger(__name__)

Begun = TypeVar('Begun')
Check = Callable[[argparse.Namespace], None]


def run_server(
    parser: argparse.ArgumentParser,
    argv: list[str] | None,
    begin: Callable[[], Begun],
    run: Callable[[argparse.Namespace, Begun], int],
    check: Check,
) -> int:
    """Do what the options say, with those of a configuration file; the exit status (D13).

    `begin` is called before any file is read or made, and `run` gets what it answers.  `check`
    refuses options that are to be saved although no machine could start with them.
    """
    given, defaults = given_options(parser, argv)

    def start() -> int:
        begun = begin()
        return _start(parser, (given, defaults), lambda arguments: run(arguments, begun), check)

    return run_program(start, debug=given.get('debug', False))


def tell_security(secret: Secret, certificate: Certificate | None, if_insecure: str) -> None:
    """Say who can use a server that has started, and how others come to that."""
    tell_certificate(certificate, 'all connections')
    if secret.is_insecure:
        _log.warning('INSECURE: whoever reaches this port %s', if_insecure)
    elif secret.is_own:
        _log.info(
            "serving programs with this user's key; for a program on another machine run "
            '`dispy key export` here and the line it prints there'
        )


def tell_certificate(certificate: Certificate | None, which: str) -> None:
    """Say which connections of a server use SSL, and until when its certificate is valid."""
    if certificate is not None:
        words = words_of_facts(certificate.pair().facts)
        _log.info('%s use SSL; the certificate is of %s', which, words)


def tell_health(place: tuple[str, int] | None, port: int) -> None:
    """Say where a server can be watched, and warn where others can do that too."""
    if place is None:
        return
    host = f'[{place[0]}]' if ':' in place[0] else place[0]
    _log.info('health at http://%s:%d/healthz, and /metrics and /status', host, port)
    if not ipaddress.ip_address(place[0]).is_loopback:
        _log.warning('whoever reaches %s:%d can read what runs here, and whose it is', host, port)


def no_terminal() -> None:
    """Read nothing from standard input: whatever is there is somebody else's."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def _start(
    parser: argparse.ArgumentParser,
    options: tuple[dict[str, Any], dict[str, Any]],
    run: Callable[[argparse.Namespace], int],
    check: Check,
) -> int:
    given, defaults = options
    file = given.get('config')
    configured = {} if file is None else read_configuration(parser, file)
    found = merged(given, configured)
    arguments = argparse.Namespace(**defaults | found)
    try:
        if 'save_config' in given:
            check(arguments)
            return _save(arguments, found)
        set_up_logging(arguments.log_level, arguments.log_format, arguments.debug, sys.stdout)
        hint_at_secret_file(argparse.Namespace(**given))
        return run(arguments)
    except UsageError as error:
        if _is_of_file(str(error), {k: v for k, v in configured.items() if k not in given}):
            raise ConfigurationError(f'--config {file}: {error}') from error
        raise


def _is_of_file(text: str, configured: dict[str, Any]) -> bool:
    """Whether an error speaks of an option that only the configuration file gives."""
    return any(
        f'--{name}' in text
        or f'{name}=' in text
        or text.startswith(f'{name} ')
        or repr(str(value)) in text
        for name, value in configured.items()
    )


def _save(arguments: argparse.Namespace, options: dict[str, Any]) -> int:
    try:
        save_configuration(options, arguments.save_config)
    except OSError as error:
        raise UsageError(f'--save_config {arguments.save_config}: {error.strerror}') from error
    return EXIT_FINE
