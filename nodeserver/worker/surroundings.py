"""What a lasting worker puts back after each job, so that the next one finds it as it was (D5)."""

import contextlib
import os
import sys
import types
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from nodeserver.payload import namespaces_that_came
from nodeserver.worker import ancestry
from nodeserver.worker.output import Capture

PREPARES = 'init_depends'  # a function among dependencies


class Surroundings:
    """Global names of the computation, working directory, environment and standard streams.

    Objects changed in place, modules' own state, signal handlers and threads are not put back.
    """

    def __init__(self, directory: str, capture: Capture, *parts: object) -> None:
        self._directory = directory
        self._capture = capture
        self._globals = [(names, dict(names)) for names in namespaces(*parts)]
        # the mapping below `os.environ`: comparing that itself decodes every variable
        self._environment: dict[object, object] = vars(os.environ)['_data']
        self._variables = dict(self._environment)
        self._modules = len(sys.modules)
        self._own_names = _names_in(directory)  # before any job has brought files of its own

    def keep_variables(self) -> None:
        """Put the environment back to what it is now, from now on."""
        self._variables = dict(self._environment)

    def bring(self, depends: Iterable[object]) -> None:
        """Have a job's own dependencies among its globals; a function may prepare them."""
        parts = list(depends)
        spaces = [names for names, _ in self._globals]
        spaces += [new for new in namespaces(*parts) if not any(new is names for names in spaces)]
        bind(parts, spaces, anew=True)
        begin(parts)

    def sweep(self) -> None:
        """End the processes that the job left behind."""
        if ancestry.has_children():
            ancestry.sweep(())

    def restore(self) -> None:
        """Put everything back; looking first whether it changed would cost more."""
        for names, before in self._globals:
            names.clear()
            names.update(before)
        try:
            os.chdir(self._directory)
        except FileNotFoundError:
            enter(self._directory)
        if self._environment != self._variables:
            self._restore_environment()
        self._capture.restore()
        if len(sys.modules) > self._modules:
            self._forget_modules()

    def _forget_modules(self) -> None:
        """Have modules that came with a job imported anew: the next one may bring others."""
        below = self._directory + os.sep
        for name in [*sys.modules][self._modules :]:
            # not `getattr`, at which some modules begin to load what they stand for
            origin = getattr(sys.modules[name], '__dict__', {}).get('__file__')
            if not isinstance(origin, str) or not origin.startswith(below):
                continue
            if origin[len(below) :].partition(os.sep)[0] not in self._own_names:
                del sys.modules[name]
        self._modules = len(sys.modules)

    def _restore_environment(self) -> None:
        for name in list(os.environb):
            if name not in self._variables:
                del os.environb[name]
        for name, value in self._variables.items():
            assert isinstance(name, bytes)
            assert isinstance(value, bytes)
            os.environb[name] = value


def _names_in(directory: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(directory))  # noqa: PTH208 - for each template
    except OSError:  # `setup` has removed it
        return frozenset()


def enter(directory: str) -> None:
    """Make this the working directory; a job may have removed it, which must not harm others."""
    try:
        os.chdir(directory)
    except FileNotFoundError:
        before = os.umask(0o077)
        try:
            os.makedirs(directory, exist_ok=True)  # noqa: PTH103
        finally:
            os.umask(before)
        os.chdir(directory)


def bind(parts: Iterable[object], spaces: Iterable[dict[str, Any]], anew: bool = False) -> None:
    """Make functions and classes known by their names, but for names that are taken already.

    With `anew` those are taken over.
    """
    named = {name: part for part in map(_named_part, parts) if (name := _name_of(part))}
    for names in spaces:
        names.update(named if anew else {n: part for n, part in named.items() if n not in names})


def begin(parts: Iterable[object]) -> None:
    """Call the function of that name among dependencies, before anything else of the user's."""
    for part in parts:
        if callable(part) and _name_of(part) == PREPARES:
            part()


def _named_part(part: Any) -> Any:
    while type(part) is partial:
        part = part.func
    return part


def _name_of(part: object) -> str:
    name = getattr(part, '__name__', '')
    return name if isinstance(name, str) and name.isidentifier() else ''


def namespaces(*parts: object) -> list[dict[str, Any]]:
    """Find the globals that came with a computation: `__main__`'s, and those of no module here.

    Functions of a module of the user's own travel by value, and share a namespace on the node.
    """
    found = namespaces_that_came()
    waiting: list[object] = [*parts, *(value for names in found for value in names.values())]
    while waiting:
        for function in _functions(waiting.pop()):
            names = function.__globals__
            module = sys.modules.get(names.get('__name__', ''))
            if any(names is other for other in (*found, vars(module) if module else None)):
                continue
            found.append(names)
            waiting += names.values()
    return found


def _functions(part: Any) -> Iterator[types.FunctionType]:
    """Functions that a value is or is made of."""
    kind = type(part)  # `isinstance` would ask the value too, which may be anything
    if kind is types.FunctionType:
        yield part
        for cell in part.__closure__ or ():
            with contextlib.suppress(ValueError):  # an empty one
                if type(cell.cell_contents) is types.FunctionType:
                    yield cell.cell_contents
    elif kind is partial:
        yield from _functions(part.func)
    elif kind is types.MethodType:
        yield from _functions(part.__func__)
    elif issubclass(kind, type):
        yield from (each for each in vars(part).values() if type(each) is types.FunctionType)
    elif callable(part):
        yield from _functions(kind)
