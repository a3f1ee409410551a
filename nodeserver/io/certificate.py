"""The certificate and key of this side, and what OpenSSL is told to make of them (D7).

One self-signed pair, or one pair that a CA has signed, is copied to all machines: a peer is one
of ours when it shows this very certificate and has its key.  Its issuer vouches for nothing.
"""

import contextlib
import hashlib
import logging
import os
import ssl
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from nodeserver.core.errors import CertificateError, UsageError
from nodeserver.wire.x509 import CertificateFacts, read_certificate

OPENSSL_COMMAND: Final = (
    'openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1000 '
    '-subj /CN=dispy-nb -keyout cert.pem -out cert.pem'
)
EXPIRES_SOON: Final = 30 * 86400.0  # seconds
LOOK_INTERVAL: Final = 5.0  # seconds between looks whether the files were replaced

_LARGEST_FILE = 1 << 20
_BEGIN, _END = '-----BEGIN CERTIFICATE-----', '-----END CERTIFICATE-----'
_log = logging.getLogger(__name__)

Stamp = tuple[tuple[int, int, int], ...]  # of each file: device's number, size, time of change


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its key, as it was read: what connections are made with."""

    facts: CertificateFacts
    fingerprint: bytes
    as_server: ssl.SSLContext = field(repr=False)
    as_client: ssl.SSLContext = field(repr=False)


class Certificate:
    """The pair in two files, or in one; it is read again when the files are replaced."""

    def __init__(self, certfile: str, keyfile: str | None = None) -> None:
        self._certfile, self._keyfile = Path(certfile), Path(keyfile or certfile)
        self._stamp = self._look()
        self._pair = load_pair(self._certfile, self._keyfile)
        self._looked_at = time.monotonic()
        self._complained_of: Stamp = ()

    @property
    def names(self) -> tuple[str, str]:
        """The paths of the files, absolute: the program's directory may change."""
        return str(self._certfile.absolute()), str(self._keyfile.absolute())

    def pair(self) -> Pair:
        """Return the pair in force; one that was put in its place is used from now on."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_INTERVAL:
            self._looked_at = now
            with contextlib.suppress(CertificateError):  # just being replaced, or gone
                self._read_anew(self._look())
        return self._pair

    def openness(self) -> str:
        """Say that other users can read the key, and what to do; '' if they cannot."""
        mode = self._keyfile.stat().st_mode & 0o777 if hasattr(os, 'getuid') else 0
        if not mode & 0o077:
            return ''
        key = self._keyfile
        return f'the key in {key} is open to other users (mode {mode:04o}): chmod 600 {key}'

    def warning(self, now: float) -> str:
        """Say that the certificate ends soon, or has ended; '' if all is well."""
        return expiry_words(self.pair().facts, now, str(self._certfile))

    def _read_anew(self, stamp: Stamp) -> None:
        if stamp == self._stamp:
            return
        try:
            self._pair = load_pair(self._certfile, self._keyfile)
        except CertificateError as error:
            if stamp != self._complained_of:
                self._complained_of = stamp
                _log.warning('the certificate before it is still used: %s', error)
            return
        self._stamp = stamp
        _log.info('new connections use the new certificate in %s', self._certfile)

    def _look(self) -> Stamp:
        try:
            facts = [path.stat() for path in (self._certfile, self._keyfile)]
        except OSError as error:
            raise CertificateError(
                f'{error.filename} cannot be read: {error.strerror}. A pair is made by '
                f'`dispy cert new`, or: {OPENSSL_COMMAND}'
            ) from error
        return tuple((fact.st_ino, fact.st_size, fact.st_mtime_ns) for fact in facts)


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """What this side proves itself with on TLS connections."""

    certificate: Certificate
    proof_key: bytes = field(repr=False)


def choose_certificate(
    certfile: str | None, keyfile: str | None, insecure: bool = False
) -> Certificate | None:
    """Return the certificate that was asked for, None where none was.

    Raises
    ------
    UsageError
        `keyfile` comes without `certfile`, or `insecure` contradicts them.
    CertificateError
        The files cannot be used; the text names the file and says what to do.
    """
    check_choice(certfile, keyfile, insecure)
    if not certfile:
        return None
    certificate = Certificate(certfile, keyfile)
    if words := certificate.openness():
        _log.warning('%s', words)
    return certificate


def check_choice(certfile: str | None, keyfile: str | None, insecure: bool) -> None:
    """Raise `UsageError` for what contradicts itself, whatever the files hold."""
    if keyfile and not certfile:
        raise UsageError(f'keyfile={keyfile!r} is the key of a certfile, which is missing')
    if certfile and insecure:
        raise UsageError(
            'certfile and insecure contradict each other: SSL proves who connects, and insecure '
            'lets everybody in; give only one of them'
        )


def load_pair(certfile: Path, keyfile: Path) -> Pair:
    """Read a pair and try it out; `CertificateError` names the file and what is wrong with it."""
    text = first_certificate(certfile)
    facts, der = facts_of(text, certfile)
    pair = Pair(
        facts,
        fingerprint_of(der),
        _context(True, text, certfile, keyfile),
        _context(False, text, certfile, keyfile),
    )
    if words := unfitness(facts, time.time()):
        raise CertificateError(f'the certificate in {certfile} {words}')
    try:
        _shake_hands(pair)
    except ssl.SSLError as error:
        reason = getattr(error, 'verify_message', '') or error.reason
        raise CertificateError(
            f'the certificate in {certfile} cannot be used for SSL in both directions '
            f'({reason}): make another by `dispy cert new`'
        ) from error
    return pair


def facts_of(text: str, certfile: Path) -> tuple[CertificateFacts, bytes]:
    """Read a certificate in PEM: what it says of itself, and its DER."""
    try:
        der = ssl.PEM_cert_to_DER_cert(text)
        return read_certificate(der), der
    except ValueError as error:
        raise CertificateError(f'the certificate in {certfile} is damaged: {error}') from error


def fingerprint_of(der: bytes) -> bytes:
    """Return what tells a certificate from all others."""
    return hashlib.sha256(der).digest()


def unfitness(facts: CertificateFacts, now: float) -> str:
    """Say why nobody would accept the certificate now, and what to do; '' if it can be used."""
    if facts.begins > now:
        return f'is not valid before {day(facts.begins)}: is the clock of this machine right?'
    if facts.ends <= now:
        return f'expired on {day(facts.ends)}: make another, such as by `dispy cert new --replace`'
    if not facts.serves_both_ways:
        uses = ', '.join(sorted(facts.uses or ())) or 'nothing'
        return (
            f'is for {uses} only, and each side needs serverAuth and clientAuth: make another, '
            'such as by `dispy cert new --replace`'
        )
    return ''


def expiry_words(facts: CertificateFacts, now: float, name: str) -> str:
    """Say that a certificate ends within the next days, or has ended; '' if there is time."""
    left = facts.ends - now
    if left > EXPIRES_SOON:
        return ''
    if left <= 0:
        when = f'expired on {day(facts.ends)}: no new connection is made'
    else:
        days = int(left // 86400)
        when = f'expires in {days} {"day" if days == 1 else "days"}, on {day(facts.ends)}'
    return f'the certificate in {name} {when}; replace it on all machines (docs/ssl.md)'


def words_of_facts(facts: CertificateFacts) -> str:
    """Say in few words which certificate this is."""
    return f'{facts.subject}, until {day(facts.ends)}'


def day(moment: float) -> str:
    """Write a moment as a certificate's dates are written."""
    return datetime.fromtimestamp(moment, UTC).strftime('%Y-%m-%d %H:%M UTC')


