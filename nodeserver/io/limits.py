"""How many descriptors this process may hold: five for each worker, several for each peer."""

import resource

from nodeserver.core.errors import UsageError

LEAST_FILES = 256  # a worker keeps its own descriptors just above 200, out of its job's way

_before = resource.getrlimit(resource.RLIMIT_NOFILE)


def raise_file_limit() -> None:
    """Take all descriptors that the system allows; 1,024, a usual default, end at 200 cpus.

    Raises
    ------
    UsageError
        The system allows too few for any job.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < LEAST_FILES:
        raise UsageError(
            f'this process may open {most} files (`ulimit -Hn`): a node needs {LEAST_FILES} or more'
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def file_limit_before() -> int:
    """Return the soft limit that this process was started with, which its jobs are given."""
    soft, _ = _before
    return soft if soft == resource.RLIM_INFINITY else max(soft, LEAST_FILES)
