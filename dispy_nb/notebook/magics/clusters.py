"""Which cluster a word means: the variable that holds it, or its own name."""

from typing import Any

from IPython.core.error import UsageError

from dispy_nb import closing
from dispy_nb.cluster import Cluster
from dispy_nb.job import DispyJob
from dispy_nb.notebook.magics.words import nearest, unquoted

MOST_NAMED = 10


def bound_clusters(shell: Any) -> dict[str, Cluster]:
    """Return the notebook's variables that hold clusters, without those that IPython keeps."""
    return {
        name: value
        for name, value in list(shell.user_ns.items())
        if not name.startswith('_') and issubclass(type(value), Cluster)
    }


def names_of(cluster: Cluster, bound: dict[str, Cluster]) -> list[str]:
    """Return the variables that hold a cluster."""
    return [name for name, value in bound.items() if value is cluster]


def known_names(shell: Any) -> list[str]:
    """Return all words that mean a cluster."""
    open_ones = closing.open_clusters()
    return list(dict.fromkeys((*bound_clusters(shell), *(each.name for each in open_ones))))


def meant_by(shell: Any, word: str) -> Cluster | None:
    """Return the cluster that a word means: a variable goes before a name.

    Raises
    ------
    UsageError
        Several open clusters have that name.
    """
    bound, word = bound_clusters(shell), unquoted(word)
    if word in bound:
        return bound[word]
    found: list[Cluster] = [each for each in closing.open_clusters() if each.name == word]
    if len(found) > 1:
        names = [name for each in found for name in names_of(each, bound)]
        which = f'give the variable of the one that is meant ({", ".join(names)})' if names else ''
        raise UsageError(f'{len(found)} clusters are called {word}: {which or "close some"}')
    return found[0] if found else None


def find_cluster(shell: Any, word: str | None) -> Cluster:
    """Return the cluster that a word means, or the only one.

    Raises
    ------
    UsageError
        There is none of that name, or it was left out where there is not exactly one.
    """
    if word is None:
        return _only_cluster(shell)
    found = meant_by(shell, word)
    if found is None:
        names = known_names(shell)
        raise UsageError(f'there is no cluster {word}{nearest(word, names)}{_listed(names)}')
    return found


def take_cluster(shell: Any, words: list[str]) -> tuple[Cluster, list[str]]:
    """Return the cluster that the first word means, and the others; it may be left out.

    That is so where there is only one, and the first word is not much like the name of any.
    """
    if words:
        found = meant_by(shell, words[0])
        if found is not None:
            return found, words[1:]
        if len(closing.open_clusters()) != 1 or nearest(words[0], known_names(shell)):
            find_cluster(shell, words[0])
    return _only_cluster(shell), words


def _only_cluster(shell: Any) -> Cluster:
    found = closing.open_clusters()
    if len(found) == 1:
        only: Cluster = found[0]
        return only
    if not found:
        raise UsageError('there is no open cluster: `%dispy cluster NAME FUNCTION` makes one')
    raise UsageError(f'say which cluster{_listed(known_names(shell))}')


def _listed(names: list[str]) -> str:
    if not names:
        return ': there is none; `%dispy cluster NAME FUNCTION` makes one'
    more = f' and {len(names) - MOST_NAMED} more' if len(names) > MOST_NAMED else ''
    return f' (there are {", ".join(names[:MOST_NAMED])}{more})'


# jobs


def pending_jobs(cluster: Cluster) -> list[DispyJob]:
    """Return all jobs that have not ended, those that were submitted first."""
    return list(cluster._shell.jobs.values())


def find_job(shell: Any, cluster: Cluster, word: str) -> DispyJob:
    """Return the pending job with this id, or the job that a variable holds.

    Raises
    ------
    UsageError
        There is neither.
    """
    value = shell.user_ns.get(word)
    if issubclass(type(value), DispyJob):
        job: DispyJob = value
        return job
    jobs = pending_jobs(cluster)
    text = unquoted(word)
    for job in jobs:
        if _id_of(job) == text:
            return job
    ids = [_id_of(job) for job in jobs[:MOST_NAMED]]
    more = f' and {len(jobs) - MOST_NAMED} more' if len(jobs) > MOST_NAMED else ''
    there = f'pending are {", ".join(ids)}{more}' if ids else 'none is pending'
    raise UsageError(
        f'{cluster.name} has no pending job {word} ({there}); a variable that holds a job will do'
    )


def _id_of(job: DispyJob) -> str:
    try:
        return str(job.id)
    except Exception:  # noqa: BLE001 - an object of the user's
        return f'#{job._number}'
