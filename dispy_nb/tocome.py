"""Documented names whose features this version does not have; each says so when used (U01)."""

from typing import Any, NoReturn

from nodeserver.core.errors import NotYetSupported


def recover_jobs(*args: Any, **kwargs: Any) -> NoReturn:
    """Fetch the results of a program that has crashed."""
    raise NotYetSupported('recover_jobs()')
