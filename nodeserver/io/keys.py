"""Whom we trust: this user's own key, passphrases, and the keys that are derived from them.

    own key file ──┐                          ┌─▶ link keys (CURVE, both roles)
                   ├─▶ Secret (32-byte root) ─┼─▶ proof key (inside TLS)
    passphrase ────┘  (scrypt, 0.1 s, once)   └─▶ beacon key (authenticates UDP packets)

No secret has a `repr`, a log line or a place in an error's text (D7).
"""

import base64
import binascii
import functools
import hashlib
import hmac
import logging
import os
import secrets
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import platformdirs
import zmq
from zmq.utils import z85

from nodeserver.core.errors import ConfigurationError, KeyFileError, UsageError, WrongType
from nodeserver.io.privatefiles import check_directory, read_private, write_private
from nodeserver.wire.beacon import INSECURE_KEY
from nodeserver.wire.linkkeys import LinkKeys

KEY_PREFIX: Final = 'dnk1-'
SECRET_VARIABLE: Final = 'DISPY_SECRET'
SHORTEST_PASSPHRASE: Final = 8
LONGEST_PASSPHRASE: Final = 1000  # it has to fit into an environment variable

_KEY_SIZE = 32
_CHECK_SIZE = 3  # with it a key is 56 characters without padding
_TEXT_SIZE = 56

_log = logging.getLogger(__name__)


class Secret:
    """What the programs of one cluster have in common; shows nothing of itself."""

    __slots__ = ('_root', 'is_own')

    def __init__(self, root: bytes | None, *, is_own: bool = False) -> None:
        self._root = root
        self.is_own = is_own

    @property
    def is_insecure(self) -> bool:
        """Whether there is no secret at all: links are neither encrypted nor authenticated."""
        return self._root is None

    def link_keys(self) -> LinkKeys | None:
        """Return the CURVE keys of links under this secret, None when insecure."""
        return None if self._root is None else _link_keys(self._root)

    def beacon_key(self) -> bytes:
        """Return the key that authenticates UDP packets; a public one when insecure."""
        return INSECURE_KEY if self._root is None else _expand(self._root, b'beacon')

    def proof_key(self) -> bytes:
        """Return the key with which the secret is proven inside TLS; there has to be one."""
        if self._root is None:
            raise UsageError('there is no secret to be proven: insecure was given')
        return _expand(self._root, b'tls proof')

    def to_keep(self) -> bytes:
        """Return what a file that is this user's alone has of it, for `kept_secret` (I09).

        It opens the same links; the passphrase itself cannot be told from it.
        """
        return self._root or b''

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return self.is_insecure == other.is_insecure and hmac.compare_digest(
            self._root or b'', other._root or b''
        )

    def __hash__(self) -> int:
        return hash(self._root)

    def __repr__(self) -> str:
        return '<Secret>'

    def __reduce__(self) -> str:
        raise TypeError('a Secret is not pickled: it never travels')


NO_SECRET: Final = Secret(None)


