"""The `dispy` command as a real program."""

import subprocess
import sys
from pathlib import Path

import pytest

DISPY = (sys.executable, '-m', 'dispy_nb')


def dispy(*words: str, **details: object) -> 'subprocess.CompletedProcess[str]':
    return subprocess.run(
        [*DISPY, *words], capture_output=True, text=True, timeout=30, check=False, **details
    )


@pytest.mark.slow
def test_key_travels_to_another_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    exported = dispy('key', 'export')
    assert (exported.returncode, exported.stderr) == (0, '')
    shown = dispy('key', 'show').stdout
    path = Path(dispy('key', 'path').stdout.strip())
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().strip() not in shown

    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('XDG_CONFIG_HOME', str(tmp_path / '.config'))
    taken = dispy('key', 'import', input=exported.stdout)
    assert (taken.returncode, taken.stderr) == (0, '')
    assert taken.stdout.split()[-1] == shown.split()[-1]
    assert Path(dispy('key', 'path').stdout.strip()).read_bytes() == path.read_bytes()


def test_malformed_key_is_refused_in_one_line():
    done = dispy('key', 'import', 'no-key')
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr.count('\n') == 1
    assert 'Traceback' not in done.stderr


def test_unknown_command_is_answered_with_those_there_are():
    done = dispy('dance')
    assert done.returncode == 2
    assert "invalid choice: 'dance'" in done.stderr
    assert 'demo' in done.stderr
    assert 'key' in done.stderr


def test_no_command_at_all_shows_the_help():
    done = dispy()
    assert (done.returncode, done.stdout) == (2, '')
    assert 'usage: dispy ' in done.stderr
    assert 'demo' in done.stderr


@pytest.mark.parametrize('option', ['--version', '-h'])
def test_version_and_help_are_results(option: str):
    done = dispy(option)
    assert (done.returncode, done.stderr) == (0, '')
    assert 'dispy' in done.stdout


def test_script_and_module_are_the_same_program():
    script = Path(sys.executable).with_name('dispy')
    if not script.exists():
        pytest.skip('the package is not installed here')
    done = subprocess.run(
        [script, '--version'], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == dispy('--version').stdout
