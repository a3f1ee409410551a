"""The names that every job finds without importing them, in `builtins` (D6)."""

import builtins

from nodeserver.payload import dump_result
from nodeserver.wire.lane import PROVISIONAL, TemplateSettings
from nodeserver.worker.reporter import Reporter


def install(settings: TemplateSettings) -> None:
    """Make the names known that are the same for all jobs of a computation."""
    vars(builtins).update(
        dispy_node_name=settings.node_name,
        dispy_node_ip_addr=settings.node_address,
        dispy_job_path=settings.directory,
    )


def install_for_jobs(reporter: Reporter) -> None:
    """Make the names known that speak for the job which this process is in."""

    def dispy_provisional_result(result: object) -> int:
        """Send an intermediate result to the client; it is there when this returns 0."""
        reporter.report_while_running(PROVISIONAL, dump_result(result))
        return 0

    vars(builtins)['dispy_provisional_result'] = dispy_provisional_result
