"""What a check has found, in words and as an exit status."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, Final


class Level(IntEnum):
    """How bad it is."""

    OK = 0
    WARNING = 1  # works, or will, but somebody should know
    PROBLEM = 2  # something does not work until this is done


class Fault(Enum):
    """What kind of thing is wrong: exit status and words; the first is the most severe."""

    CONFIGURATION = (78, 'a key, certificate or directory of this machine cannot be used')
    KEYS = (77, 'a node has another key, another certificate, or none at all')
    VERSIONS = (76, 'versions do not fit, or a package is missing')
    NAMES = (68, 'a host name is unknown')
    FIREWALL = (70, 'a firewall drops what has to pass')
    REACH = (69, 'nobody is there: no node, no machine, or no network')
    PORTS = (71, 'another program has a port')
    DISK = (73, 'no room on a disk')
    LIMITS = (72, 'the system allows too little')
    CLOCKS = (74, 'a clock is wrong')

    @property
    def status(self) -> int:
        """The exit status of a program whose most severe problem is of this kind."""
        return self.value[0]

    @property
    def words(self) -> str:
        """What people read in the table of exit statuses."""
        return self.value[1]


HERE: Final = 'this machine'
LONGEST: Final = 1000  # characters of what is told
_SEVERITY: Final = {fault: number for number, fault in enumerate(Fault)}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: which check, how it went, what was found, and what to do about it."""

    check: str
    level: Level
    fault: Fault
    found: str
    advice: str = ''
    where: str = HERE

    def line(self) -> str:
        """Write it for people; one line, whatever a peer or a file has put into it."""
        text = f'{self.check}: {self.found}'
        if self.advice:
            text += f' -> {self.advice}'
        return f'{self.level.name.lower():<9}{printable(text)}'

    def record(self) -> dict[str, Any]:
        """Write it for programs."""
        return {
            'where': self.where,
            'check': self.check,
            'level': self.level.name.lower(),
            'fault': self.fault.name.lower() if self.level else '',
            'found': printable(self.found),
            'advice': printable(self.advice),
        }


def fine(check: str, found: str, where: str = HERE) -> Finding:
    """Say that there is nothing to be done; an ordinary check needs no kind of fault."""
    return Finding(check, Level.OK, Fault.REACH, found, where=where)


def worst(findings: Iterable[Finding], strict: bool = False) -> Fault | None:
    """Choose the most severe fault among the problems; warnings count if `strict`."""
    least = Level.WARNING if strict else Level.PROBLEM
    faults = {finding.fault for finding in findings if finding.level >= least}
    return min(faults, key=lambda fault: _SEVERITY[fault], default=None)


def exit_status(findings: Iterable[Finding], strict: bool = False) -> int:
    """Return the exit status that tells the most severe problem; 0 where there is none."""
    fault = worst(findings, strict)
    return fault.status if fault else 0


def summary(findings: Sequence[Finding], strict: bool = False) -> str:
    """Say in one line how many things are wrong, and what is to be done first."""
    problems = sum(finding.level is Level.PROBLEM for finding in findings)
    warnings = sum(finding.level is Level.WARNING for finding in findings)
    if not problems and not warnings:
        return f'{len(findings)} checks, nothing is wrong'
    text = f'{len(findings)} checks: {_count(problems, "problem")}, {_count(warnings, "warning")}'
    fault = worst(findings, strict)
    return f'{text}; exit status {fault.status}: {fault.words}' if fault else text


def as_json(findings: Sequence[Finding], strict: bool = False) -> dict[str, Any]:
    """Gather everything for `--json`."""
    fault = worst(findings, strict)
    return {
        'status': fault.status if fault else 0,
        'fault': fault.name.lower() if fault else '',
        'findings': [finding.record() for finding in findings],
    }


def printable(text: str) -> str:
    """Keep a terminal safe from what a peer says, and a line a line."""
    return ''.join(char if char.isprintable() else '?' for char in text[:LONGEST])


def _count(number: int, thing: str) -> str:
    return f'{number} {thing}' if number == 1 else f'{number} {thing}s'
