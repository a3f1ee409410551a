"""`dispy cert` makes pairs that work, overwrites none, and says what is wrong with one."""

import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dispy_nb.certcommand import add_cert_parser
from nodeserver.cli.options import OptionParser
from nodeserver.core.errors import UsageError
from nodeserver.io.certificate import Certificate
from tests.support.certificates import needs_openssl, openssl, self_signed


def dispy(*words: object) -> int:
    parser = OptionParser(prog='dispy')
    add_cert_parser(parser.add_subparsers(required=True))
    chosen = parser.parse_args(['cert', *map(str, words)])
    status: int = chosen.run(chosen)
    return status


def test_a_new_pair_can_be_used_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    assert dispy('new', '--out', tmp_path, '--days', 90, '--name', 'lab') == 0
    path = tmp_path / 'dispy-cert.pem'
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    facts = Certificate(str(path)).pair().facts
    assert facts.subject == 'CN=lab'
    assert facts.serves_both_ways
    assert abs(facts.ends - time.time() - 90 * 86400) < 60


def test_certificate_and_key_can_have_files_of_their_own(tmp_path: Path) -> None:
    cert, key = tmp_path / 'cert.pem', tmp_path / 'key.pem'
    assert dispy('new', '--out', cert, '--keyfile', key) == 0
    assert 'PRIVATE' not in cert.read_text()
    assert 'CERTIFICATE' not in key.read_text()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    Certificate(str(cert), str(key)).pair()


def test_a_pair_is_overwritten_only_when_asked_to(tmp_path: Path) -> None:
    path = tmp_path / 'pair.pem'
    assert dispy('new', '--out', path) == 0
    before = path.read_text()
    with pytest.raises(UsageError, match=r'is there already: .*--replace'):
        dispy('new', '--out', path)
    assert path.read_text() == before
    assert dispy('new', '--out', path, '--replace') == 0
    assert path.read_text() != before
    assert [file.name for file in tmp_path.iterdir()] == ['pair.pem']


@needs_openssl
def test_show_says_whose_it_is_and_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / 'pair.pem'
    self_signed(path, 'cluster', 1000)
    assert dispy('show', path) == 0
    said = capsys.readouterr().out
    assert 'subject:     CN=cluster\n' in said
    assert 'state:       can be used\n' in said
    self_signed(path, 'cluster', 10)
    assert dispy('show', path) == 0
    assert 'expires in 9 days' in capsys.readouterr().out
    self_signed(path, 'cluster', 10, '-addext', 'extendedKeyUsage=clientAuth')
    assert dispy('show', path) == 1
    assert 'is for clientAuth only' in capsys.readouterr().out


@needs_openssl
def test_without_the_package_the_error_has_a_command_that_does_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'dispy_nb.certmaking', None)
    with pytest.raises(UsageError, match='pip install cryptography') as caught:
        dispy('new', '--out', tmp_path / 'pair.pem')
    program, *words = str(caught.value).partition('as well: ')[2].split()
    assert program == 'openssl'
    openssl(*words, cwd=tmp_path)
    Certificate(str(tmp_path / 'cert.pem')).pair()


@pytest.mark.parametrize(
    'words', [['--days', '0'], ['--days', 'x'], ['--name', ''], ['--name', 'x' * 65]]
)
def test_wrong_options_are_refused(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        dispy('new', '--out', tmp_path / 'pair.pem', *words)
    assert caught.value.code == 2


def test_the_program_has_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, '-m', 'dispy_nb', 'cert', 'new', '--out', str(tmp_path / 'pair.pem')],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert f'dispynode --certfile {tmp_path / "pair.pem"}\n' in done.stdout
