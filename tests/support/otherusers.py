"""A machine with several users: those of the tests are numbers, which need no accounts.

Programs run in a mount namespace of their own, in which every user can read this package and its
Python, wherever these are.  It needs root; `why_not` says why it cannot be used.
"""

import itertools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.support.programs import Program, program

JOB_USER, JOB_GROUP = 61001, 61002
USER, GROUP, OTHER_GROUP = 61010, 61011, 61020
_ROOT = Path(__file__).resolve().parents[2]


def why_not() -> str:
    """Say why there cannot be other users here, '' if there can; CI must not go without them."""
    reason = _obstacle()
    assert not reason or os.environ.get('CI') != 'true', reason
    return reason


def _obstacle() -> str:
    if sys.platform != 'linux' or os.geteuid():
        return 'only root can make programs of other users, on Linux'
    if not all(map(shutil.which, ('unshare', 'setpriv', 'mount'))):
        return 'unshare, setpriv or mount is missing (package util-linux)'
    if subprocess.run(['unshare', '-m', 'true'], check=False, capture_output=True).returncode:
        return 'this container may not make mount namespaces'
    return ''


class OtherUsers:
    """Interpreters, a home and a temporary directory for users of the tests."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._numbers = itertools.count()
        root.chmod(0o755)
        self.home, self.tmp = root / 'home', root / 'tmp'
        self.prefix = root / 'node'
        for path in (self.home, self.prefix, root / 'own'):
            path.mkdir(0o700)
            os.chown(path, USER, GROUP)
        self.tmp.mkdir()
        self.tmp.chmod(0o1777)
        (root / 'stage').mkdir()
        self.plain = self.interpreter('plain')
        self.suid = self.interpreter('suid')
        os.chown(self.suid, JOB_USER, JOB_GROUP)
        self.suid.chmod(0o6755)
        self.env = {
            'HOME': str(self.home),
            'XDG_CONFIG_HOME': str(self.home / '.config'),
            'XDG_RUNTIME_DIR': str(self.home),
            'TMPDIR': str(self.tmp),
            'PYTHONDONTWRITEBYTECODE': '1',
        }

    def interpreter(self, name: str) -> Path:
        """Copy the interpreter into an environment that has all that this one has."""
        place = self.root / name
        (place / 'bin').mkdir(parents=True)
        (place / 'lib').symlink_to(Path(sys.prefix, 'lib'))
        base = Path(sys.base_prefix, 'bin')
        (place / 'pyvenv.cfg').write_text(f'home = {base}\n')
        copy = place / 'bin' / 'python'
        shutil.copyfile(Path(sys.executable).resolve(), copy)
        copy.chmod(0o755)
        return copy

    def within(self, user: int = USER, groups: tuple[int, ...] = (GROUP, JOB_GROUP)) -> list[str]:
        """Return the words before a command that run it as a user."""
        lines = self._mounts()
        listed = ','.join(map(str, groups))
        set_user = f'--reuid {user} --regid {groups[0]} --groups {listed} --inh-caps=-all'
        lines.append(f'exec setpriv {set_user} -- "$@"')
        return ['unshare', '-m', 'sh', '-c', ' && '.join(lines), 'sh']

    def _mounts(self) -> list[str]:
        """Show what is needed of places that others cannot look into, and nothing else of them."""
        trees = [Path(sys.base_prefix), Path(sys.prefix), _ROOT]
        hidden = {tree: _hiding(tree) for tree in trees}
        lines = []
        for number, (tree, by) in enumerate(hidden.items()):
            if by:
                stage = shlex.quote(str(self.root / 'stage' / str(number)))
                lines.append(f'mkdir -p {stage} && mount --rbind {shlex.quote(str(tree))} {stage}')
        lines += [
            f'mount -t tmpfs -o mode=755 none {shlex.quote(str(by))}'
            for by in sorted({by for by in hidden.values() if by})
        ]
        for number, (tree, by) in enumerate(hidden.items()):
            if by:
                stage, place = (shlex.quote(str(p)) for p in (self.root / f'stage/{number}', tree))
                lines.append(f'mkdir -p {place} && mount --rbind {stage} {place}')
        return lines

    def node(
        self,
        *options: object,
        python: Path | None = None,
        prefix: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[Program]:
        """Run `dispynode` as the user, by the interpreter with the bits if no other is given."""
        command = self.node_command(*options, python=python, prefix=prefix)
        return program(*command, ready='serving', env={**self.env, **(env or {})})

    def node_command(
        self, *options: object, python: Path | None = None, prefix: Path | None = None
    ) -> list[object]:
        """Return the command of such a node."""
        words = (python or self.suid, '-m', 'nodeserver.cli.dispynode')
        return [*self.within(), *words, '--dest_path_prefix', prefix or self.prefix, *options]

    def client(
        self, source: str, timeout: float = 40, check: bool = True
    ) -> 'subprocess.CompletedProcess[str]':
        """Run a script as the user to its end."""
        script = self.root / f'script{next(self._numbers)}.py'
        script.write_text(source, encoding='utf-8')
        command = [*self.within(), str(self.plain), str(script)]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            env={**os.environ, **self.env},
        )
        words = f'--- standard output\n{done.stdout}\n--- standard error\n{done.stderr}'
        assert not check or done.returncode == 0, f'exit status {done.returncode}\n{words}'
        return done


def _hiding(tree: Path) -> Path | None:
    """Find the first directory above this one that others cannot pass through."""
    for directory in reversed([tree, *tree.parents]):
        if not directory.stat().st_mode & 0o001:
            return directory
    return None


@contextmanager
def other_users() -> Iterator[OtherUsers]:
    """Make such a machine, and remove what its users have left."""
    root = Path(tempfile.mkdtemp(prefix='dnu', dir='/tmp'))
    try:
        yield OtherUsers(root)
    finally:
        shutil.rmtree(root)
