"""`dispy_nb.logger`: the package's log, with the levels as attributes, as dispy has it."""

import logging
import sys


class _FallbackHandler(logging.Handler):
    """Writes to standard error where the program has set up no logging of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            sys.stderr.write(f'dispy: {self.format(record)}\n')


logger = logging.getLogger('dispy_nb')
for _level in ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL'):
    setattr(logger, _level, getattr(logging, _level))  # as dispy.logger.DEBUG (A24)
_handler = _FallbackHandler()


def set_level(level: int) -> None:
    """Show messages of this process's client, scheduler and links from this level on."""
    for name in ('dispy_nb', 'nodeserver'):
        log = logging.getLogger(name)
        log.setLevel(level)
        if _handler not in log.handlers:
            log.addHandler(_handler)
