"""The user's own project: which of its modules a computation reaches, and what else it imports.

    parts ── references ──▶ names of modules ──▶ their files ── imports in them ──▶ more names ...
                                                     └──▶ outside the project: requirements (Z10)

Own modules go along as files (Z09).  A module that is imported by a name made at run time is not
found: it has to be listed in `depends`.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dispy_nb.edited import warn_of_edits
from dispy_nb.importscan import Import, imports_in_code
from dispy_nb.modulefiles import ModuleFile, ModuleFiles, own_names
from dispy_nb.references import references_of
from dispy_nb.requirements import requirements_of
from nodeserver.core.errors import UsageError
from nodeserver.distributions import Requirement

MOST_BYTES = 50_000_000  # of all files together
_MOST_NAMED = 5
_MAIN = ('__main__', '__mp_main__')


@dataclass(frozen=True, slots=True)
class ProjectFile:
    """A source file of the user's project."""

    path: str  # relative, with slashes, as the node needs it: 'pkg/__init__.py'
    source: Path  # on this machine


@dataclass(frozen=True, slots=True)
class Project:
    """What a computation needs of the user's own modules, and of installed packages."""

    files: tuple[ProjectFile, ...] = ()
    modules: frozenset[str] = frozenset()  # the names of these files' modules
    requires: tuple[Requirement, ...] = ()


def find_project(parts: Sequence[object]) -> list[ProjectFile]:
    """Find the files of the user's own modules that these functions and objects reach.

    Raises
    ------
    UsageError
        One of them is compiled, or they are too large together.
    """
    return list(look_through(parts).files)


def look_through(parts: Sequence[object]) -> Project:
    """Find all that these functions and objects reach beyond themselves.

    Raises
    ------
    UsageError
        An own module is compiled, or they are too large together.
    """
    references = references_of(parts)
    search = _Search()
    for module in references.modules:
        search.want(module)
    for function in references.functions:
        package = _package_of(function.__globals__)
        for found in imports_in_code(function.__code__):
            search.follow(found, package)
    search.finish()
    own = list(_to_send([module for module in search.modules.values() if module.source]))
    _check_sources(own, search.sizes)
    warn_of_edits(references.functions)
    files = sorted(
        (ProjectFile(_path_of(module), Path(module.source)) for module in own),
        key=lambda file: file.path,
    )
    names = frozenset(module.name for module in own)
    return Project(tuple(files), names, requirements_of(search.outside))


class _Search:
    """Follows imports through the files of own modules."""

    def __init__(self) -> None:
        self.modules: dict[str, ModuleFile] = {}  # own ones
        self.outside: set[str] = set()  # top-level modules that are not
        self._others: set[str] = set()  # missing, or not own
        self._files = ModuleFiles()
        self.sizes = self._files.sizes
        self._todo: list[ModuleFile] = []

    def want(self, name: str) -> None:
        """Take a module, and the packages that it is in; missing ones may be optional."""
        at = name.find('.')
        while at > 0:
            if not self._take(name[:at]):
                return
            at = name.find('.', at + 1)
        self._take(name)

    def follow(self, found: Import, package: str) -> None:
        """Take what an import statement brings."""
        base = found.absolute(package)
        if not base:
            return
        self.want(base)
        module = self.modules.get(base)
        if module is None or not module.is_package:
            return
        for name in found.names:
            if name != '*':
                self.want(f'{base}.{name}')
            elif module.source:
                for public in self._files.scan(module.source).public:
                    self.want(f'{base}.{public}')

    def finish(self) -> None:
        """Follow the imports of all that was taken."""
        while self._todo:
            module = self._todo.pop()
            if module.source.endswith('.py'):
                for found in self._files.scan(module.source).imports:
                    self.follow(found, module.package)

    def _take(self, name: str) -> bool:
        """Whether the module is the user's own; those that are not are no more looked into."""
        if name in self.modules:
            return True
        if name in self._others or name in _MAIN:
            return False
        module = self._files.find(name)
        if module is None or not module.is_own:
            self._others.add(name)
            if module is not None:
                self.outside.add(name.partition('.')[0])
            return False
        self.modules[name] = module
        self._todo.append(module)
        return True


def _package_of(namespace: dict[str, object]) -> str:
    """Return what a function's relative imports start from."""
    package, name = namespace.get('__package__'), namespace.get('__name__')
    if isinstance(package, str):
        return package
    if not isinstance(name, str):
        return ''
    return name if '__path__' in namespace else name.rpartition('.')[0]


def _to_send(modules: Sequence[ModuleFile]) -> Iterator[ModuleFile]:
    """Leave out packages with compiled modules that nodes may have at the same place."""
    left = {
        module.name.partition('.')[0]
        for module in modules
        if not module.source.endswith('.py') and module.is_elsewhere
    }
    return (module for module in modules if module.name.partition('.')[0] not in left)


def _path_of(module: ModuleFile) -> str:
    path = module.name.replace('.', '/')
    return f'{path}/__init__.py' if module.is_package else f'{path}.py'


def _check_sources(modules: Sequence[ModuleFile], sizes: Mapping[str, int]) -> None:
    compiled = [module.source for module in modules if not module.source.endswith('.py')]
    if compiled:
        raise UsageError(
            f'compiled modules of your own project cannot be sent: {_named(compiled)}; install '
            'their package on the nodes, and here too (by pip, without -e), so that it is taken '
            'for an installed one'
        )
    total = sum(sizes.values())
    if total > MOST_BYTES:
        by_size = sorted(sizes.items(), key=lambda item: -item[1])
        largest = [f'{source} ({size:,} bytes)' for source, size in by_size]
        raise UsageError(
            f"your own project's modules that the function reaches have {total:,} bytes, "
            f'{MOST_BYTES:,} are allowed: {_named(largest)}; install their package on the nodes, '
            'and here too (by pip, without -e)'
        )


def _named(things: Sequence[str]) -> str:
    more = f' and {len(things) - _MOST_NAMED} more' if len(things) > _MOST_NAMED else ''
    return ', '.join(things[:_MOST_NAMED]) + more


# what is loaded

_LoadedKey = tuple[int, str]
_loaded: tuple[_LoadedKey, frozenset[str]] = (-1, ''), frozenset()


def own_modules_loaded() -> frozenset[str]:
    """Name the user's own modules that are loaded now, and that nodes cannot have.

    They are looked at anew when the number of loaded modules or the last one has changed.
    """
    global _loaded
    key = _loaded_key()
    if _loaded[0] != key:
        _loaded = key, frozenset(own_names(list(sys.modules)))
    return _loaded[1]


def _loaded_key() -> _LoadedKey:
    try:
        return len(sys.modules), next(reversed(sys.modules), '')
    except RuntimeError:  # another thread has just imported something
        return 0, ''


class ByValue:
    """Modules whose classes and functions travel by value in arguments.

    Those of the computation itself do, and all own ones that it does not reach: the nodes have no
    files of them.
    """

    def __init__(self, always: Iterable[str] = (), sent: Iterable[str] = ()) -> None:
        self._always, self._sent = frozenset(always), frozenset(sent)
        self._loaded: frozenset[str] | None = None
        self._names: frozenset[str] = frozenset()

    def names(self) -> tuple[list[str], list[str]]:
        """Return those that always do, and those that are sent as files, as they were given."""
        return sorted(self._always), sorted(self._sent)

    def __iter__(self) -> Iterator[str]:
        """Name them, as of now: nobody asks for plain arguments."""
        loaded = own_modules_loaded()
        if loaded is not self._loaded:
            self._loaded, self._names = loaded, self._always | (loaded - self._sent)
        return iter(self._names)
