"""What differs between the packages here and those that the function was written with (Z10)."""

import sys
from collections.abc import Iterable
from importlib.machinery import PathFinder

from nodeserver.distributions import Catalogue, Requirement, installed, normalized


def remarks_on(requires: Iterable[Requirement]) -> str:
    """Say in a line each which packages are missing or differ, as the client's user reads it.

    Nothing is imported.  A package that is missing may be one that the function can do without.
    """
    requires = list(requires)
    if not requires:
        return ''
    catalogue = installed()
    return '\n'.join(filter(None, (_remark(needed, catalogue) for needed in requires)))


def _remark(needed: Requirement, catalogue: Catalogue) -> str:
    found = catalogue.get(normalized(needed.distribution))
    order = f'run `pip install {needed.distribution}=={needed.version}` there'
    if found is not None:
        if found.version == needed.version:
            return ''
        return (
            f'{needed.distribution} is {found.version} there and {needed.version} here: results '
            f'may differ; {order}'
        )
    if needed.module in sys.modules or PathFinder.find_spec(needed.module) is not None:
        return ''  # it came another way, whose version cannot be told
    return (
        f'{needed.distribution} is not installed there, and {needed.version} is here: if jobs '
        f'need it, {order}'
    )
