"""What jobs need of a node beside one cpu: how many fit, and in words why none does (Z12)."""

from nodeserver.core.values import ONE_CPU, Resources

_UNITS = ('kiB', 'MiB', 'GiB', 'TiB')


def capacity(needs: Resources, cpus: int, memory: int, gpus: int) -> int:
    """How many jobs with these needs can run at a time with so much for all of them."""
    count = cpus // needs.cpus
    if needs.memory:
        count = min(count, memory // needs.memory)
    if needs.gpus:
        count = min(count, gpus // needs.gpus)
    return count


def misfit(needs: Resources, cpus: int, memory: int, gpus: int) -> str:
    """Say why a node that gives so much can never run such a job; '' if it can."""
    if needs == ONE_CPU:
        return ''
    if needs.cpus < 1 or needs.memory < 0 or needs.gpus < 0:
        return 'asks for less than nothing'
    lacks = []
    if needs.cpus > cpus:
        lacks.append(f'needs {_count(needs.cpus, "cpu")} per job, the node gives it {cpus}')
    if needs.gpus > gpus:
        lacks.append(f'needs {_count(needs.gpus, "gpu")} per job, the node has {gpus or "none"}')
    if needs.memory > memory:
        has = f'the node has {describe_memory(memory)}' if memory else 'the node does not tell its'
        lacks.append(f'needs {describe_memory(needs.memory)} per job, {has}')
    return '; '.join(lacks)


def describe_memory(count: int) -> str:
    """Say a number of bytes as memory is counted: 1,024 to each next unit."""
    size = count / 1024
    for unit in _UNITS:
        if size < 1023.5 or unit == _UNITS[-1]:
            break
        size /= 1024
    text = f'{size:.1f}'.removesuffix('.0') if size < 99.95 else f'{size:.0f}'
    return f'{text} {unit}'


def _count(number: int, thing: str) -> str:
    return f'{number} {thing}' if number == 1 else f'{number} {thing}s'
