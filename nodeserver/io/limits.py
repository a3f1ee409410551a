"""How many descriptors this process may hold: five for each worker, several for each peer."""

import resource

_before = resource.getrlimit(resource.RLIMIT_NOFILE)


def raise_file_limit() -> None:
    """Take all descriptors that the system allows; 1,024, a usual default, end at 200 cpus."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def file_limit_before() -> int:
    """Return the soft limit that this process was started with, which its jobs are given."""
    return _before[0]
