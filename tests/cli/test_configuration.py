"""Configuration files: what is read from them, and what is said of those that are wrong."""

from pathlib import Path

import pytest

from nodeserver.cli.configuration import (
    given_options,
    merged,
    read_configuration,
    save_configuration,
)
from nodeserver.cli.dispynode import MAX_FILE_SIZE, main, parser
from nodeserver.core.errors import ConfigurationError, UsageError

WRONG = {
    'serviece_end = 8:00': "serviece_end = '8:00' is not an option: did you mean service_end?",
    'ready_fd = 1': "ready_fd = '1' is not an option",
    'node_port = 70000': "node_port = '70000': '70000' is not a whole number from 0 to 65535",
    'cpus = many': "cpus = 'many': it must be a whole number",
    'clean = perhaps': "clean = 'perhaps': it must be true or false",
    'log_level = loud': "log_level = 'loud': it must be one of debug, info, warning, error",
    'max_file_size = 3q': "max_file_size = '3q': '3q' is not a size",
    'zombie_interval = 0': "zombie_interval = '0': '0' is not a number above 0",
    'msg_timeout = 0.01': "msg_timeout = '0.01': '0.01' is not a number of seconds from 0.1 to",
    'serve = -2': "serve = '-2': '-2' is not a whole number from -1 on",
    'service_end = 8': "service_end = '8': '8' is not a time of day from 00:00 to 23:59",
    'cpus = 1\ncpus = 1': 'line 3: cpus is given twice',
    'ip_addr = 127.0.0.2\nhost = 127.0.0.2': "host = '127.0.0.2': this option is given twice",
    'secret the words': 'line 2 is not of the form `key = value`',
    '[node]': 'section [node] is unknown: all options stand in [DEFAULT]',
}


@pytest.mark.parametrize('lines', WRONG)
def test_what_is_wrong_is_told_with_its_key_and_value(tmp_path: Path, lines: str) -> None:
    file = tmp_path / 'wrong.cfg'
    file.write_text(f'[DEFAULT]\n{lines}\n')
    with pytest.raises(ConfigurationError) as caught:
        read_configuration(parser(), file)
    assert f'{file}: {WRONG[lines]}' in str(caught.value)
    assert 'the words' not in str(caught.value)  # they may be a secret


@pytest.mark.parametrize(
    ('content', 'says'),
    [
        (b'cpus = 1', 'line 1: the first line must be [DEFAULT]'),
        (b'\xff\xfe', 'it is not a text file'),
        (b'#' * 70000, 'it is larger than 65536 bytes'),
    ],
)
def test_what_is_no_configuration_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, says: str
) -> None:
    file = tmp_path / 'wrong.cfg'
    assert main(['--config', str(file)]) == 78
    assert f'{file}: No such file or directory' in capsys.readouterr().err
    file.write_bytes(content)
    assert main(['--config', str(file)]) == 78
    assert f'{file}: {says}' in capsys.readouterr().err


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / 'node.cfg'
    words = [
        *('-d', '-c', '-1', '-s', '8%(x)s; #9 = [z]', '--service_start', '5:00', '--clean'),
        *('--service-end', '6:07:08', '--name', '', '--max_file_size', '1g', '--serve', '-1'),
        *('--zombie_interval', '0.5', '--dest_path_prefix', '/x y/z', '--log-level', 'DEBUG'),
    ]
    given, _ = given_options(parser(), words)
    save_configuration(given, str(file))
    assert read_configuration(parser(), file) == given
    assert given['service_start'] == '05:00'


@pytest.mark.parametrize('name', [' spaces ', 'line\n\n# another'])
def test_what_could_not_be_read_back_is_not_written(tmp_path: Path, name: str) -> None:
    file = tmp_path / 'node.cfg'
    with pytest.raises(UsageError, match='--name: its value cannot stand in a configuration'):
        save_configuration({'name': name}, str(file))
    assert not file.exists()


def test_what_a_node_could_not_start_with_is_not_saved(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['-s', 'short', '--save_config']) == 2
    assert main(['--service_start', '17:00', '--save_config']) == 2
    assert capsys.readouterr().out == ''


def test_the_command_line_wins_and_one_way_to_trust_stands_for_all() -> None:
    file = {'secret': 'of the file', 'cpus': 2, 'name': 'file'}
    assert merged({'cpus': 1}, file) == {'secret': 'of the file', 'cpus': 1, 'name': 'file'}
    assert merged({'insecure': True}, file) == {'insecure': True, 'cpus': 2, 'name': 'file'}


@pytest.mark.parametrize(
    ('text', 'size'),
    [('0', 0), ('7', 7), ('1k', 1024), ('2M', 2 << 20), ('3g', 3 << 30), ('1T', 1 << 40)],
)
def test_max_file_size_is_in_bytes_or_multiples_of_1024(text: str, size: int) -> None:
    given, defaults = given_options(parser(), ['--max_file_size', text])
    assert (given, defaults['max_file_size']) == ({'max_file_size': size}, MAX_FILE_SIZE)


@pytest.mark.parametrize('text', ['', '-1', '1.5m', '1kb', 'k', '99999999999t', 'x'])
def test_what_is_no_size_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match='2'):
        main([f'--max_file_size={text}'])
    assert f'{text!r} is not a size' in capsys.readouterr().err
