"""From a job that failed to the exception that is raised for it here."""

from dispy_nb.job import DispyJob
from nodeserver.core.errors import JobFailed, RemoteTraceback
from nodeserver.core.status import JobStatus
from nodeserver.payload import load_exception
from nodeserver.wire.packed import Buffer


def failure_of(job: DispyJob, index: int | None = None) -> BaseException | None:
    """Return what a job that has ended could raise here; None if it has a result.

    The exception that the function raised, with the traceback of its node as cause; a
    `JobFailed` where there is none, or none that can be made in this program.
    """
    text = job.exception
    if text is None and job.status == JobStatus.FINISHED:
        return None
    if job.status == JobStatus.CANCELLED:
        text = job.reason or text
    # where its node ended it, what that raised in the function is not the function's own
    error = b'' if job._reason else job._decoded().error
    return remote_failure(error, text or '', job.status, index)


def remote_failure(
    data: Buffer, text: str, status: JobStatus, index: int | None = None
) -> BaseException:
    """Make the exception to be raised here for what went wrong on a node."""
    error = load_exception(data)
    if error is None:
        return JobFailed(status.name.lower(), text, index)
    error.__cause__ = RemoteTraceback(text)
    if index is not None:
        error.add_note(f'raised by call {index}')
    return error