def choose_secret(
    secret: str = '',
    secret_file: str | os.PathLike[str] | None = None,
    insecure: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> Secret:
    """Return the secret in force: `secret`, else the file's, else DISPY_SECRET, else our key.

    Parameters
    ----------
    secret : str
        A passphrase that several machines share, or a key made by `dispy key export`.
    secret_file : path, optional
        A file of mode 0600 whose one line is such a text.
    insecure : bool
        Turn encryption and authentication off; excludes the two above.
    environ : mapping
        Where DISPY_SECRET is looked up.

    Raises
    ------
    UsageError
        A passphrase is too short, a key malformed, or `insecure` contradicts a secret.
    ConfigurationError
        DISPY_SECRET is set, and is no good.
    KeyFileError
        A file cannot be used: missing, malformed, or open to other users.
    WrongType
        `secret` is not a string; None does not mean "no secret".
    """
    if not isinstance(secret, str):
        raise WrongType(
            f"secret must be a string, not {type(secret).__name__}: '' means this user's own "
            f'key; insecure=True (--insecure) turns encryption off'
        )
    if insecure:
        _refuse_contradiction(secret, secret_file)
        return NO_SECRET
    if secret:
        return from_passphrase(secret, 'secret')
    if secret_file is not None:
        return from_file(secret_file)
    if SECRET_VARIABLE in environ:
        return _from_environment(environ[SECRET_VARIABLE])
    return own_key()


def _from_environment(text: str) -> Secret:
    """Return the secret of the variable; an empty one was meant to be something."""
    if not text:
        raise ConfigurationError(
            f"{SECRET_VARIABLE} is set, but empty: unset it to use this user's own key, or give "
            f'the passphrase that all machines share'
        )
    try:
        return from_passphrase(text, SECRET_VARIABLE)
    except UsageError as exc:
        raise ConfigurationError(str(exc)) from exc


def own_key() -> Secret:
    """Return this user's own key, which is made when it is asked for the first time."""
    return Secret(_own_root(), is_own=True)


def kept_secret(kept: bytes) -> Secret:
    """Return the secret of which a file of this user's has kept this."""
    if len(kept) != _KEY_SIZE:
        raise UsageError(f'a kept secret has {len(kept)} bytes, not {_KEY_SIZE}')
    return Secret(kept)


def from_passphrase(text: str, name: str = 'secret') -> Secret:
    """Return the secret of a shared passphrase, or of a key's text; `name` is for errors."""
    if text.startswith(KEY_PREFIX):
        root = _parse_key(text, name)
        return Secret(root, is_own=_is_own(root))
    if len(text) > LONGEST_PASSPHRASE or '\0' in text or not _is_encodable(text):
        raise UsageError(
            f'{name} must be text of at most {LONGEST_PASSPHRASE} characters, without NUL'
        )
    if len(text) < SHORTEST_PASSPHRASE:
        raise UsageError(
            f'{name} has {len(text)} characters: give {SHORTEST_PASSPHRASE} or more, or none '
            f"at all to use this user's own key (`dispy key export` copies that one)"
        )
    return Secret(_stretched(text))


def _is_own(root: bytes) -> bool:
    """Whether this is this user's own key; one that cannot be read is not asked for here."""
    try:
        return root == _existing_root()
    except KeyFileError:
        return False


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # its own words would show the text
        return False
    return True


def from_file(path: str | os.PathLike[str]) -> Secret:
    """Return the secret in the one line of a file that only its owner can read."""
    text = read_private(Path(path))
    try:
        return from_passphrase(text, f'the secret in {os.fspath(path)}')
    except UsageError as exc:
        raise KeyFileError(str(exc)) from exc


def export_key() -> str:
    """Return this user's own key as one line of text, to be imported on another machine."""
    return _format_key(_own_root())


def import_key(text: str, replace: bool = False) -> None:
    """Make the key in `text` this user's own; a different one is only replaced when asked to."""
    root = _parse_key(text.strip(), 'the key')
    if _publish(root, replace=replace):
        return
    present = _existing_root()
    if present is None or not hmac.compare_digest(present, root):
        raise UsageError(
            f'{key_path()} holds another key: add --replace to overwrite it (machines that '
            f'have the old one will then need the new one too)'
        )


def rotate_key() -> None:
    """Make a new key this user's own, whatever there was; `old_key_path` has that then."""
    _publish(secrets.token_bytes(_KEY_SIZE), replace=True)


def key_path() -> Path:
    """Return where this user's own key is kept."""
    path = Path(platformdirs.user_config_dir('dispy-nb')) / 'key'
    if not path.is_absolute():  # a number without an account, as in many containers
        raise KeyFileError(
            f'this user has no home directory for a key file: set HOME, or {SECRET_VARIABLE}, or '
            'give a --secret-file'
        )
    return path


def old_key_path() -> Path:
    """Return where the key is kept that was replaced last."""
    return key_path().with_name('key.old')


def key_fingerprint() -> str:
    """Return a short name of this user's own key, by which people can compare two machines."""
    return _expand(_own_root(), b'fingerprint')[:4].hex('-', 2)


def _refuse_contradiction(secret: str, secret_file: str | os.PathLike[str] | None) -> None:
    if secret or secret_file is not None:
        given = 'secret' if secret else 'secret_file'
        raise UsageError(f'{given} and insecure contradict each other: give only one of them')


# the own key's file


def _own_root() -> bytes:
    """Read the own key, made now if there is none; programs that start at once agree on it."""
    present = _existing_root()
    if present is None:
        _publish(secrets.token_bytes(_KEY_SIZE), replace=False)
        present = _existing_root()
    if present is None:
        raise KeyFileError(f'the key file {key_path()} vanished as soon as it was made')
    return present


def _existing_root() -> bytes | None:
    path = key_path()
    try:
        if not path.exists():
            return None
        check_directory(path.parent)
    except KeyFileError:
        raise
    except OSError as exc:
        raise KeyFileError(f'the key file {path} cannot be reached: {exc.strerror}') from exc
    try:
        return _parse_key(read_private(path), f'the key in {path}')
    except UsageError as exc:
        raise KeyFileError(f'{exc}. Remove the file to have a new key made: rm {path}') from exc


def _publish(root: bytes, *, replace: bool) -> bool:
    """Put a whole key file in place at one stroke; False when there is one already."""
    path = key_path()
    fresh = path.with_name(f'key.{os.getpid()}.{secrets.token_hex(4)}')
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_directory(path.parent)
        write_private(fresh, _format_key(root) + '\n')
        try:
            return _put_in_place(fresh, path, replace)
        finally:
            fresh.unlink(missing_ok=True)
    except KeyFileError:
        raise
    except OSError as exc:
        raise KeyFileError(
            f'the key file {path} cannot be made ({exc.filename}: {exc.strerror}): set '
            f'{SECRET_VARIABLE}, or give a --secret-file, to do without one'
        ) from exc


def _put_in_place(fresh: Path, path: Path, replace: bool) -> bool:
    if replace:
        if path.exists():
            kept = fresh.with_name(f'{fresh.name}.old')
            kept.hardlink_to(path)  # at every moment there is a key
            kept.replace(old_key_path())
        fresh.replace(path)
        return True
    try:
        path.hardlink_to(fresh)  # unlike a rename, it fails when another program was first
    except FileExistsError:
        return False
    return True


# texts and derived keys


def _format_key(root: bytes) -> str:
    return KEY_PREFIX + base64.b32encode(root + _check(root)).decode().lower()


def _parse_key(text: str, name: str) -> bytes:
    """Read a key's text; errors say what is wrong with it and show nothing of it."""
    if not text.startswith(KEY_PREFIX):
        raise UsageError(f'{name} is malformed: it must begin with {KEY_PREFIX!r}')
    rest = text.removeprefix(KEY_PREFIX)
    if len(rest) != _TEXT_SIZE:
        raise UsageError(
            f'{name} is malformed: {len(rest)} characters after {KEY_PREFIX!r}, not {_TEXT_SIZE}'
        )
    try:
        data = base64.b32decode(rest, casefold=True)
    except (binascii.Error, ValueError) as exc:
        raise UsageError(f'{name} is malformed: only a-z and 2-7 follow {KEY_PREFIX!r}') from exc
    root, check = data[:_KEY_SIZE], data[_KEY_SIZE:]
    if not hmac.compare_digest(check, _check(root)):
        raise UsageError(f'{name} is mistyped or damaged: its check characters do not fit')
    return root


def _check(root: bytes) -> bytes:
    return _expand(root, b'check')[:_CHECK_SIZE]


@functools.lru_cache(maxsize=32)
def _stretched(passphrase: str) -> bytes:
    """Make a guess at a passphrase cost 0.1 s; different keyboards may compose letters apart."""
    text = unicodedata.normalize('NFKC', passphrase).encode()
    salt = b'dispy-nb passphrase 1'
    return hashlib.scrypt(text, salt=salt, n=2**15, r=8, p=1, maxmem=64 << 20, dklen=_KEY_SIZE)


@functools.lru_cache(maxsize=32)
def _link_keys(root: bytes) -> LinkKeys:
    server, client = (
        z85.encode(_expand(root, purpose)) for purpose in (b'link server', b'link client')
    )
    return LinkKeys(
        server_public=zmq.curve_public(server),
        server_secret=server,
        client_public=zmq.curve_public(client),
        client_secret=client,
    )


def _expand(root: bytes, purpose: bytes) -> bytes:
    """Derive an independent key for one purpose; the root is random enough to need no stretch."""
    return hashlib.blake2b(purpose, digest_size=32, key=root, person=b'dispy-nb keys 1').digest()
