"""What the figures were measured on."""

import os
import platform
from importlib import metadata
from pathlib import Path

_LIBRARIES = (
    *('pyzmq', 'msgspec', 'cloudpickle', 'numpy', 'joblib'),
    *('ray', 'distributed', 'ipyparallel', 'parsl'),
)


def facts() -> dict[str, str]:
    """Machine, kernel, Python, versions and load, in words."""
    return {
        'cpu': f'{_cpu()}, {os.cpu_count()} cores',
        'system': f'{platform.system()} {platform.release()}',
        'Python': f'{platform.python_implementation()} {platform.python_version()}',
        'versions': ', '.join(_versions()),
        'load before': load(),
    }


def load() -> str:
    """How many processes wanted to run in the last 1, 5 and 15 minutes."""
    return ' '.join(f'{average:.2f}' for average in os.getloadavg())


def _cpu() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.machine()


def _versions() -> list[str]:
    found = []
    for name in _LIBRARIES:
        try:
            found.append(f'{name} {metadata.version(name)}')
        except metadata.PackageNotFoundError:
            continue
    return found
