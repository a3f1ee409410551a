"""Node servers on this machine, started by a program for itself."""

import itertools
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dispy_nb.rerun import MadeOnce, changes, forget, made_at, place_of, remember
from nodeserver.core.errors import NodesNotStarted, UsageError
from nodeserver.io.gpus import visible_gpus
from nodeserver.io.keys import choose_secret
from nodeserver.io.leftovers import sweep_directories
from nodeserver.io.sysinfo import processor_count

MOST_SERVERS = 100  # each is several processes
START_TIMEOUT = 20.0
STOP_TIMEOUT = 5.0
LOOPBACK = '127.0.0.1'
DIRECTORY_START = 'dispy-nodes-'

_running: dict[int, 'LocalNodes'] = {}
_registry = threading.Lock()
_before_end: list[Callable[[set[tuple[str, int]], bool], None]] = []


def before_end(call: Callable[[set[tuple[str, int]], bool], None]) -> None:
    """Have `call(addresses, failed)` called before servers end, while they still work."""
    _before_end.append(call)


def _forget_parent() -> None:
    """In a fork of the program: the servers are its parent's."""
    global _registry
    _registry = threading.Lock()
    _running.clear()


os.register_at_fork(after_in_child=_forget_parent)


class LocalNodes(metaclass=MadeOnce):
    """`n` node servers on this machine that end with this program (or with the `with` block).

    Clusters of this program use them without further ado; `nodes` names them for
    ``JobCluster(function, nodes=local.nodes)``, which uses them and no others.  They listen on
    the loopback interface only.  If the program is killed they finish their running jobs first,
    for at most 10 minutes (V02).

    Parameters
    ----------
    n : int, default 1
        How many node servers to start.
    cpus : int, optional
        Cpus of each; by default the machine's are divided among them.
    secret : str
        What clusters must know; by default this user's own key.

    Raises
    ------
    UsageError
        `n` or `cpus` is out of range, or `secret` too short or too long.
    NodesNotStarted
        A server did not come up; the text has what it said.
    """

    def __init__(self, n: int = 1, cpus: int | None = None, *, secret: str = '') -> None:
        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MOST_SERVERS:
            raise UsageError(
                f'n must be a number of node servers from 1 to {MOST_SERVERS}, not {n!r}'
            )
        present = processor_count()
        is_number = isinstance(cpus, int) and not isinstance(cpus, bool)
        if cpus is not None and not (is_number and 1 <= cpus <= present):
            raise UsageError(f'cpus must be from 1 to {present} (this machine), not {cpus!r}')
        choose_secret(secret)  # what a server would refuse is refused here
        place, arguments = place_of(self), {'n': n, 'cpus': cpus, 'secret': secret}
        if (before := made_at(place)) is not None:
            if before.thing._is_alive() and not changes(before.arguments, arguments):
                self._stands_for = before.thing
                return
            before.thing.close()
        self._cpus = cpus or max(1, present // n)
        self._n, self._gpus = n, visible_gpus(os.environ)  # each is offered by one node only
        self._secret = secret
        sweep_directories(Path(tempfile.gettempdir()), DIRECTORY_START)
        start = f'{DIRECTORY_START}{os.getpid()}-'
        self._directory = Path(tempfile.mkdtemp(prefix=start))
        self._pid = os.getpid()
        self._programs: list[_Program] = []
        self._names = _free_names(n)
        try:
            for number in range(n):
                self._programs.append(self._start(number))
            deadline = time.monotonic() + START_TIMEOUT
            for program in self._programs:
                program.await_port(deadline)
        except BaseException:
            self._end_programs()
            raise
        with _registry:
            _running[id(self)] = self
        remember(place, self, arguments)

    @property
    def nodes(self) -> list[tuple[str, int]]:
        """Addresses and ports, as `JobCluster` takes them in `nodes`."""
        return [(LOOPBACK, program.port) for program in self._programs]

    @property
    def pids(self) -> list[int]:
        """Process ids of the servers."""
        return [program.process.pid for program in self._programs]

    @property
    def names(self) -> list[str]:
        """What the servers call themselves, in the order of `nodes`."""
        return self._names[: len(self._programs)]

    @property
    def cpus(self) -> int:
        """Cpus of each."""
        return self._cpus

    def _is_alive(self) -> bool:
        """Whether all the servers run."""
        programs = self._programs
        return bool(programs) and all(program.process.poll() is None for program in programs)

    def __reduce__(self) -> str:
        raise TypeError('nodes belong to the program that started them and cannot travel')

    def close(self) -> None:
        """End the servers, after the jobs of clusters that use no other nodes."""
        self._close(failed=False)

    def _close(self, failed: bool) -> None:
        if os.getpid() != self._pid:
            return  # a fork of the program leaves its `with` block: the servers are its parent's
        with _registry:
            _running.pop(id(self), None)
        forget(self)
        all_gone = all(program.process.poll() is not None for program in self._programs)
        try:
            for call in _before_end:
                call(set(self.nodes), failed or all_gone)
        finally:
            self._end_programs()

    def _end_programs(self) -> None:
        for program in self._programs:
            program.ask_to_end()
        for program in self._programs:
            program.end()
        self._programs = []
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close(failed=kind is not None)

    def __repr__(self) -> str:
        return f'<LocalNodes {self.nodes}, {self._cpus} cpus each>'

    def _start(self, number: int) -> '_Program':
        prefix = self._directory / f'node-{number + 1}'
        options = ['--name', self._names[number], '--cpus', str(self._cpus)]
        options += ['-i', LOOPBACK, '-p', '0', '--dest_path_prefix', str(prefix)]
        options += ['--max_file_size', '0']  # they are this program's own
        if self._gpus:
            own = self._gpus[number :: self._n]
            options += ['--gpus', ''.join(f'{gpu},' for gpu in own) or '0']
        return _Program(options, self._directory / f'node-{number + 1}.log', self._secret)


class _Program:
    """One `dispynode` process: its port comes up one pipe, our end is seen at the other."""

    def __init__(self, options: list[str], log: Path, secret: str) -> None:
        self.port = 0
        self._log = log
        ready, tell = os.pipe()
        end, self._owner = os.pipe()
        command = [sys.executable, '-m', 'nodeserver.cli.dispynode', *options]
        command += ['--owner_fd', str(end), '--ready_fd', str(tell)]
        environ = os.environ | ({'DISPY_SECRET': secret} if secret else {})
        try:
            with log.open('wb') as output:
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(end, tell),
                    env=environ,
                    start_new_session=True,  # Ctrl-C at our terminal is ours to handle
                )
        except BaseException:
            os.close(ready)
            os.close(self._owner)
            raise
        finally:
            os.close(tell)
            os.close(end)
        self._ready = ready

    def await_port(self, deadline: float) -> None:
        """Wait until the server listens."""
        left = max(0.0, deadline - time.monotonic())
        readable, _, _ = select.select([self._ready], [], [], left)
        text = os.read(self._ready, 64) if readable else b''
        if not text:
            said = self._log.read_text(errors='replace').strip() or 'it said nothing'
            raise NodesNotStarted(f'a node server on this machine did not come up: {said}')
        self.port = int(text)

    def ask_to_end(self) -> None:
        """First signal: end after running jobs."""
        if self.process.poll() is None:
            self.process.terminate()

    def end(self) -> None:
        """Wait for the end, with more and more emphasis."""
        for step in (self.process.terminate, self.process.kill, None):
            try:
                self.process.wait(STOP_TIMEOUT)
                break
            except subprocess.TimeoutExpired:
                if step is not None:
                    step()
        os.close(self._ready)
        os.close(self._owner)


def _free_names(n: int) -> list[str]:
    """Choose names that no other server of this program has."""
    taken = {name for group in running_nodes() for name in group.names}
    names = (f'local-{number}' for number in itertools.count(1))
    return list(itertools.islice((name for name in names if name not in taken), n))


def start_nodes(n: int = 1, cpus: int | None = None, *, secret: str = '') -> LocalNodes:
    """Start `n` node servers on this machine that end with this program; see `LocalNodes`."""
    return LocalNodes(n, cpus, secret=secret)


def with_local_nodes(nodes: Sequence[Any]) -> Sequence[Any]:
    """Add the nodes of this program to `nodes` where that says "any"."""
    if not isinstance(nodes, list) or '*' not in nodes:
        return nodes
    with _registry:
        local = [address for group in _running.values() for address in group.nodes]
    return [*nodes, *local]


def running_nodes() -> list[LocalNodes]:
    """Return what this program has started and not ended, in that order."""
    with _registry:
        return list(_running.values())


def close_all() -> None:
    """End all servers of this program; called at its end, after the clusters were closed."""
    for group in list(_running.values()):
        group.close()
