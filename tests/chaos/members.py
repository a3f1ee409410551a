"""The programs of a chaos run, each on a host of its own, and what may happen to them.

Member ── start ──▶ process ── kill, restart, freeze, cut ──▶ later: start, thaw, heal
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.chaos.ledger import Account
from tests.support.machines import Machine

LONGEST_FREEZE = 8.0  # seconds: with pulses of a second a node is lost within five
LONGEST_PAUSE = 3.0  # before what was killed is started again
ENDING = 20.0  # what a program has for its end when it is asked for it


class Member:
    """One program, which is started again whenever it ends."""

    def __init__(self, name: str, machine: Machine, words: Sequence[object], logs: Path) -> None:
        self.name, self.machine = name, machine
        self._words = [str(word) for word in words]
        self._log = logs / name
        self._process: subprocess.Popen[bytes] | None = None
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._pause = 0.5  # before the next start
        self.is_done = False
        self.failures: list[str] = []  # ends that nobody has brought about

    @property
    def pid(self) -> int:
        """The process id, or 0."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if running and self._process is not None else 0

    def start(self) -> None:
        """Start the program, if it does not run."""
        if self.pid or self.is_done:
            return
        with self._log.open('ab') as log:
            self._process = subprocess.Popen(
                [*self.machine.within, *self._words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.machine.env, 'PYTHONFAULTHANDLER': '1'},
                cwd=self.machine.home,
                start_new_session=True,
            )

    def watch(self) -> None:
        """Do what has come due, and see whether the program has ended by itself."""
        now = time.monotonic()
        due = [action for moment, action in self._later if moment <= now]
        self._later = [each for each in self._later if each[0] > now]
        for action in due:
            action()
        if self._process is not None and (status := self._process.poll()) is not None:
            self._process = None
            self.has_ended(status)

    def has_ended(self, status: int) -> None:
        """The program is gone: nobody but us ends it."""
        if status not in (-signal.SIGKILL, 128 + signal.SIGTERM, -signal.SIGTERM, 0):
            self.failures.append(f'{self.name} ended with status {status}')
        heal = self.machine.host.heal  # all else was for the process that is gone
        self._later = [each for each in self._later if each[1] == heal]
        self.later(self._pause, self.start)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after a while."""
        self._later.append((time.monotonic() + seconds, action))

    # faults

    def kill(self, rng: random.Random) -> None:
        """End it without last words."""
        if self.pid:
            self._pause = rng.random() * LONGEST_PAUSE
            os.kill(self.pid, signal.SIGKILL)

    def restart(self, rng: random.Random) -> None:
        """Ask it to end, and then start it again."""
        if self.pid:
            self._pause = rng.random() * LONGEST_PAUSE
            os.kill(self.pid, signal.SIGTERM)
            self.later(ENDING, self._insist)

    def freeze(self, rng: random.Random) -> None:
        """Stop it for a while."""
        if self.pid:
            pid = self.pid
            os.kill(pid, signal.SIGSTOP)
            self.later(rng.random() * LONGEST_FREEZE, lambda: self._signal(pid, signal.SIGCONT))

    def cut(self, rng: random.Random) -> None:
        """Take its host off the network for a while."""
        self.machine.host.cut()  # type: ignore[no-untyped-call]
        self.later(rng.random() * LONGEST_FREEZE, self.machine.host.heal)

    def _insist(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)

    def _signal(self, pid: int, number: int) -> None:
        if self.pid == pid:
            os.kill(pid, number)

    @property
    def is_well(self) -> bool:
        """Whether it runs, and nothing is done to it at the moment."""
        return bool(self.pid) and not self._later

    def mend(self) -> None:
        """Do at once what was to be done later."""
        actions, self._later = [action for _, action in self._later], []
        for action in actions:
            action()
        self.start()

    def stop(self) -> int:
        """Ask it to end; its exit status."""
        self.is_done = True
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            self.failures.append(f'{self.name} did not end within {ENDING} s')
            return 1

    def last_words(self, count: int = 15) -> str:
        """The end of its log."""
        if not self._log.exists():
            return ''
        lines = self._log.read_text(errors='replace').splitlines()[-count:]
        return '\n'.join(f'    {self.name}: {line}' for line in lines)


class SchedulerMember(Member):
    """A scheduler, which is sometimes started again on another host."""

    def __init__(
        self, name: str, homes: Sequence[Machine], words: Sequence[object], logs: Path
    ) -> None:
        super().__init__(name, homes[0], words, logs)
        self._homes = homes

    def kill(self, rng: random.Random) -> None:
        """End it without last words; the next one may be elsewhere."""
        if self.pid:
            self.machine = rng.choice(self._homes)
        super().kill(rng)


class ClientMember(Member):
    """A client, which is done one day."""

    def __init__(
        self, name: str, machine: Machine, words: Sequence[object], ledger: Path, logs: Path
    ) -> None:
        super().__init__(name, machine, words, logs)
        self._ledger = ledger

    def has_ended(self, status: int) -> None:
        """It was killed, or has done all that it had to do."""
        if status == 0 and Account(self._ledger, self.name).is_done:
            self.is_done = True
        else:
            super().has_ended(status)


def python(module: str, *words: object) -> list[object]:
    """What runs a module with the interpreter of this program."""
    return [sys.executable, '-m', module, *words]
