"""`dispy cert`: make the certificate and key that all machines share, and look at one."""

import argparse
import importlib
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any

from nodeserver.cli.options import add_option
from nodeserver.core.errors import CertificateError, UsageError
from nodeserver.io import certificate

DAYS = 1000
MOST_DAYS = 36500
_NAME_LIMIT = 64  # what X.509 allows a common name
_MODE = 0o600


def add_cert_parser(subparsers: 'argparse._SubParsersAction[Any]') -> None:
    """Add `cert` to the `dispy` command; the chosen action is `arguments.run(arguments)`."""
    parser = subparsers.add_parser(
        'cert', help='certificates for SSL: new, show', description=__doc__
    )
    actions = parser.add_subparsers(dest='action', metavar='ACTION', required=True)
    new = actions.add_parser('new', help='make a self-signed certificate and its key')
    add_option(new, '--days', type=_days, default=DAYS, metavar='N', help=_DAYS_HELP)
    add_option(new, '--name', type=_name, default='dispy-nb', metavar='CN', help=_NAME_HELP)
    add_option(new, '--out', metavar='PATH', default='dispy-cert.pem', help=_OUT_HELP)
    add_option(new, '--keyfile', metavar='FILE', help=_KEY_HELP)
    add_option(new, '--replace', action='store_true', help='overwrite files that are there')
    new.set_defaults(run=run_new)
    show = actions.add_parser('show', help='whose a certificate is, until when, what is wrong')
    show.add_argument('file', metavar='FILE', help='certificate in PEM')
    add_option(show, '--keyfile', metavar='FILE', help='its key, if it is not in the same file')
    show.set_defaults(run=run_show)


_DAYS_HELP = 'how long it is valid (default: %(default)s)'
_NAME_HELP = 'its common name (default: %(default)s)'
_OUT_HELP = 'file, or directory for a file dispy-cert.pem (default: %(default)s)'
_KEY_HELP = 'put the key into a file of its own (default: into the same file)'


def run_new(arguments: argparse.Namespace) -> int:
    """Make a pair, and say how it is used."""
    out = Path(arguments.out)
    certfile = out / 'dispy-cert.pem' if out.is_dir() else out
    keyfile = Path(arguments.keyfile) if arguments.keyfile else certfile
    _refuse_overwriting(arguments.replace, certfile, keyfile)
    cert, key = _made(arguments.name, arguments.days)
    if keyfile == certfile:
        _write(certfile, key + cert)
    else:
        _write(keyfile, key)  # first: a program that reads them meanwhile keeps the old pair
        _write(certfile, cert)
    facts = certificate.load_pair(certfile, keyfile).facts
    _say(f'{certfile}: {certificate.words_of_facts(facts)}')
    given = '' if keyfile == certfile else f' --keyfile {keyfile}'
    _say('copy it to each machine over a safe way such as ssh, and start there:')
    _say(f'dispynode --certfile {certfile}{given}')
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Show a certificate; the exit status is 1 if nobody would accept it."""
    certfile = Path(arguments.file)
    text = certificate.first_certificate(certfile)
    facts, der = certificate.facts_of(text, certfile)
    _say(f'subject:     {facts.subject}')
    _say(f'issuer:      {facts.issuer}')
    _say(f'valid from:  {certificate.day(facts.begins)}')
    _say(f'valid until: {certificate.day(facts.ends)}')
    _say(f'uses:        {", ".join(sorted(facts.uses)) if facts.uses is not None else "any"}')
    _say(f'fingerprint: {certificate.fingerprint_of(der).hex(":")} (SHA-256)')
    wrong = _what_is_wrong(certfile, Path(arguments.keyfile or certfile))
    if wrong:
        _say(f'wrong:       {wrong}')
        return 1
    warning = certificate.expiry_words(facts, time.time(), str(certfile))
    _say(f'state:       {warning or "can be used"}')
    return 0


def _what_is_wrong(certfile: Path, keyfile: Path) -> str:
    try:
        certificate.load_pair(certfile, keyfile)
    except CertificateError as error:
        return str(error)
    return ''


def _refuse_overwriting(may_replace: bool, *paths: Path) -> None:
    for path in paths:
        if path.exists() and not may_replace:
            raise UsageError(
                f'{path} is there already: give another --out, or --replace to overwrite it (all '
                'machines that have the old one will then need the new one)'
            )


def _write(path: Path, data: bytes) -> None:
    """Put a file in place at one stroke, so that whoever reads it never sees a half of it."""
    fresh = path.with_name(f'.{path.name}.{secrets.token_hex(4)}')
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
        try:
            with os.fdopen(descriptor, 'wb') as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as error:
        raise CertificateError(f'{path} cannot be written: {error.strerror}') from error


def _made(name: str, days: int) -> tuple[bytes, bytes]:
    """Make certificate and key, in PEM: EC P-256, for both directions."""
    try:
        maker: Any = importlib.import_module('dispy_nb.certmaking')
    except ImportError as error:
        raise UsageError(
            'making certificates needs the package `cryptography` (pip install cryptography); '
            f'openssl makes one as well: {certificate.OPENSSL_COMMAND}'
        ) from error
    made: tuple[bytes, bytes] = maker.make_pair(name, days)
    return made


def _days(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_DAYS:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number of days from 1 to {MOST_DAYS}')
    return int(text)


def _name(text: str) -> str:
    if not text.strip() or not text.isprintable() or len(text) > _NAME_LIMIT:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a name of 1 to {_NAME_LIMIT} printable characters'
        )
    return text


def _say(line: str) -> None:
    sys.stdout.write(line + '\n')
