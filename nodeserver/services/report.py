"""What cores report, into the log."""

import logging

from nodeserver.core.effects import Report

_log = logging.getLogger('nodeserver')


def write_report(report: Report) -> None:
    """Log a core's words at the level it chose."""
    _log.log(report.level, '%s', report.text)