def first_certificate(path: Path) -> str:
    """Return the first certificate in a file, as PEM: a chain after it vouches for too many."""
    try:
        with path.open('rb') as file:
            data = file.read(_LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CertificateError(
            f'{path} cannot be read: {reason}. A pair is made by `dispy cert new`, or: '
            f'{OPENSSL_COMMAND}'
        ) from error
    if len(data) > _LARGEST_FILE:
        raise CertificateError(f'{path} is larger than any certificate')
    _, found, rest = data.decode('latin-1').partition(_BEGIN)
    body, end, _ = rest.partition(_END)
    if not (found and end):
        raise CertificateError(
            f'{path} holds no certificate in PEM (a line {_BEGIN}); of one in DER: '
            f'openssl x509 -inform DER -in {path} -out cert.pem'
        )
    return f'{_BEGIN}{body}{_END}\n'


class _EncryptedError(Exception):
    """The key asks for a password; OpenSSL would ask on the terminal."""


def _no_password() -> str:
    raise _EncryptedError


def _context(is_server: bool, text: str, certfile: Path, keyfile: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # programs are known by certificate, not by name
    context.verify_mode = ssl.CERT_REQUIRED
    if is_server:
        context.num_tickets = 0  # each connection is proven anew, and bound to its own handshake
    try:
        context.load_cert_chain(certfile, keyfile, password=_no_password)
        context.load_verify_locations(cadata=text)
    except _EncryptedError:
        raise CertificateError(
            f'the key in {keyfile} is encrypted, and a program that starts by itself cannot ask '
            f'for its password: openssl pkey -in {keyfile} -out plainkey.pem writes it without'
        ) from None
    except ssl.SSLError as error:
        raise CertificateError(_words_of_loading(error, certfile, keyfile)) from error
    except OSError as error:
        raise CertificateError(f'{keyfile} cannot be read: {error.strerror}') from error
    # trust this one certificate, whoever has signed it, and nothing else
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _words_of_loading(error: ssl.SSLError, certfile: Path, keyfile: Path) -> str:
    if error.reason in ('KEY_VALUES_MISMATCH', 'KEY_TYPE_MISMATCH'):
        return (
            f'the key in {keyfile} is not that of the certificate in {certfile}: give the two '
            'files that were made together'
        )
    if error.reason and ('TOO_SMALL' in error.reason or 'TOO_WEAK' in error.reason):
        return f'the certificate in {certfile} is too weak ({error.reason}): make another'
    if certfile == keyfile:
        return (
            f'{certfile} holds no private key that can be read: append it, or give its file as '
            'keyfile'
        )
    return f'{keyfile} holds no private key in PEM that can be read'


def _shake_hands(pair: Pair) -> None:
    """Connect to ourselves in memory: what OpenSSL would object to is found at the start."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        pair.as_client.wrap_bio(back, there),
        pair.as_server.wrap_bio(there, back, server_side=True),
    )
    for _ in range(3):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
