"""`dispy key`: show, export, import and change this user's own key."""

import argparse
import sys
from typing import Any

from nodeserver.cli.options import add_option
from nodeserver.core.errors import UsageError
from nodeserver.io import keys

_ROTATED = (
    'Programs that run keep the old key until they end: start nodes and schedulers again.',
    'Other machines need the new key: run `dispy key export` here and, on each of them, the line',
    'it prints with --replace (`dispy key import --replace dnk1-...`).',
    'The old key is in {old}: remove that file once no machine has it any more.',
)


def add_key_parser(subparsers: 'argparse._SubParsersAction[Any]') -> None:
    """Add `key` to the `dispy` command; the chosen action is `arguments.run(arguments)`."""
    parser = subparsers.add_parser(
        'key', help="this user's own key: show, path, export, import, rotate", description=__doc__
    )
    actions = parser.add_subparsers(dest='action', metavar='ACTION', required=True)
    show = actions.add_parser('show', help='where the key is, and its fingerprint (not the key)')
    show.set_defaults(run=run_show)
    path = actions.add_parser('path', help='where the key is')
    path.set_defaults(run=run_path)
    export = actions.add_parser('export', help='the line that gives another machine this key')
    export.set_defaults(run=run_export)
    take = actions.add_parser('import', help='take a key that was exported on another machine')
    take.add_argument(
        'text',
        metavar='TEXT',
        nargs='?',
        default='-',
        help='the exported key; - (the default) reads it from standard input, which keeps it '
        'out of the history of the shell and the list of processes',
    )
    add_option(take, '--replace', action='store_true', help='overwrite a different key')
    take.set_defaults(run=run_import)
    rotate = actions.add_parser(
        'rotate', help='make a new key, as when the old one may be known to others'
    )
    rotate.set_defaults(run=run_rotate)


def run_show(arguments: argparse.Namespace) -> int:
    """Say where the key is and how to tell it from another."""
    _say(f'key file:    {keys.key_path()}')
    _say(f'fingerprint: {keys.key_fingerprint()}')
    return 0


def run_path(arguments: argparse.Namespace) -> int:
    """Say where the key is, and nothing else."""
    _say(str(keys.key_path()))
    return 0


def run_export(arguments: argparse.Namespace) -> int:
    """Write the line that is to be run on the other machine."""
    _say(f'dispy key import {keys.export_key()}')
    return 0


def run_import(arguments: argparse.Namespace) -> int:
    """Make the given key this user's own."""
    text = arguments.text
    if text == '-':
        if sys.stdin.isatty():
            sys.stderr.write('paste the line that `dispy key export` wrote, then Enter:\n')
        text = sys.stdin.readline()
    words = text.split()
    if not words:
        raise UsageError('no key was given: paste the line that `dispy key export` wrote')
    # the whole exported line is as good as the key at its end
    keys.import_key(words[-1], replace=arguments.replace)
    _say(f'fingerprint: {keys.key_fingerprint()}')
    return 0


def run_rotate(arguments: argparse.Namespace) -> int:
    """Make a new key, and say what that means for other programs and machines."""
    had = keys.key_path().exists()
    keys.rotate_key()
    _say(f'fingerprint: {keys.key_fingerprint()}')
    if had:
        for line in _ROTATED:
            _say(line.format(old=keys.old_key_path()))
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + '\n')
