"""Real programs for tests: nodes and client scripts in processes of their own."""

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Self, TypeVar

T = TypeVar('T')

ROOT = Path(__file__).parents[2]
START_LIMIT = 20.0
END_LIMIT = 15.0


def eventually(
    predicate: Callable[[], T], timeout: float = 10, message: str | Callable[[], str] = ''
) -> T:
    """Wait until the predicate answers something true, and answer that."""
    end = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > end:
            words = message() if callable(message) else message
            raise AssertionError(f'not within {timeout} s: {words or predicate}')
        time.sleep(0.01)


def at_once(check: Callable[[T], object], *cases: T) -> None:
    """Check several cases at the same time, which is quicker where each of them mostly waits."""
    with ThreadPoolExecutor(len(cases)) as pool:
        for checked in [pool.submit(check, case) for case in cases]:
            checked.result()


def all_entered(stack: ExitStack, *blocks: 'AbstractContextManager[Program]') -> 'list[Program]':
    """Start programs at the same time; they end with the stack."""
    with ThreadPoolExecutor(len(blocks)) as pool:
        return list(pool.map(stack.enter_context, blocks))


def _first_candidate() -> int:
    worker = os.environ.get('PYTEST_XDIST_WORKER', 'gw0').removeprefix('gw')
    return 20000 + int(worker) % 10 * 1000 + random.randrange(500)


# Below the range from which the system itself takes ports, and apart for each pytest worker:
# nobody else takes a port between its being found free here and its use.
_candidates = itertools.count(_first_candidate())


def free_port() -> int:
    """Answer a port that is free for TCP and UDP at every address of this machine."""
    for port in itertools.islice(_candidates, 500):
        try:
            with ExitStack() as sockets:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    sock = sockets.enter_context(socket.socket(socket.AF_INET, kind))
                    sock.bind(('', port))
            return port
        except OSError:
            continue
    raise AssertionError('no free port was found')


class Program:
    """A running program whose words are read while it runs, and kept when it ended."""

    def __init__(self, command: list[str], env: Mapping[str, str] | None = None) -> None:
        surroundings = {**os.environ, **(env or {})}
        self.command = command
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._kept: tuple[str, str] | None = None
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._errors,
            env=surroundings,
            cwd=_own_directory(surroundings),
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The process id of the program itself."""
        return self.process.pid

    def output(self) -> str:
        """Answer what the program has written so far to standard output."""
        return self._kept[0] if self._kept is not None else _written(self._output)

    def errors(self) -> str:
        """Answer what the program has written so far to standard error."""
        return self._kept[1] if self._kept is not None else _written(self._errors)

    def log(self) -> str:
        """Answer what the program has written so far, to standard output and then to error."""
        return self.output() + self.errors()

    def log_from_now(self) -> Callable[[], str]:
        """Answer what will answer the part of the log that was written after this call."""
        before = len(self.output()), len(self.errors())
        return lambda: self.output()[before[0] :] + self.errors()[before[1] :]

    def wait_for_log(self, text: str, timeout: float = 10) -> str:
        """Wait until the program has written the text, and answer the whole log."""

        def seen() -> bool:
            return text in self.log() or self.process.poll() is not None

        eventually(seen, timeout, lambda: f'{text!r} in the log:\n{self.log()}')
        log = self.log()
        assert text in log, f'{self.command} ended ({self.process.returncode}):\n{log}'
        return log

    def signal(self, number: int) -> None:
        """Send a signal to the program alone."""
        self.process.send_signal(number)

    def terminate(self) -> None:
        """Ask the program to end."""
        self.process.terminate()

    def kill(self) -> None:
        """End the program at once, without last words."""
        self.process.kill()

    def wait(self, timeout: float = END_LIMIT) -> int:
        """Wait for the end and answer the exit status."""
        return self.process.wait(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the program if it runs, and fail if it does not obey."""
        obeyed = True
        try:
            if self.process.poll() is None:
                self.process.terminate()
            try:
                self.process.wait(END_LIMIT)
            except subprocess.TimeoutExpired:
                obeyed = False
                self.process.send_signal(signal.SIGCONT)
                self.process.kill()
                self.process.wait(END_LIMIT)
        finally:
            self._kept = self.output(), self.errors()
            self._output.close()
            self._errors.close()
        assert obeyed, f'{self.command} did not end within {END_LIMIT} s:\n{self.log()}'


def _own_directory(env: Mapping[str, str]) -> Path:
    """Where a program starts, and leaves its journal if it is killed: never among the sources."""
    here = Path.cwd()
    return Path(env['HOME']) if here == ROOT else here


def _written(file: BinaryIO) -> str:
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size, 0).decode(errors='replace')


@contextmanager
def program(
    *command: object, ready: str = '', env: Mapping[str, str] | None = None
) -> Iterator[Program]:
    """Run a program until the block ends, which begins when the log contains `ready`."""
    running = Program([str(word) for word in command], env)
    try:
        if ready:
            running.wait_for_log(ready, START_LIMIT)
        yield running
    finally:
        running.close()


@contextmanager
def node_program(
    *options: object, env: Mapping[str, str] | None = None, within: Sequence[str] = ()
) -> Iterator[Program]:
    """Run `dispynode` with these options; the block begins when it serves."""
    command = (*within, sys.executable, '-m', 'nodeserver.cli.dispynode', *options)
    with program(*command, ready='serving', env=env) as running:
        yield running


@contextmanager
def scheduler_program(
    port: int, *options: object, env: Mapping[str, str] | None = None, within: Sequence[str] = ()
) -> Iterator[Program]:
    """Run `dispyscheduler` at this port for programs; the block begins when it serves."""
    command = (*within, sys.executable, '-m', 'nodeserver.cli.dispyscheduler')
    ports = ('--scheduler_port', port, '--port', free_port())
    with program(*command, *ports, *options, ready='serving', env=env) as running:
        yield running


def client_program(
    source: str,
    timeout: float = 30,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    within: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run a script in a fresh interpreter, from a file in an empty directory, to its end.

    With `check`, a script that fails fails the test with all that it wrote; one that takes too
    long does so in any case, with the stacks of its threads.  `within` are words that run the
    command elsewhere: `host.command([])` does so on a host of `tests.support.netns`.
    """
    with tempfile.TemporaryDirectory(prefix='client') as directory:
        script = Path(directory, 'script.py')
        script.write_text(source, encoding='utf-8')
        process = subprocess.Popen(
            [*within, sys.executable, '-X', 'faulthandler', str(script)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=directory,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        late = False
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            late = True
            stdout, stderr = _last_words(process)
    words = f'--- standard output\n{stdout}\n--- standard error\n{stderr}'
    assert not late, f'the script did not end within {timeout} s\n{words}'
    assert not check or process.returncode == 0, f'exit status {process.returncode}\n{words}'
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def _last_words(process: subprocess.Popen[str]) -> tuple[str, str]:
    process.send_signal(signal.SIGABRT)  # faulthandler writes the stacks
    try:
        return process.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        # a child of the script still holds its standard output
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate(timeout=5)
