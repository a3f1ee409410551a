"""Keys are made once, kept to their owner, and shown to nobody."""

import json
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nodeserver.core.errors import KeyFileError, UsageError
from nodeserver.io import keys
from nodeserver.wire.beacon import INSECURE_KEY

PASSPHRASE = 'correct horse battery'


def test_own_key_is_made_once_and_private() -> None:
    first = keys.own_key()
    assert keys.own_key() == first
    assert first.is_own
    assert keys.key_path().stat().st_mode & 0o777 == 0o600
    assert keys.key_path().parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in keys.key_path().parent.iterdir()] == ['key']


def test_programs_that_start_at_once_agree_on_the_key() -> None:
    code = (
        'import sys\nfrom nodeserver.io import keys\n'
        "print('ready', flush=True)\nsys.stdin.readline()\nprint(keys.export_key())"
    )
    programs = [
        subprocess.Popen(
            [sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for program in programs:
        assert program.stdout
        assert program.stdout.readline() == 'ready\n'
    for program in programs:  # all are loaded: they race from here
        assert program.stdin
        program.stdin.write('go\n')
        program.stdin.flush()
    exported = {program.communicate(timeout=30)[0] for program in programs}
    assert exported == {keys.export_key() + '\n'}
    assert [path.name for path in keys.key_path().parent.iterdir()] == ['key']


@pytest.mark.parametrize('mode', [0o640, 0o604, 0o666])
def test_key_file_open_to_others_is_refused_with_the_cure(mode: int) -> None:
    keys.own_key()
    keys.key_path().chmod(mode)
    with pytest.raises(KeyFileError, match=f'chmod 600 {keys.key_path()}'):
        keys.own_key()


def test_key_directory_that_others_can_write_is_refused_with_the_cure() -> None:
    keys.own_key()
    keys.key_path().parent.chmod(0o777)
    with pytest.raises(KeyFileError, match=f'chmod 700 {keys.key_path().parent}'):
        keys.own_key()


def test_damaged_key_file_is_not_replaced_in_silence() -> None:
    keys.own_key()
    for text in ('', 'nonsense\n', keys.KEY_PREFIX + 'a' * 56 + '\n', 'dnk1-\n\n'):
        keys.key_path().write_text(text)
        with pytest.raises(KeyFileError):
            keys.own_key()
        assert keys.key_path().read_text() == text


def test_place_that_takes_no_key_is_named_with_the_ways_round() -> None:
    keys.key_path().parent.write_text('a file where the directory should be')
    with pytest.raises(KeyFileError, match=r'cannot be made.*DISPY_SECRET.*--secret-file'):
        keys.own_key()


def test_exported_key_makes_another_user_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    text, first, mark = keys.export_key(), keys.own_key(), keys.key_fingerprint()
    monkeypatch.setenv('XDG_CONFIG_HOME', str(keys.key_path().parents[1] / 'other'))
    keys.import_key(text)
    keys.import_key(text)
    assert keys.own_key() == first
    assert keys.own_key().link_keys() == first.link_keys()
    assert keys.key_fingerprint() == mark


def test_another_key_is_only_replaced_when_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    text, config = keys.export_key(), keys.key_path().parents[1]
    monkeypatch.setenv('XDG_CONFIG_HOME', str(config / 'other'))
    old = keys.export_key()
    with pytest.raises(UsageError, match='--replace'):
        keys.import_key(text)
    assert keys.export_key() == old
    keys.import_key(text, replace=True)
    assert keys.export_key() == text
    assert keys.key_path().stat().st_mode & 0o777 == 0o600


def test_malformed_key_is_refused_saying_what_is_wrong_and_not_the_key() -> None:
    text = keys.export_key()
    swapped = text[:-1] + ('a' if text[-1] != 'a' else 'b')
    for wrong, says in [
        ('hello', 'must begin with'),
        (text[:-2], '54 characters'),
        (text[:-1] + '!', 'a-z and 2-7'),
        (swapped, 'mistyped'),
    ]:
        with pytest.raises(UsageError, match=says) as caught:
            keys.import_key(wrong)
        assert text[10:-4] not in str(caught.value)


def test_order_of_secrets(tmp_path: Path) -> None:
    file = tmp_path / 'secret'
    file.write_text('from a file\n')
    file.chmod(0o600)
    environ = {keys.SECRET_VARIABLE: 'from environ'}
    expected = {
        'argument': keys.from_passphrase('from argument'),
        'environ': keys.from_passphrase('from environ'),
        'file': keys.from_passphrase('from a file'),
    }
    assert len({*expected.values(), keys.own_key()}) == 4
    assert keys.choose_secret('from argument', file, environ=environ) == expected['argument']
    assert keys.choose_secret('', file, environ=environ) == expected['file']
    assert keys.choose_secret(environ=environ) == expected['environ']
    assert keys.choose_secret(environ={}) == keys.own_key()


def test_insecure_has_no_keys_and_excludes_secrets(tmp_path: Path) -> None:
    secret = keys.choose_secret(insecure=True)
    assert secret.is_insecure
    assert secret.link_keys() is None
    assert secret.beacon_key() == INSECURE_KEY
    assert not keys.key_path().exists()
    with pytest.raises(UsageError, match='secret and insecure'):
        keys.choose_secret(PASSPHRASE, insecure=True)
    with pytest.raises(UsageError, match='secret_file and insecure'):
        keys.choose_secret(secret_file=tmp_path, insecure=True)


def test_secret_none_is_a_type_error() -> None:
    with pytest.raises(TypeError, match='insecure=True'):
        keys.choose_secret(None)  # type: ignore[arg-type]


def test_short_passphrase_is_refused_and_not_shown() -> None:
    with pytest.raises(UsageError, match='7 characters') as caught:
        keys.choose_secret('sesame1')
    assert 'sesame1' not in str(caught.value)


def test_exported_key_as_secret_is_that_key() -> None:
    own = keys.own_key()
    assert keys.choose_secret(keys.export_key()) == own
    assert keys.choose_secret(keys.export_key()).is_own
    foreign = keys._format_key(bytes(32))
    assert not keys.choose_secret(foreign).is_own


def test_secret_file_must_be_private_and_one_line(tmp_path: Path) -> None:
    file = tmp_path / 'secret'
    file.write_text(PASSPHRASE + '\n')
    file.chmod(0o644)
    with pytest.raises(KeyFileError, match=f'chmod 600 {file}'):
        keys.from_file(file)
    file.chmod(0o600)
    assert keys.from_file(file) == keys.from_passphrase(PASSPHRASE)
    file.write_text(PASSPHRASE + '\nmore\n')
    with pytest.raises(KeyFileError, match='one line'):
        keys.from_file(file)
    with pytest.raises(KeyFileError, match='cannot be read'):
        keys.from_file(tmp_path / 'none')


def test_secret_reveals_nothing() -> None:
    secret = keys.from_passphrase(PASSPHRASE)
    link_keys = secret.link_keys()
    assert link_keys
    shown = f'{secret!r} {secret} {secret!s} {link_keys!r} {[secret]} {dir(secret)}'
    hidden = [PASSPHRASE, link_keys.server_secret.decode(), secret.beacon_key().hex()]
    assert not [text for text in hidden if text in shown]
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        json.dumps(secret)


def test_derived_keys_are_all_different_and_passphrases_stretched_once() -> None:
    secret = keys.from_passphrase(PASSPHRASE)
    link_keys = secret.link_keys()
    assert link_keys
    derived = {
        link_keys.server_public,
        link_keys.server_secret,
        link_keys.client_public,
        link_keys.client_secret,
        secret.beacon_key(),
    }
    assert len(derived) == 5
    begun = time.perf_counter()
    for _ in range(100):
        assert keys.from_passphrase(PASSPHRASE) == secret
    assert time.perf_counter() - begun < 1.0  # a single stretch takes 0.1
