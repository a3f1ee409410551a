"""`dispy status`: what servers do, asked by HTTP where they were started with `--health`."""

import argparse
import http.client
import json
import sys
from typing import Any, Final

from nodeserver.cli.console import EXIT_FAILED, EXIT_FINE, EXIT_UNREACHABLE, harmless
from nodeserver.cli.options import add_option, place_to_watch, watching_place

TIMEOUT: Final = 5.0
LARGEST_ANSWER: Final = 16 << 20
_ADVICE = 'is it started with --health, and at this port?'


def add_status_parser(subparsers: 'argparse._SubParsersAction[Any]') -> None:
    """Add `status` to the `dispy` command."""
    parser = subparsers.add_parser(
        'status', help='what a dispynode or dispyscheduler does', description=__doc__
    )
    parser.add_argument(
        'places',
        metavar='PORT',
        nargs='+',
        type=watching_place,
        help='what a server was given as --health: a port of this machine, or ADDRESS:PORT',
    )
    add_option(parser, '--json', action='store_true', help='an object of JSON for each, a line')
    parser.set_defaults(run=run_status)


def run_status(arguments: argparse.Namespace) -> int:
    """Ask each server; the worst of the exit statuses."""
    return max(_tell(place, arguments.json) for place in arguments.places)


def _tell(place: str, as_json: bool) -> int:
    host, port = place_to_watch(place)
    try:
        status = _ask(host, port)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
        return _complain(place, f'{reason}; {_ADVICE}', EXIT_UNREACHABLE)
    except ValueError as error:
        return _complain(place, f'no server of ours answers: {error}', EXIT_FAILED)
    lines = [json.dumps(status)] if as_json else status['words']
    sys.stdout.write(''.join(f'{harmless(line)}\n' for line in lines))
    return EXIT_FINE


def _complain(place: str, words: str, status: int) -> int:
    sys.stderr.write(f'dispy status: {harmless(place)}: {harmless(words)}\n')
    return status


def _ask(host: str, port: int) -> dict[str, Any]:
    """Get the page `/status` of a server; its words are of others, and are checked."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    try:
        connection.request('GET', '/status')
        answer = connection.getresponse()
        body = answer.read(LARGEST_ANSWER + 1)
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK or len(body) > LARGEST_ANSWER:
        raise ValueError(f'status {answer.status}, {len(body)} bytes')
    status = json.loads(body)
    words = status.get('words') if isinstance(status, dict) else None
    if not isinstance(words, list) or not all(isinstance(line, str) for line in words):
        raise ValueError('it does not say what it does')
    found: dict[str, Any] = status
    return found
