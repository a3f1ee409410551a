"""Configuration files: the options of a command line, kept for other starts and machines.

    command line ──▶ given ── --save_config ──▶ [DEFAULT] key = value
                      given ◀── --config ────── (what the command line says wins)

A key is the name of a long option without its dashes; an option without a value is a yes or no.
"""

import argparse
import configparser
import difflib
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nodeserver.cli.options import SECRETS, Repeated, add_option
from nodeserver.core.errors import ConfigurationError, KeyFileError, UsageError
from nodeserver.io.privatefiles import check_private

STANDARD_OUTPUT: Final = '-'
_SECTION = configparser.DEFAULTSECT
_LARGEST_FILE = 65536
_NEVER = ('help', 'version', 'config', 'save_config', 'owner_fd', 'ready_fd')
# one of these on the command line stands in place of all of the same group in a file
_TRUST = tuple((name, f'{name}_file', 'insecure') for name in SECRETS)
_NOT_GIVEN = object()
_SECRET_LEFT_OUT = (
    '# the secret is not written to standard output: add it to a file of mode 0600, '
    'or give --secret_file\n'
)


def add_configuration_options(parser: argparse.ArgumentParser) -> None:
    """Add the ways to keep options in a file and to read them from there."""
    group = parser.add_argument_group('configuration file')
    group.add_argument(
        '--config', type=Path, metavar='FILE', help='read options from a file; those given here win'
    )
    add_option(
        group,
        '--save_config',
        nargs='?',
        const=STANDARD_OUTPUT,
        metavar='FILE',
        help='write the options given to a file, or to standard output, and exit',
    )


