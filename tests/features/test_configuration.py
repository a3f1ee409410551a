"""Options of `dispynode` in a configuration file, and what is said of those that are wrong."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import dispy_nb as dispy
from nodeserver.io.sysinfo import processor_count
from tests.support.programs import free_port, node_program
from tests.support.wallclock import zone_where_it_is

DISPYNODE = (sys.executable, '-m', 'nodeserver.cli.dispynode')
ADDRESS = '127.0.0.2'
SECRET = 'secret 8%(x)s; #9'
LIMIT = 20.0


def where() -> str:
    return str(dispy_node_name)  # type: ignore[name-defined]  # noqa: F821


def run(*words: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run dispynode to its end, which must have this status."""
    command = [*DISPYNODE, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == status, done.stderr
    return done


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_cluster(port: int, **options: object) -> dispy.JobCluster:
    surroundings = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': port}
    return dispy.JobCluster(where, [ADDRESS], **surroundings, **options)  # type: ignore[arg-type]


@pytest.mark.row('L02')
def test_save_config_writes_the_options_given_and_starts_nothing(tmp_path: Path) -> None:
    file, prefix = tmp_path / 'dispynode.cfg', tmp_path / 'files'
    port = free_port()
    options = ('--name=rack 7', '-p', port, '--clean', '--max-file-size', '2k', '--serve', '3')
    done = run(*options, '--dest_path_prefix', prefix, '--save_config', file)
    assert (done.stdout, done.stderr) == ('', '')
    assert not prefix.exists()
    assert file.read_text().split('\n') == [
        '[DEFAULT]',
        f'node_port = {port}',
        'name = rack 7',
        f'dest_path_prefix = {prefix}',
        'max_file_size = 2048',
        'clean = True',
        'serve = 3',
        '',
        '',
    ]
    assert mode(file) == 0o666 & ~umask()


def umask() -> int:
    before = os.umask(0)
    os.umask(before)
    return before


@pytest.mark.row('L03')
def test_save_config_without_a_file_writes_to_standard_output() -> None:
    assert run('-c', '1', '--save_config').stdout == '[DEFAULT]\ncpus = 1\n\n'
    assert run('--save-config', '--cpus', '1').stdout == '[DEFAULT]\ncpus = 1\n\n'
    done = run('-s', SECRET, '--save_config')
    assert SECRET not in done.stdout
    assert done.stdout.startswith('# the secret is not written to standard output: ')


@pytest.mark.slow
@pytest.mark.row('L04')
def test_config_starts_a_node_as_the_command_line_would(tmp_path: Path) -> None:
    file, port = tmp_path / 'dispynode.cfg', free_port()
    run('-p', port, '-i', ADDRESS, '--name', 'saved', '-s', SECRET, '--save_config', file)
    assert mode(file) == 0o600
    with node_program('--config', file) as node:
        assert f'dispynode saved serving at {ADDRESS}:{port} ' in node.output()
        with open_cluster(port, secret=SECRET) as cluster:
            assert cluster.submit()() == 'saved'
        assert '--secret_file' not in node.errors()  # nobody sees one that is in a file
    # what the command line says wins
    other = free_port()
    with node_program('--config', file, '--name', 'given', '-p', other, '--insecure') as node:
        assert f'dispynode given serving at {ADDRESS}:{other} ' in node.output()
        assert 'INSECURE' in node.wait_for_log('INSECURE')


@pytest.mark.slow
@pytest.mark.row('U09')
def test_the_command_of_the_manual_and_a_node_with_all_those_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As printed, but for a secret of eight characters and `--service_end` (X22)."""
    monkeypatch.chdir(tmp_path)
    command = (
        '-d --cpus -1 -s testtest --zombie_interval=10 --service_start 17:00 '
        '--service_stop 6:00 --service_end 8:00 --save_config dispynode.cfg'
    )
    if processor_count() < 2:
        command = command.replace('--cpus -1', '--cpus 1')
    run(*command.split())
    port, cpus = free_port(), max(1, processor_count() - 1)
    words = ('--config', 'dispynode.cfg', '-i', ADDRESS, '-p', port)
    with (
        node_program(*words, env=zone_where_it_is('20:00:00')) as node,
        open_cluster(port, secret='testtest') as cluster,
    ):
        assert cluster.submit()()
        assert [each.cpus for each in cluster.snapshot().nodes] == [cpus]
        assert 'DEBUG' in node.log()
    with (
        node_program(*words, env=zone_where_it_is('12:00:00')) as node,
        open_cluster(port, secret='testtest') as cluster,
    ):
        node.wait_for_log(
            'taking no more jobs: serves from 17:00 to 08:00, and takes jobs until 06:00'
        )
    assert 'zombie_interval = 10.0' in run('--config', 'dispynode.cfg', '--save_config').stdout


@pytest.mark.parametrize(
    ('line', 'says'),
    [
        ('node-port = 70000', "node-port = '70000': '70000' is not a whole number from 0 to 65535"),
        ('cpus = 100000', '--cpus 100000: this machine has'),
        ('service_start = 17:00', '--service_start 17:00: give --service_stop or --service_end'),
        ('ip_addr = 192.0.2.250', "ip_addr='192.0.2.250' is not an address of this machine"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_name_key_and_value(
    tmp_path: Path, line: str, says: str
) -> None:
    file = tmp_path / 'wrong.cfg'
    file.write_text(f'[DEFAULT]\n{line}\n')
    error = run('--config', file, status=78).stderr
    assert f'{file}: {says}' in error
    assert error.count('\n') == 1


def test_a_file_with_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / 'open.cfg'
    file.write_text(f'[DEFAULT]\nsecret = {SECRET}\n')
    file.chmod(0o644)
    error = run('--config', file, status=78).stderr
    assert f'{file} is open to other users (mode 0644): chmod 600 {file}' in error
    assert SECRET not in error


def test_a_file_that_was_open_to_others_is_closed_before_a_secret_is_in_it(tmp_path: Path) -> None:
    file = tmp_path / 'node.cfg'
    file.write_text('[DEFAULT]\nname = a name that is longer than all that follows\n')
    file.chmod(0o644)
    run('-s', SECRET, '--save_config', file)
    assert mode(file) == 0o600
    assert file.read_text() == f'[DEFAULT]\nsecret = {SECRET}\n\n'


@pytest.mark.slow
def test_older_names_and_hyphens_are_understood(tmp_path: Path) -> None:
    port, file = free_port(), tmp_path / 'node.cfg'
    file.write_text(f'[DEFAULT]\ndispy-port = {port - 1}\nhost = {ADDRESS}\nlog-level = INFO\n')
    for words in (('--config', file), ('--dispy_port', port - 1, '--host', ADDRESS)):
        with node_program(*words) as node:
            assert re.search(rf'serving at {ADDRESS}:{port} ', node.output())
