"""Whose rights the node has, and whose its computations: one user's, or two (K08-K10).

A node that is started by an interpreter with suid and sgid bits begins with the rights of the
interpreter's owner and group.  It gives them up for good, and is from then on a program of
whoever started it: nothing of the other user may signal, trace or read it.  Each process that it
starts from that interpreter gets them anew, and those of computations keep nothing else.
"""

import ctypes
import logging
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nodeserver.core.errors import ConfigurationError

if sys.platform != 'win32':
    import grp
    import pwd

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JobUser:
    """The user and group that computations run as, where these are not the node's own."""

    uid: int
    gid: int

    @property
    def name(self) -> str:
        """The user's name, or number where it has none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)


# what tells programs of places that belong to the user who started the node
PERSONAL: Final = (
    *('HOME', 'USER', 'LOGNAME', 'USERNAME', 'SHELL', 'MAIL', 'TMPDIR', 'OLDPWD', 'PWD'),
    *('DBUS_SESSION_BUS_ADDRESS', 'GNUPGHOME', 'GPG_AGENT_INFO', 'KRB5CCNAME', 'SSH_AGENT_PID'),
    *('SSH_AUTH_SOCK', 'SUDO_COMMAND', 'SUDO_GID', 'SUDO_UID', 'SUDO_USER', 'XAUTHORITY'),
)


def separate_users() -> JobUser | None:
    """Give up what the interpreter's suid and sgid bits give; whose they were, if anybody's.

    Raises
    ------
    ConfigurationError
        The bits are there by half, have no effect, or would give computations root's rights.
    """
    if sys.platform != 'linux':
        if sys.platform != 'win32' and os.getuid() != os.geteuid():
            raise ConfigurationError('computations of a user of their own need Linux')
        return None
    user, effective, _ = os.getresuid()
    group, effective_group, _ = os.getresgid()
    facts = Path(sys.executable).stat()
    has_group_bit = bool(facts.st_mode & stat.S_ISGID)
    if user == effective:
        _refuse_half(user, group, effective_group, facts)
        return None
    if group == effective_group and not has_group_bit:
        raise ConfigurationError(f'{_bits("suid but not sgid")}: chmod ug+s {sys.executable}')
    if not effective or not effective_group:
        raise ConfigurationError(
            f'{sys.executable} belongs to root, and so would computations: make a user and a group '
            f'for them, and: chown USER:GROUP {sys.executable}; chmod ug+s {sys.executable}'
        )
    job_user = JobUser(effective, effective_group)
    # its directories are shared by this group: the node needs it, as a member or by the bit
    keeps = group if effective_group in os.getgroups() else effective_group
    if not user:
        os.seteuid(0)
    os.setregid(group, keeps)
    os.setreuid(user, user)
    _check_given_up(job_user)
    be_readable_to_own_user()
    return job_user


def _refuse_half(user: int, group: int, effective_group: int, facts: os.stat_result) -> None:
    """Refuse to start as one user where two were meant."""
    if group != effective_group:
        raise ConfigurationError(f'{_bits("sgid but not suid")}: chmod ug+s {sys.executable}')
    if facts.st_mode & stat.S_ISUID and facts.st_uid != user:
        raise ConfigurationError(
            f'{sys.executable} has the suid bit, but it has no effect: its file system is mounted '
            'with nosuid, or this program was started with no_new_privs (as some containers and '
            'services are); computations would run as the user that starts the node'
        )


def _bits(which: str) -> str:
    return f'{sys.executable} is {which}, and computations need a user and a group of their own'


def _check_given_up(job_user: JobUser) -> None:
    """Be sure that no way leads back: a job could signal a process that has its user saved."""
    if job_user.uid in os.getresuid():
        raise ConfigurationError(f'the rights of {job_user.name} could not be given up')


def become_job_user(job_user: JobUser) -> None:
    """Be nobody else, in a process that was just started with the interpreter's bits.

    Raises
    ------
    ConfigurationError
        The interpreter does not give these rights (any more).
    """
    user, effective, _ = os.getresuid()
    _, effective_group, _ = os.getresgid()
    if (effective, effective_group) != (job_user.uid, job_user.gid):
        raise ConfigurationError(
            f'{sys.executable} does not give the rights of {job_user.name} any more: '
            'has its owner or mode changed since the node was started?'
        )
    if not user:  # root's groups are root's rights; others cannot drop theirs
        os.seteuid(0)
        os.setgroups([])
    os.setregid(job_user.gid, job_user.gid)
    os.setreuid(job_user.uid, job_user.uid)
    if {*os.getresuid(), *os.getresgid()} != {job_user.uid, job_user.gid}:
        raise ConfigurationError(f'this process could not become {job_user.name} for good')
    os.umask(0o007)  # the node's user reads and removes by the group
    be_readable_to_own_user()


def be_readable_to_own_user() -> None:
    """Let /proc of this process belong to its user again: it is root's after a suid start."""
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def adopt_orphans() -> bool:
    """Have what is left of processes below this one become its children; whether they do."""
    if sys.platform != 'linux':
        return False
    return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def groups_kept(job_user: JobUser) -> list[str]:
    """Groups that computations keep of whoever started the node: only root can drop them."""
    if not os.getuid():
        return []
    return [_group_name(group) for group in os.getgroups() if group != job_user.gid]


def _group_name(group: int) -> str:
    try:
        return grp.getgrgid(group).gr_name
    except KeyError:
        return str(group)


def environment_of(job_user: JobUser, environ: dict[str, str], home: str) -> dict[str, str]:
    """Return an environment that does not lead to the places of whoever started the node."""
    kept = {
        name: value
        for name, value in environ.items()
        if name not in PERSONAL and not name.startswith('XDG_')
    }
    return {**kept, 'HOME': home, 'USER': job_user.name, 'LOGNAME': job_user.name}
