"""What `depends` and `dispy_job_depends` may hold: objects of the program, and files."""

import os
import types
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from dispy_nb.dependencies import (
    NO_FILES,
    NO_PART,
    Dependency,
    SourceFiles,
    digest,
    gather,
)
from nodeserver.core.errors import UsageError

JOB_DEPENDS = 'dispy_job_depends'  # a keyword of `submit`
NO_DEPENDS: tuple[Sequence[Any], SourceFiles] = ((), NO_FILES)  # of nearly all jobs

_FILES = (str, os.PathLike, types.ModuleType)
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
        hint = f': write [{depends!r}]' if isinstance(depends, str | bytes) else ''
        raise UsageError(f'{name} must be a list, not {depends!r}{hint}')
    elements = list(depends)
    for place, element in enumerate(elements):
        if not _is_of_a_kind(element):
            raise UsageError(
                f'{name}[{place}] must be {_KINDS}, not {element!r} ({type(element).__name__})'
            )
    return elements


def job_depends(kwargs: dict[str, Any], computation: object) -> tuple[Sequence[Any], SourceFiles]:
    """Take what a job depends on out of the arguments of its call (F12): objects, and files."""
    if JOB_DEPENDS not in kwargs:
        return NO_DEPENDS
    depends = checked_depends(JOB_DEPENDS, kwargs.pop(JOB_DEPENDS))
    objects = objects_of(depends)
    if objects and isinstance(computation, str):
        raise UsageError(
            f'{JOB_DEPENDS} of a program may hold files and modules only, not {objects[0]!r}'
        )
    return objects, files_of(JOB_DEPENDS, depends)


def files_of(name: str, depends: Sequence[Any], reached: Sequence[Dependency] = ()) -> SourceFiles:
    """Find and digest the files and modules among them, and others that are `reached` by these."""
    listed = gather(name, [part if isinstance(part, _FILES) else NO_PART for part in depends])
    places = {dependency.path for dependency in listed}
    return digest(name, [*listed, *(each for each in reached if each.path not in places)])


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
