"""What `depends` and `dispy_job_depends` may hold: objects of the program, and files."""

import types
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nodeserver.core.errors import NotYetSupported, UsageError

JOB_DEPENDS = 'dispy_job_depends'  # a keyword of `submit`

_FILES = (str, Path, types.ModuleType)
_FUNCTIONS = (types.BuiltinFunctionType, types.FunctionType, types.MethodType)
_KINDS = 'a function, a class, an instance of a class of yours, a module, or the path of a file'


def checked_depends(name: str, depends: Any) -> list[Any]:
    """Gather dependencies, or say which one has a wrong value.

    Raises
    ------
    UsageError
        It is no list, or an element is of no kind that can be sent.
    """
    if isinstance(depends, str | bytes | dict) or not isinstance(depends, Iterable):
        raise UsageError(f'{name} must be a list, not {depends!r}: write [{depends!r}]')
    elements = list(depends)
    for place, element in enumerate(elements):
        if not _is_of_a_kind(element):
            raise UsageError(
                f'{name}[{place}] must be {_KINDS}, not {element!r} ({type(element).__name__})'
            )
    if files := files_of(elements):
        raise NotYetSupported(f'{name} with files or modules, such as {files[0]!r},')
    return elements


def job_depends(kwargs: dict[str, Any], computation: object) -> list[Any]:
    """Take what a job depends on out of the arguments of its call (F12)."""
    if JOB_DEPENDS not in kwargs:
        return []
    depends = checked_depends(JOB_DEPENDS, kwargs.pop(JOB_DEPENDS))
    objects = objects_of(depends)
    if objects and isinstance(computation, str):
        raise UsageError(
            f'{JOB_DEPENDS} of a program may hold files and modules only, not {objects[0]!r}'
        )
    return objects


def files_of(depends: Sequence[Any]) -> list[Any]:
    """Pick the paths and modules."""
    return [element for element in depends if isinstance(element, _FILES)]


def objects_of(depends: Sequence[Any]) -> list[Any]:
    """Pick functions and classes; of an instance its class is what travels (F05)."""
    return [_sent(element) for element in depends if not isinstance(element, _FILES)]


def _is_of_a_kind(element: Any) -> bool:
    if isinstance(element, (*_FILES, *_FUNCTIONS, type)):
        return True
    return type(element).__module__ != 'builtins'


def _sent(element: Any) -> Any:
    if isinstance(element, (*_FUNCTIONS, type, partial)) or hasattr(element, '__wrapped__'):
        return element
    return type(element)
