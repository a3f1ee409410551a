"""Which gpus this machine has.

Nothing is opened: a process that has touched a gpu cannot be forked any more.  `nvidia-smi` knows
best (also of the parts that a gpu may be divided into, MIG), else the driver's own files tell.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from nodeserver.core.errors import UsageError
from nodeserver.io.gpuvariables import CUDA

_DRIVER = Path('/proc/driver/nvidia/gpus')
_PATIENCE = 20.0  # seconds for `nvidia-smi`, which may have to wake the driver
_LISTED = re.compile(r'^(\s*)(?:GPU|MIG)\b.*\(UUID:\s*([^)\s]+)\)', re.MULTILINE)
_ID = re.compile(r'[A-Za-z0-9][A-Za-z0-9_./:-]*')
_UUID = re.compile(r'^GPU UUID:\s*(GPU-[0-9a-fA-F-]+)\s*$', re.MULTILINE)


def visible_gpus(environment: Mapping[str, str], driver: Path = _DRIVER) -> tuple[str, ...]:
    """Find the gpus that programs started here could use, as CUDA names them."""
    present = _listed(environment) or _known_to_driver(driver)
    chosen = environment.get(CUDA)
    if not present or chosen is None:
        return present
    ids = []
    for each in map(str.strip, chosen.split(',')):
        if not each or each.startswith('-'):  # CUDA ignores what follows as well
            break
        ids.append(each)
    return tuple(ids)


def _listed(environment: Mapping[str, str]) -> tuple[str, ...]:
    """What `nvidia-smi -L` lists: gpus, or the parts of those that are divided."""
    program = shutil.which('nvidia-smi', path=environment.get('PATH', ''))
    if program is None:
        return ()
    try:
        done = subprocess.run(
            [program, '-L'],
            capture_output=True,
            text=True,
            errors='replace',
            timeout=_PATIENCE,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    groups: list[list[str]] = []
    for indent, uuid in _LISTED.findall(done.stdout) if done.returncode == 0 else ():
        if indent and groups:
            groups[-1].append(uuid)
        else:
            groups.append([uuid])
    return tuple(uuid for whole, *parts in groups for uuid in parts or [whole])


def _known_to_driver(driver: Path) -> tuple[str, ...]:
    """What the driver's files tell: UUIDs, or numbers where it has none yet."""
    try:
        files = sorted(driver.glob('*/information'))
        texts = [file.read_text(errors='replace') for file in files]
    except OSError:
        return ()
    found = [_UUID.search(text) for text in texts]
    if all(found):
        return tuple(match[1] for match in found if match)
    return tuple(str(number) for number in range(len(texts)))


def gpus_to_offer(wanted: str | None, present: tuple[str, ...]) -> tuple[str, ...]:
    """Choose which gpus a node offers: all that are present, so many of them, or a list.

    Raises
    ------
    UsageError
        There are not so many, or the list names one twice or none.
    """
    if wanted is None:
        return present
    if wanted.isascii() and wanted.isdigit():
        if int(wanted) > len(present):
            raise UsageError(f'--gpus {wanted}: this machine has {len(present) or "no"} gpus')
        return present[: int(wanted)]
    ids = tuple(each.strip() for each in wanted.removesuffix(',').split(','))
    if not all(_ID.fullmatch(each) for each in ids) or len(set(ids)) < len(ids):
        raise UsageError(
            f'--gpus must be a number of gpus or a list such as 0,1 (of one: 0,), not {wanted!r}'
        )
    return ids
