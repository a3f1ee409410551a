"""`dispy doctor` for tests: what it found, by place and check."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tests.support.machines import Machine, subprocess_environment

PATIENCE = 4  # seconds, on a machine with much else to do; what answers is not waited for


@dataclass(frozen=True)
class Examined:
    """What one run has found."""

    status: int
    fault: str
    findings: list[dict[str, str]]
    text: str

    def at(self, place: str) -> list[dict[str, str]]:
        """What was found at a place whose name begins so."""
        return [each for each in self.findings if each['where'].startswith(place)]

    def one(self, place: str, check: str) -> dict[str, str]:
        """The one finding of a check that begins so."""
        found = [each for each in self.at(place) if each['check'].startswith(check)]
        assert len(found) == 1, f'{place}, {check}:\n{self.text}'
        return found[0]

    def problems(self, place: str = '') -> list[dict[str, str]]:
        """All problems there, the lines that need something to be done."""
        return [each for each in self.at(place) if each['level'] == 'problem']

    def bad(self, place: str = '') -> list[dict[str, str]]:
        """All warnings and problems there."""
        return [each for each in self.at(place) if each['level'] != 'ok']


def share_key(first: Machine, *others: Machine) -> None:
    """Give machines one key, as one home directory that they share would."""
    key = first.home / '.config' / 'dispy-nb' / 'key'
    first.dispy('key', 'export')
    for other in others:
        place = other.home / '.config' / 'dispy-nb'
        place.mkdir(mode=0o700)
        shutil.copy(key, place)  # and its mode


def read(done: 'subprocess.CompletedProcess[str]') -> Examined:
    """Read the object that `dispy doctor --json` has written."""
    assert done.stderr == '', done.stderr
    found = json.loads(done.stdout)
    assert found['status'] == done.returncode
    return Examined(done.returncode, found['fault'], found['findings'], done.stdout)


def all_examined(*asked: tuple[Any, ...]) -> list[Examined]:
    """Run several at the same time, each of a machine and words."""
    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(lambda each: examined(*each), asked))


def examined(machine: Machine, *words: object) -> Examined:
    """Run `dispy doctor` on a machine; a `--timeout` among the words goes before ours."""
    command = (*machine.within, sys.executable, '-m', 'dispy_nb', 'doctor', '--json')
    return read(
        subprocess.run(
            [*command, '--timeout', str(PATIENCE), *map(str, words)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
            env={**subprocess_environment(), **machine.env},
        )
    )
