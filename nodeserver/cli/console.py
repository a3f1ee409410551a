"""A program and its surroundings: messages, signals and exit statuses (D13)."""

import asyncio
import json
import logging
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TextIO

from nodeserver.core.errors import (
    ConfigurationError,
    DatabaseError,
    DispyError,
    KeyFileError,
    NodesNotStarted,
    PeerRefused,
    PortBusy,
    UsageError,
)

EXIT_FINE: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 69
EXIT_CONFIGURATION: Final = 78
_EXIT_SIGNAL: Final = 128

_STATUSES: Final[dict[type[DispyError], int]] = {
    UsageError: EXIT_USAGE,
    KeyFileError: EXIT_CONFIGURATION,
    ConfigurationError: EXIT_CONFIGURATION,
    PortBusy: EXIT_CONFIGURATION,
    DatabaseError: EXIT_CONFIGURATION,
    NodesNotStarted: EXIT_UNREACHABLE,
    PeerRefused: EXIT_UNREACHABLE,
}

# but for ends of lines and tabs: controls, separators of lines, directions of text, surrogates
_HARMFUL = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]')

Main = Callable[[], int | None] | Coroutine[Any, Any, int | None]

_log = logging.getLogger(__name__)


def set_up_logging(
    level: str = 'info',
    log_format: str = 'text',
    debug: bool = False,
    ordinary: TextIO | None = None,
) -> None:
    """Send messages to standard error, which leaves standard output to results.

    A server has no results: its `ordinary` messages, those below a warning, go to standard
    output, so that whatever is on standard error wants to be read (Z13).
    """
    # a reader of our messages that has ended, as in `dispynode | head`, is no fault of ours
    logging.raiseExceptions = debug
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old.formatter, JsonFormatter | TextFormatter):  # ours, of an earlier call
            root.removeHandler(old)
    urgent = _add_handler(root, sys.stderr, log_format)
    if ordinary is not None:
        urgent.setLevel(logging.WARNING)
        _add_handler(root, ordinary, log_format).addFilter(_is_ordinary)
    chosen = 'DEBUG' if debug else level.upper()
    for name in ('nodeserver', 'dispy_nb'):
        logging.getLogger(name).setLevel(chosen)


def _add_handler(log: logging.Logger, stream: TextIO, log_format: str) -> logging.Handler:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if log_format == 'json' else TextFormatter())
    log.addHandler(handler)
    return handler


def _is_ordinary(record: logging.LogRecord) -> bool:
    return record.levelno < logging.WARNING


class TextFormatter(logging.Formatter):
    """Writes time, level and message: what a person at a terminal reads."""

    def __init__(self) -> None:
        super().__init__('%(asctime)s %(levelname)s %(message)s', '%Y-%m-%d %H:%M:%S')

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text that does nothing to a terminal."""
        return harmless(super().format(record))


class JsonFormatter(logging.Formatter):
    """Writes one JSON object a line: what a collector of logs reads."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        whole, fraction = divmod(record.created, 1)
        moment = time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))
        line = {
            'time': f'{moment}.{int(fraction * 1000):03d}Z',
            'level': record.levelname.lower(),
            'logger': record.name,
            'message': record.getMessage(),
        }
        if record.exc_info:
            line['traceback'] = self.formatException(record.exc_info)
        return harmless(json.dumps(line, ensure_ascii=False))


def harmless(text: str) -> str:
    """Write out what would steer a terminal, hide text, or cannot be encoded; lines stay lines.

    Names of files, nodes and programs come from others, who may put anything into them.
    """
    return _HARMFUL.sub(lambda found: ascii(found[0])[1:-1].replace('\\x', '\\u00'), text)


def run_program(main: Main, *, debug: bool = False) -> int:
    """Run a program to its end and return its exit status; errors become one line (D13)."""
    try:
        status = main() if callable(main) else asyncio.run(main)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return signal_status(signal.SIGINT)
    except BrokenPipeError:
        # whoever read our output has ended; the interpreter's own flush must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return signal_status(signal.SIGPIPE)
    except (DispyError, OSError) as exc:
        report_error(exc, debug=debug)
        return exit_status(exc)
    except Exception as exc:  # noqa: BLE001 - the edge of a program: a bug is shown whole
        report_error(exc, debug=True)
        return EXIT_FAILED
    return EXIT_FINE if status is None else status


def exit_status(error: BaseException) -> int:
    """Return the exit status that tells this kind of error from others."""
    for kind, status in _STATUSES.items():
        if isinstance(error, kind):
            return status
    return EXIT_FAILED


def signal_status(number: int) -> int:
    """Return the exit status of a program that a signal has ended."""
    return _EXIT_SIGNAL + number


def report_error(error: BaseException, *, debug: bool) -> None:
    """Tell people on standard error what went wrong, and with `debug` where."""
    text = ' '.join(str(error).split()) or type(error).__name__
    if debug:
        text += '\n' + ''.join(traceback.format_exception(error)).rstrip()
    sys.stderr.write(f'{Path(sys.argv[0]).name}: {harmless(text)}\n')
    sys.stderr.flush()


class StopSignals:
    """Turns SIGINT and SIGTERM into a wish to stop, and a second one into an order.

    `ask(at_once, reason)` is called on the loop: the first time with False, then with True.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ask: Callable[[bool, str], None]) -> None:
        self._loop, self._ask = loop, ask
        self._first: signal.Signals | None = None
        self._numbers = (signal.SIGINT, signal.SIGTERM)
        for number in self._numbers:
            loop.add_signal_handler(number, self._arrived, number)

    def status(self, otherwise: int = EXIT_FINE) -> int:
        """Return 128+n when a signal asked the program to end, else `otherwise`."""
        return otherwise if self._first is None else signal_status(self._first)

    def close(self) -> None:
        """Give the signals back to Python."""
        for number in self._numbers:
            self._loop.remove_signal_handler(number)

    def _arrived(self, number: signal.Signals) -> None:
        at_once = self._first is not None
        if self._first is None:
            self._first = number
            _log.info('%s: stopping; a second one stops at once', number.name)
        self._ask(at_once, f'{number.name} received')
