"""Certificates of every kind that tests show to both ends, made by openssl."""

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

from nodeserver.io.certificate import Certificate, TlsIdentity

# with CI=true a tool that could be installed is not missing in silence: the command fails
needs_openssl = pytest.mark.skipif(
    not shutil.which('openssl') and os.environ.get('CI') != 'true', reason='no openssl command'
)

_EC = ('-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes')


def openssl(*words: object, cwd: Path | None = None) -> None:
    """Run a command of openssl."""
    done = subprocess.run(
        ['openssl', *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def self_signed(path: Path, name: str = 'cluster', days: int = 1000, *more: object) -> Path:
    """Make a self-signed pair in one file."""
    path.unlink(missing_ok=True)
    openssl(
        *('req', '-x509', *_EC, '-days', days, '-subj', f'/CN={name}', *more),
        *('-keyout', path, '-out', path),
    )
    return path


def in_two_files(path: Path) -> tuple[str, str]:
    """Split a pair into a certificate and a key."""
    key, begin, certificate = path.read_text().partition('-----BEGIN CERTIFICATE')
    certfile, keyfile = path.with_suffix('.cert'), path.with_suffix('.key')
    certfile.write_text(begin + certificate)
    keyfile.write_text(key)
    keyfile.chmod(0o600)
    return str(certfile), str(keyfile)


def signed_by_ca(directory: Path, *names: str) -> list[Path]:
    """Make pairs that one CA has signed, each in one file; the CA is in `ca.pem`."""
    ca = self_signed(directory / 'ca.pem', 'the CA')
    made = []
    for name in names:
        key, request, cert = (directory / f'{name}.{end}' for end in ('key', 'csr', 'crt'))
        openssl('req', *_EC, '-subj', f'/CN={name}', '-keyout', key, '-out', request)
        openssl(
            *('x509', '-req', '-in', request, '-CA', ca, '-CAkey', ca, '-CAcreateserial'),
            *('-days', 1000, '-out', cert),
        )
        both = directory / f'{name}.pem'
        both.write_text(cert.read_text() + key.read_text())
        both.chmod(0o600)
        made.append(both)
    return made


@cache
def our_identity() -> TlsIdentity:
    """Return what the two ends of most tests share."""
    with tempfile.TemporaryDirectory() as directory:
        certificate = Certificate(str(self_signed(Path(directory) / 'pair.pem')))
        certificate.pair()
    return TlsIdentity(certificate, bytes(32))
