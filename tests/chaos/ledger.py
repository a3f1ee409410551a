"""What jobs and clients have written down, and whether it is as promised.

    starts        a line for each time a job began: its client's name and its number
    NAME          of a client: 'A number' accepted, 'S number status' ended, 'DONE' closed

Each line is written at once, behind all others: a program that is killed leaves whole lines.
"""

import os
from collections import Counter
from pathlib import Path

STARTS = 'starts'


def note(file: Path, line: str) -> None:
    """Add a line to a file that others write to as well."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f'{line}\n'.encode())
    finally:
        os.close(descriptor)


class Account:
    """What one client has written."""

    def __init__(self, directory: Path, name: str) -> None:
        file = directory / name
        lines = file.read_text(encoding='ascii').splitlines() if file.exists() else []
        words = [line.split(' ') for line in lines]
        self.accepted = {int(word[1]) for word in words if word[0] == 'A'}
        self.ends: dict[int, set[str]] = {}
        for word in words:
            if word[0] == 'S':
                self.ends.setdefault(int(word[1]), set()).add(word[2])
        self.is_done = any(word[0] == 'DONE' for word in words)


def starts_of(directory: Path, name: str) -> Counter[int]:
    """How often each job of a client was begun."""
    file = directory / STARTS
    lines = file.read_text(encoding='ascii').splitlines() if file.exists() else []
    return Counter(int(word[1]) for line in lines if (word := line.split(' '))[0] == name)


def faults_in(directory: Path, name: str, *, reentrant: bool) -> list[str]:
    """Which promises to a client were broken, in words."""
    account, starts = Account(directory, name), starts_of(directory, name)
    found = [] if account.is_done else [f'{name} has not ended']
    for job in sorted(account.accepted):
        ends = account.ends.get(job, set())
        if len(ends) != 1:
            found.append(f'{name}: job {job} has the ends {sorted(ends)}')
        elif ends == {'FINISHED'} and not starts[job]:
            found.append(f'{name}: job {job} is finished and was never begun')
        elif reentrant and ends != {'FINISHED'}:
            found.append(f'{name}: job {job} is reentrant, and {sorted(ends)}')
    if not reentrant:
        twice = sorted(job for job, count in starts.items() if count > 1)
        found += [f'{name}: job {job} was begun {starts[job]} times' for job in twice]
    return found


def summary(directory: Path, name: str) -> str:
    """What became of a client's jobs, in one line."""
    account, starts = Account(directory, name), starts_of(directory, name)
    ends = Counter(end for found in account.ends.values() for end in found)
    told = ', '.join(f'{count} {end.lower()}' for end, count in sorted(ends.items()))
    again = sum(count - 1 for count in starts.values() if count > 1)
    return f'{name}: {len(account.accepted)} jobs accepted: {told}; {again} begun again'