def given_options(
    parser: argparse.ArgumentParser, words: list[str] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a command line gives, and what holds where nothing is given."""
    defaults = vars(parser.parse_args([]))
    start = argparse.Namespace(**dict.fromkeys(defaults, _NOT_GIVEN))
    found = vars(parser.parse_args(words, start))
    return {name: value for name, value in found.items() if value is not _NOT_GIVEN}, defaults


def merged(given: Mapping[str, Any], configured: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a command line, and those of a file that it says nothing of."""
    others = dict(configured)
    for group in _TRUST:
        if any(name in given for name in group):
            for name in group:
                others.pop(name, None)
    return others | dict(given)


# reading


def read_configuration(parser: argparse.ArgumentParser, path: Path) -> dict[str, Any]:
    """Return the options that a file gives.

    Raises
    ------
    ConfigurationError
        The file is missing or malformed, or a key or value in it is wrong.
    KeyFileError
        It holds a secret, and others could read it.
    """
    known = _known(parser)
    found: dict[str, Any] = {}
    for key, text in _read_pairs(path):
        action = known.get(key.replace('-', '_'))
        if action is None:
            close = difflib.get_close_matches(key, known, 1)
            hint = f': did you mean {close[0]}?' if close else ''
            raise ConfigurationError(f'{path}: {key} = {text!r} is not an option{hint}')
        if action.dest in found:
            raise ConfigurationError(f'{path}: {key} = {text!r}: this option is given twice')
        try:
            found[action.dest] = _value(action, text)
        except (argparse.ArgumentTypeError, TypeError, ValueError) as error:
            raise ConfigurationError(f'{path}: {key} = {text!r}: {error}') from error
    return found


def _known(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """The options that may stand in a file, by all names that they have on a command line."""
    names = parser._option_string_actions.items()
    long = {name[2:].replace('-', '_'): action for name, action in names if name[:2] == '--'}
    return {name: action for name, action in long.items() if action.dest not in _NEVER}


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    try:
        with path.open('rb') as file:
            facts = os.fstat(file.fileno())
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigurationError(f'--config {path}: {error.strerror}') from error
    if len(content) > _LARGEST_FILE:
        raise ConfigurationError(f'--config {path}: it is larger than {_LARGEST_FILE} bytes')
    try:
        pairs = _pairs(content.decode())
    except UnicodeDecodeError as error:
        raise ConfigurationError(f'--config {path}: it is not a text file') from error
    except configparser.Error as error:
        raise ConfigurationError(f'--config {path}: {_fault(error)}') from error
    if any(_is_secret(key) and text for key, text in pairs):
        try:
            check_private(path, facts)
        except KeyFileError as error:
            raise KeyFileError(f'{error} (it holds a secret)') from error
    return pairs


def _is_secret(key: str) -> bool:
    """Whether an option holds a secret, also by its older name `clustersecret`."""
    return key.replace('-', '').replace('_', '') in [name.replace('_', '') for name in SECRETS]


def _pairs(text: str) -> list[tuple[str, str]]:
    reader = configparser.RawConfigParser()
    reader.read_string(text)
    if reader.sections():
        raise configparser.NoSectionError(reader.sections()[0])
    return list(reader.defaults().items())


def _fault(error: configparser.Error) -> str:
    """Say what is wrong, and show no line: it may be the one with the secret."""
    if isinstance(error, configparser.NoSectionError):
        return f'section [{error.section}] is unknown: all options stand in [{_SECTION}]'
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f'line {error.lineno}: the first line must be [{_SECTION}]'
    if isinstance(error, configparser.ParsingError):
        return f'line {error.errors[0][0]} is not of the form `key = value`'
    if isinstance(error, configparser.DuplicateOptionError):
        return f'line {error.lineno}: {error.option} is given twice'
    return f'it is no configuration file ({type(error).__name__})'


def _value(action: argparse.Action, text: str) -> Any:
    """Read an option's text as the command line would."""
    if isinstance(action, Repeated):
        words = [word.strip() for word in text.split(',')]
        return [_single_value(action, word) for word in words if word]
    return _single_value(action, text)


def _single_value(action: argparse.Action, text: str) -> Any:
    if action.nargs == 0:
        states = configparser.RawConfigParser.BOOLEAN_STATES
        if text.lower() not in states:
            raise ValueError('it must be true or false')
        return states[text.lower()]
    value: Any = text
    if callable(action.type):
        try:
            value = action.type(text)
        except ValueError as error:
            # as in `int('x')`, whose own words are for programmers
            kind = getattr(action.type, '__name__', '')
            words = 'it must be a whole number' if kind == 'int' else str(error)
            raise ValueError(words) from error
    if action.choices is not None and value not in action.choices:
        raise ValueError(f'it must be one of {", ".join(map(str, action.choices))}')
    return value


# writing


def save_configuration(given: Mapping[str, Any], target: str) -> None:
    """Write options to a file, or to standard output without the secret.

    Raises
    ------
    UsageError
        A value cannot be written so that the same is read again.
    OSError
        The file cannot be written.
    """
    pairs = {name: _text(value) for name, value in given.items() if name not in _NEVER}
    named = [name for name in SECRETS if pairs.get(name)]
    has_secret = bool(named)
    if target == STANDARD_OUTPUT:
        for name in named:
            del pairs[name]
        if has_secret:
            sys.stdout.write(_SECRET_LEFT_OUT)
        sys.stdout.write(_written(pairs))
        return
    text = _written(pairs).encode()
    file = os.open(target, os.O_WRONLY | os.O_CREAT, 0o600 if has_secret else 0o666)
    with os.fdopen(file, 'wb') as output:
        if has_secret:  # before it is in there, also if the file was there
            os.fchmod(output.fileno(), 0o600)
        output.truncate(0)
        output.write(text)


def _text(value: Any) -> str:
    return ', '.join(map(str, value)) if isinstance(value, list) else str(value)


def _written(pairs: dict[str, str]) -> str:
    writer = configparser.RawConfigParser()
    writer[_SECTION] = pairs
    text = io.StringIO()
    writer.write(text)
    try:
        read = dict(_pairs(text.getvalue()))
    except configparser.Error:
        read = {}
    for name, value in pairs.items():
        if read.get(name) != value:
            raise UsageError(
                f'--{name}: its value cannot stand in a configuration file: it begins or ends with '
                'a space, or has lines that would be lost'
            )
    return text.getvalue()
