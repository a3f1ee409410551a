"""Every program understands the same common options, in both spellings."""

import argparse
import logging

import pytest

from nodeserver.cli import options


def parser() -> options.OptionParser:
    made = options.new_parser('dispynode', 'Runs jobs.')
    options.add_secret_options(made)
    options.add_option(made, '--dest_path_prefix', metavar='DIR', help='where files go')
    options.add_option(made, '--ip_addr', '-i', action='append', default=[])
    options.add_option(made, '--node_port', '-p', type=options.port_number, default=51348)
    options.add_option(made, '--save_config', action='store_true')
    return made


@pytest.mark.parametrize('name', ['--dest_path_prefix', '--dest-path-prefix'])
def test_option_is_understood_in_both_spellings(name: str) -> None:
    assert parser().parse_args([name, '/x']).dest_path_prefix == '/x'
    assert parser().parse_args([f'{name}=/x']).dest_path_prefix == '/x'


def test_spellings_mix() -> None:
    chosen = parser().parse_args(
        ['--ip_addr', 'a', '--ip-addr=b', '-i', 'c', '--save-config', '--log-level', 'DEBUG']
    )
    assert (chosen.ip_addr, chosen.save_config, chosen.log_level) == (
        ['a', 'b', 'c'],
        True,
        'debug',
    )
    assert parser().parse_args([]).dest_path_prefix is None


def test_help_shows_each_option_once() -> None:
    text = parser().format_help()
    assert '--dest_path_prefix' in text
    assert '--dest-path-prefix' not in text


def test_hyphens_first_is_understood_with_underscores() -> None:
    made = options.OptionParser(prog='dispy')
    options.add_option(made, '--log-file')
    assert made.parse_args(['--log_file', 'x']).log_file == 'x'


@pytest.mark.parametrize(
    ('given', 'says'),
    [
        (['--node_port', '70000'], ["'70000'", '0 to 65535', '--node_port']),
        (['--node-port', 'x'], ["'x'", '--node_port']),
        (['--log_format', 'xml'], ["'xml'", 'text', 'json']),
        (['--dest_path', 'x'], ['--dest_path']),
    ],
)
def test_wrong_option_ends_with_2_and_says_what_is_allowed(
    given: list[str], says: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(given)
    shown = capsys.readouterr().err
    assert caught.value.code == 2
    assert shown.count('\n') == 1
    assert not [text for text in says if text not in shown]


def test_version_names_program_and_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(['--version'])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith('dispynode (dispy-nb) ')


def test_secret_on_the_command_line_works_and_hints_at_the_file(
    caplog: pytest.LogCaptureFixture,
) -> None:
    chosen = parser().parse_args(['-s', 'open sesame', '--secret-file', 'f'])
    with caplog.at_level(logging.WARNING):
        options.hint_at_secret_file(chosen)
    assert (chosen.secret, chosen.secret_file, chosen.insecure) == ('open sesame', 'f', False)
    assert '--secret_file' in caplog.text
    assert 'sesame' not in caplog.text


def test_lengths_of_time_are_above_zero() -> None:
    assert options.seconds('0.5') == 0.5
    for wrong in ('0', '-1', 'inf', 'nan', 'soon'):
        with pytest.raises(argparse.ArgumentTypeError, match='above 0'):
            options.seconds(wrong)
