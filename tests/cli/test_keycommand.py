"""`dispy key` carries a key to another machine, and shows it only when asked to."""

import io

import pytest

from dispy_nb.keycommand import add_key_parser
from nodeserver.cli.options import OptionParser
from nodeserver.core.errors import UsageError
from nodeserver.io import keys


def dispy(*words: str) -> int:
    parser = OptionParser(prog='dispy')
    add_key_parser(parser.add_subparsers(required=True))
    chosen = parser.parse_args(['key', *words])
    status: int = chosen.run(chosen)
    return status


def move_in_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CONFIG_HOME', str(keys.key_path().parents[1] / 'elsewhere'))


def test_exported_line_is_imported_on_another_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dispy('export') == 0
    line, own = capsys.readouterr().out, keys.own_key()
    move_in_elsewhere(monkeypatch)
    program, *words = line.split()
    assert program == 'dispy'
    assert dispy(*words[1:]) == 0
    assert keys.own_key() == own


@pytest.mark.parametrize('words', [[], ['-']])
def test_whole_line_is_taken_from_standard_input(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line, own = f'dispy key import {keys.export_key()}\n', keys.own_key()
    move_in_elsewhere(monkeypatch)
    monkeypatch.setattr('sys.stdin', io.StringIO(line))
    assert dispy('import', *words) == 0
    assert keys.own_key() == own


def test_empty_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('sys.stdin', io.StringIO(''))
    with pytest.raises(UsageError, match='no key was given'):
        dispy('import')


def test_key_that_is_there_is_kept_unless_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    text = keys.export_key()
    move_in_elsewhere(monkeypatch)
    keys.own_key()
    with pytest.raises(UsageError, match='--replace'):
        dispy('import', text)
    assert dispy('import', text, '--replace') == 0
    assert keys.export_key() == text


def test_show_and_path_do_not_show_the_key(capsys: pytest.CaptureFixture[str]) -> None:
    text = keys.export_key().removeprefix(keys.KEY_PREFIX)
    assert dispy('show') == dispy('path') == 0
    shown = capsys.readouterr().out
    assert str(keys.key_path()) in shown
    assert keys.key_fingerprint() in shown
    assert text[:8] not in shown
