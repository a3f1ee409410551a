"""`dispynode_logger`: the log that jobs write to without importing anything.

Its lines land in the job's own standard error, so that they come back with the job, to whoever
submitted it; the log of the node is for whoever runs the node.
"""

import logging
import sys


class _JobErrors(logging.Handler):
    """Writes to what is standard error at that moment: each job has one of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f'{self.format(record)}\n')
            sys.stderr.flush()
        except Exception:  # noqa: BLE001 - as handlers do: whatever the user logged
            self.handleError(record)


def new_logger() -> logging.Logger:
    """Make the logger; its level is INFO unless the user sets another."""
    logger = logging.Logger('dispynode', logging.INFO)
    handler = _JobErrors()
    handler.setFormatter(logging.Formatter('%(asctime)s %(levelname)s %(name)s %(message)s'))
    logger.addHandler(handler)
    return logger
