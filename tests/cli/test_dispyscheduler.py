"""The command line of dispyscheduler: what is refused, and what is saved."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nodeserver.cli import dispyscheduler

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], own_home: Path) -> Run:
    """Run the program in this process, to its end: nothing here comes to serving."""

    def run_to_end(*words: str) -> tuple[int, str, str]:
        try:
            status = dispyscheduler.main(list(words))
        except SystemExit as end:
            status = int(end.code or 0)
        return status, *capsys.readouterr()

    return run_to_end


@pytest.mark.parametrize(
    ('words', 'status', 'text'),
    [
        (['--cluster_secret', 'short'], 2, '--cluster_secret: secret has 5 characters'),
        (['--node_secret', 'long enough', '--insecure'], 2, 'contradict'),
        (['--node_keyfile', '/no/file'], 2, "--node_certfile: keyfile='/no/file'"),
        (['--cluster_certfile', '/no/file'], 78, '/no/file'),
        (['--nodes', 'two words'], 2, "--nodes: host 'two words'"),
        (['--pulse_interval', '0'], 2, '--pulse_interval'),
        (['--health', 'nowhere:80'], 2, "'nowhere:80' is neither a port"),
        (['--health', '203.0.113.9:80'], 2, '--health 203.0.113.9, port 80: Cannot assign'),
        (['--port', '5', '--scheduler_port', '5'], 2, '--port and --scheduler_port are both 5'),
        (['--dest_path_prefix', '/proc/none'], 2, '--dest_path_prefix /proc/none'),
        (['--config', '/no/file'], 78, '/no/file'),
    ],
)
def test_wrong_options_end_it_in_words(words: list[str], status: int, text: str, run: Run) -> None:
    ended, _, errors = run('-i', '127.0.0.1', '-p', '0', '--scheduler_port', '0', *words)
    assert ended == status, errors
    assert text in errors
    assert len([line for line in errors.splitlines() if ' WARNING ' not in line]) == 1


@pytest.mark.row('M04', 'M05')
def test_options_are_saved_with_their_secrets_for_nobody_else(own_home: Path, run: Run) -> None:
    file = own_home / 'scheduler.cfg'
    words = (
        '--cluster_secret',
        'of programs',
        '--node-secret',
        'of all nodes',
        '-n',
        'a',
        '-n',
        'b',
    )
    assert run(*words, '--health', '9100', '--save_config', str(file))[0] == 0
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    assert 'nodes = a, b\n' in text
    assert 'health = 9100\n' in text
    _, shown, _ = run(*words, '--save_config')
    assert 'nodes = a, b' in shown
    assert 'of programs' not in shown
    assert 'of all nodes' not in shown
    other = str(own_home / 'other.cfg')
    run('--config', str(file), '--node_secret_file', '/no/file', '--save_config', other)
    assert 'cluster_secret = of programs' in Path(other).read_text()
    assert 'of all nodes' not in Path(other).read_text()
    file.chmod(0o644)
    status, _, errors = run('--config', str(file))
    assert status == 78
    assert 'holds a secret' in errors
