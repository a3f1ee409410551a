"""`attach`: the cluster of a kernel that has ended, with its jobs and results (V15)."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dispy_nb.callbacks import ARGUMENTS, check_callback
from dispy_nb.cluster import Cluster
from dispy_nb.recovery.places import known_journals
from dispy_nb.recovery.recorded import Recorded, read
from dispy_nb.recovery.reopening import reopened
from dispy_nb.recovery.resumption import Resumption, age
from nodeserver.core.errors import DatabaseBusy, DatabaseError, UsageError

_log = logging.getLogger('dispy_nb')

MOST_TOLD = 10


def attach(
    name: str | os.PathLike[str] | None = None,
    callback: Callable[..., Any] | None = None,
    cluster_status: Callable[..., Any] | None = None,
) -> Cluster:
    """Give back the cluster of a kernel that was restarted or killed, or of a named one (V15).

    Its jobs are `attached_jobs`: those that had ended have their results, those that ran are
    collected, and those that waited run.  Jobs can be submitted to it as before.

    Parameters
    ----------
    name : str or path, optional
        What the cluster was called, or its recovery file; may be left out if there is only one.
    callback, cluster_status : callable, optional
        As in `JobCluster`: those of before are gone.

    Raises
    ------
    UsageError
        There is none, or several are meant: the text lists them with what to type.
    DatabaseError
        The recovery file cannot be used.
    """
    for argument, function in zip(ARGUMENTS, (callback, cluster_status), strict=True):
        check_callback(argument, function)
    recorded = chosen(name)
    if not recorded.setting.keeps_all:
        raise UsageError(f'{recorded.path} cannot be attached to: {_results_only(recorded)}')
    resumption = Resumption(recorded, collects=False)
    cluster = reopened(resumption, callback, cluster_status)
    cluster.attached_jobs = resumption.jobs
    return cluster


def _results_only(recorded: Recorded) -> str:
    """Say what there is of a cluster of which not all was kept."""
    return (
        f'{recorded.name} had no name of its own, or was an executor; '
        f'dispy.recover_jobs({str(recorded.path)!r}) fetches results of its jobs'
    )


def chosen(name: Any) -> Recorded:
    """Read the journal that is meant; one that is named by its file, whatever is in it."""
    if name is not None and not isinstance(name, str | os.PathLike):
        raise UsageError(f'name must be the name of a cluster or a recovery file, not {name!r}')
    if name is not None and (isinstance(name, os.PathLike) or Path(name).is_file()):
        return read(Path.cwd() / name)
    known, problems = candidates()
    found = [each for each in known if each.setting.keeps_all]
    others = [each for each in known if not each.setting.keeps_all and each.resubmissions]
    problems += map(_results_only, others)
    meant = [each for each in found if name is None or each.name == name]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise UsageError(f'{len(meant)} clusters can be attached to: type\n{_listed(meant)}')
    words = 'there is no cluster to attach to' if name is None else f'there is no cluster {name!r}'
    if found:
        raise UsageError(f'{words} to attach to; there are\n{_listed(found)}')
    hint = ': it is there after the kernel has ended in which it was made, if nobody closed it'
    raise UsageError(words + hint + ''.join(f'\n({problem})' for problem in problems))


def candidates() -> tuple[list[Recorded], list[str]]:
    """Read the journals that can be attached to, the latest first; what is wrong with others."""
    found, problems = [], []
    for path in known_journals():
        try:
            found.append(read(path))
        except DatabaseBusy:
            continue  # its program runs
        except (DatabaseError, UsageError) as error:
            problems.append(str(error))
    return found, problems


def _listed(found: list[Recorded]) -> str:
    names = [each.name for each in found]
    lines = []
    for each in found[:MOST_TOLD]:
        word = each.name if names.count(each.name) == 1 else str(each.path)
        pending = sum(len(message.ids) for message in each.resubmissions)
        lines.append(
            f'  dispy_nb.attach({word!r})   made {age(each)}: {len(each.ended)} results, '
            f'{pending} jobs pending'
        )
    if len(found) > MOST_TOLD:
        lines.append(f'  and {len(found) - MOST_TOLD} more')
    return '\n'.join(lines)
