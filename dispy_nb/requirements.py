"""Which installed packages a function imports, and in which versions (Z10)."""

import sys
from collections.abc import Iterable

from nodeserver.distributions import Requirement, provider_of


def requirements_of(modules: Iterable[str]) -> tuple[Requirement, ...]:
    """Find the distributions of top-level modules that are no part of Python.

    What belongs to no distribution, or to several, is left out: nothing sure can be said of it.
    """
    found = []
    for module in sorted(set(modules) - sys.stdlib_module_names):
        provider = provider_of(module)
        if provider is not None:
            name = provider.name.replace('_', '-')  # as people write it; pip takes both
            found.append(Requirement(module, name, provider.version))
    return tuple(found)
