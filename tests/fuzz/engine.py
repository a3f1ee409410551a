"""Inputs by mutation, without any other package, and what they cost in memory."""

import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fuzz.targets import Target

ROOM = 64 << 20  # bytes that readers may take for inputs of a few thousand bytes
LONGEST = 4096
_NUMBERS = (b'\0', b'\xff', b'\x7f', b'\x80', b'\xff' * 4, b'\xff' * 8, b'\xdd\xff\xff\xff\xff')


def mutated(choice: random.Random, pool: list[bytes]) -> bytes:
    """Damage a correct input in a few places, or splice it with another."""
    data = bytearray(choice.choice(pool))
    for _ in range(choice.randint(1, 4)):
        at = choice.randint(0, len(data))
        act = choice.randrange(7)
        if act == 0 and at < len(data):
            data[at] = choice.randrange(256)
        elif act == 1 and at < len(data):
            data[at] ^= 1 << choice.randrange(8)
        elif act == 2:
            data[at:at] = choice.randbytes(choice.randint(1, 9))
        elif act == 3:
            del data[at : at + choice.randint(1, 9)]
        elif act == 4:
            number = choice.choice(_NUMBERS)
            data[at : at + len(number)] = number
        elif act == 5:
            data[at:at] = data[max(0, at - 16) : at] * choice.randint(1, 4)
        else:
            data[at:] = choice.choice(pool)[at:]
    return bytes(data[:LONGEST])


def fuzz(target: Target, runs: int, seed: int) -> int:
    """Have so many inputs read; how many were taken for correct ones.

    What is taken for correct joins those that are damaged, so that damage adds up.
    """
    choice = random.Random(seed)
    pool = [*target.seeds()]
    for whole in pool:
        target(whole)
    taken = 0
    for _ in range(runs):
        data = mutated(choice, pool)
        try:
            is_taken = target(data)
        except BaseException as error:
            error.add_note(f'target {target.name}, input {data.hex()}')
            raise
        if is_taken:
            taken += 1
            if len(pool) < 1000:
                pool.append(data)
            elif not choice.randrange(100):
                pool[choice.randrange(len(pool))] = data
    return taken


@contextmanager
def little_memory(room: int = ROOM) -> Iterator[None]:
    """Let this process have only so much more memory: a reader that asks for more fails."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path('/proc/self/statm').read_text(encoding='ascii').split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def peak_memory() -> int:
    """Answer the most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
