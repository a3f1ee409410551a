"""Looks at this machine: versions, names, networks, keys, directories, limits and its clock."""

import contextlib
import importlib.util
import os
import platform
import resource
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zmq

import nodeserver
from dispy_nb.doctor.facts import (
    CertificateState,
    Directory,
    KeyState,
    Networks,
    OwnName,
    Versions,
)
from nodeserver.core.errors import CertificateError, DispyError, KeyFileError
from nodeserver.io import keys, netif
from nodeserver.io.certificate import Certificate, words_of_facts
from nodeserver.io.keys import Secret
from nodeserver.services.diagnosis import dispy_version

_NEEDED: Final = ('cloudpickle', 'msgspec', 'platformdirs', 'psutil')
_NEIGHBOURS: Final = Path('/proc/net/arp')
_ANSWERED: Final = 0x2  # ATF_COM of arp(7): its network card has answered


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the command line says about the secret and the certificate."""

    secret: str = ''
    secret_file: str | None = None
    insecure: bool = False
    certfile: str | None = None
    keyfile: str | None = None


def look_at_versions() -> Versions:
    """See what is installed here; psutil alone can be done without."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    return Versions(
        dispy_version(), platform.python_version(), tuple(missing), bool(zmq.has('curve'))
    )


def look_at_name() -> OwnName:
    """Ask what this machine's own name means to it."""
    name = socket.gethostname()
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        found = []
    addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
    return OwnName(name, tuple(addresses), own_addresses())


def own_addresses() -> frozenset[str]:
    """Return all addresses of this machine, without the interface of link-local ones."""
    return frozenset(each.address.partition('%')[0] for each in netif.interfaces())


def look_at_networks() -> Networks:
    """List interfaces that other machines may hear."""
    present = [each for each in netif.interfaces() if not each.is_loopback]
    return Networks(tuple((each.name, each.address, each.broadcast) for each in present))


def look_at_key(given: Credentials) -> tuple[KeyState, Secret]:
    """Find out whom this machine trusts, and make no key by that.

    Where there is no key, or none that can be used, the secret is one of this moment: under it
    nodes can be pinged, which then answer that they have another.
    """
    path = str(keys.key_path())
    stand_in = Secret(os.urandom(32))
    try:
        is_own = not (given.insecure or given.secret or given.secret_file)
        is_own = is_own and not os.environ.get(keys.SECRET_VARIABLE)
        if is_own and not keys.key_path().exists():
            return KeyState('none yet', path, _why_no_key(keys.key_path())), stand_in
        secret = keys.choose_secret(given.secret, given.secret_file, given.insecure)
    except DispyError as error:
        return KeyState('unusable', path, str(error)), stand_in
    except OSError as error:
        return KeyState('unusable', path, f'{path} cannot be looked at: {error.strerror}'), stand_in
    kind = 'insecure' if given.insecure else 'own' if is_own else 'passphrase'
    return KeyState(kind, path), secret


def look_at_certificate(given: Credentials) -> tuple[CertificateState, Certificate | None]:
    """Read the certificate that was given, if any, as a program would at its start."""
    if not given.certfile:
        return CertificateState(), None
    try:
        certificate = Certificate(given.certfile, given.keyfile)
        warnings = certificate.openness(), certificate.warning(time.time())
    except CertificateError as error:
        return CertificateState('unusable', str(error)), None
    found = f'{words_of_facts(certificate.pair().facts)}, in {given.certfile}'
    return CertificateState('usable', found, tuple(filter(None, warnings))), certificate


def _why_no_key(path: Path) -> str:
    """Say why a key could not be made at first use either; '' where it could."""
    parent = next(each for each in path.parents if each.exists())
    if not os.access(parent, os.W_OK | os.X_OK):
        return f'{parent} cannot be written to, so none can be made'
    return ''


def look_at_directories() -> list[Directory]:
    """Look at the places where nodes and clusters keep files and sockets."""
    temporary = Path(tempfile.gettempdir())
    found = [_directory('files of nodes and jobs', temporary)]
    try:
        runtime = netif.runtime_directory()
    except KeyFileError as error:
        found.append(Directory('local sockets', '', str(error)))
    else:
        if runtime.stat().st_dev != temporary.stat().st_dev:
            found.append(_directory('local sockets', runtime))
    return found


def _directory(purpose: str, path: Path) -> Directory:
    try:
        disk = os.statvfs(path)
        _try_to_write(path)
    except OSError as error:
        disk_full = error.errno in (28, 122)  # ENOSPC, EDQUOT: the figures say it better
        words = '' if disk_full else f'nothing can be written to {path}: {error.strerror}'
        if not disk_full:
            return Directory(purpose, str(path), words)
        disk = os.statvfs(path)
        return Directory(purpose, str(path), free=0, files_free=_files_free(disk))
    free = disk.f_bavail * disk.f_frsize
    return Directory(purpose, str(path), free=free, files_free=_files_free(disk))


def _files_free(disk: os.statvfs_result) -> int:
    return disk.f_favail if disk.f_files else -1


def _try_to_write(path: Path) -> None:
    """Write a block, as a disk may be full for us alone (a quota)."""
    with tempfile.NamedTemporaryFile(dir=path, prefix='.dispy-doctor-') as file:
        file.write(bytes(4096))
        file.flush()


def look_at_file_limit() -> int:
    """Return how many files a process may open here; -1 is no limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return -1 if most == resource.RLIM_INFINITY else most


def look_at_clock() -> tuple[float, float]:
    """Return the time now, and that of the installation, before which it cannot be."""
    file = Path(nodeserver.__file__ or __file__)
    with contextlib.suppress(OSError):
        return time.time(), file.stat().st_mtime
    return time.time(), 0.0


def neighbour(address: str) -> bool | None:
    """Tell whether a machine of our own network answers for this address; None: not known."""
    for row in _neighbours():
        if row[0] == address:
            return bool(int(row[2], 16) & _ANSWERED)
    return None


def _neighbours() -> Iterator[list[str]]:
    try:
        lines = _NEIGHBOURS.read_text(encoding='ascii').splitlines()[1:]
    except OSError:  # not Linux
        return
    yield from (row for row in map(str.split, lines) if len(row) > 3)
