"""Who may import whom, who may unpickle, and how large things may grow (docs/architecture.md)."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ('nodeserver', 'dispy_nb')

# The longest prefix that fits rules.
FLOORS = {
    'nodeserver': 0,
    'nodeserver.core': 0,
    'nodeserver.wire': 1,
    'nodeserver.io': 2,
    'nodeserver.beside': 2,
    'nodeserver.culprits': 2,
    'nodeserver.definitions': 2,
    'nodeserver.distributions': 2,
    'nodeserver.handover': 2,
    'nodeserver.payload': 2,
    'nodeserver.usercode': 2,
    'nodeserver.services': 3,
    'nodeserver.worker': 3,
    'nodeserver.pycos': 3,
    'nodeserver.cli': 5,
    'dispy_nb': 3,
    'dispy_nb.monitor': 4,
    'dispy_nb.dispycos': 4,
    'dispy_nb.notebook': 5,
    'dispy_nb.labserver': 5,
    'dispy_nb.__main__': 5,
    'dispy_nb.commands': 5,
    'dispy_nb.demo': 5,
    'dispy_nb.doctorcommand': 5,
    'dispy_nb.keycommand': 5,
    'dispy_nb.statuscommand': 5,
    'dispy_nb.certcommand': 5,
}
# Daemons stay apart from what unpickles or runs a user's function.
NEVER = {
    'nodeserver': {'dispy_nb'},
    'nodeserver.io': {'nodeserver.payload'},
    'nodeserver.payload': {'nodeserver.io'},
    'nodeserver.services': {'nodeserver.worker', 'nodeserver.pycos', 'nodeserver.payload'},
}
# What a core needs of the library: types, data and arithmetic; nothing that acts or varies.
PURE = {
    *('abc', 'bisect', 'collections', 'collections.abc', 'copy', 'dataclasses', 'datetime'),
    *('enum', 'errno', 'fnmatch', 'functools', 'graphlib', 'hashlib', 'heapq', 'ipaddress'),
    *('itertools', 'math', 'operator', 're', 'signal', 'string', 'textwrap', 'types', 'typing'),
}
# Packages that not everybody has, and those that only some surroundings need.
OPTIONAL = {
    'dispy_nb': {'dispy_nb.notebook'},
    'nodeserver.worker': {'numpy', 'torch'},
}
JUPYTER = ('IPython', 'anywidget', 'bokeh', 'ipykernel', 'ipywidgets', 'jupyter', 'traitlets')
PICKLES = ('_pickle', 'cloudpickle', 'marshal', 'pickle', 'shelve')
UNPICKLERS = {'Unpickler', 'load', 'loads', 'open'}
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 50

_PATHS = sorted(path for package in PACKAGES for path in (ROOT / package).rglob('*.py'))


def dotted(path: Path) -> str:
    name = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    return name.removesuffix('.__init__')


_NAMES = {dotted(path) for path in _PATHS}


class Module:
    """One source file: its dotted name and what it imports, at the top and within functions."""

    def __init__(self, path: Path) -> None:
        self.name = dotted(path)
        self.text = path.read_text(encoding='utf-8')
        self.tree = ast.parse(self.text, str(path))
        self.functions = [
            node
            for node in ast.walk(self.tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        self.hidden = {
            name for body in self.functions for node in ast.walk(body) for name in imported(node)
        }
        self.imports = {name for node in ast.walk(self.tree) for name in imported(node)}
        self.own = {name for name in self.imports if name in _NAMES}


def imported(node: ast.AST) -> Iterator[str]:
    """Yield the modules that a statement imports: `from package import module` means the latter."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            inner = f'{node.module}.{alias.name}'
            yield inner if inner in _NAMES else str(node.module)


MODULES = [Module(path) for path in _PATHS]


def below(name: str, package: str) -> bool:
    return name == package or name.startswith(package + '.')


def floor(name: str) -> int:
    return FLOORS[max((prefix for prefix in FLOORS if below(name, prefix)), key=len)]


def unpickling(module: Module) -> Iterator[int]:
    """Yield the lines on which a module calls, or takes over, what turns bytes into objects."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in PICKLES and node.attr in UNPICKLERS:
                yield node.lineno
        elif (
            isinstance(node, ast.ImportFrom)
            and node.module in PICKLES
            and UNPICKLERS & {alias.name for alias in node.names}
        ):
            yield node.lineno


def none(found: Iterable[str]) -> None:
    """Fail with the whole list, if there is one."""
    lines = sorted(found)
    if lines:
        pytest.fail('\n'.join(lines), pytrace=False)


def test_no_module_imports_a_higher_floor():
    none(
        f'{module.name} imports {name}'
        for module in MODULES
        for name in module.own
        if floor(name) > floor(module.name) and name not in OPTIONAL.get(module.name, ())
    )


def test_the_daemons_stay_apart_from_what_runs_user_code():
    none(
        f'{module.name} imports {name}'
        for package, banned in NEVER.items()
        for module in MODULES
        if below(module.name, package)
        for name in module.imports
        if any(below(name, ban) for ban in banned)
    )


def test_a_core_imports_nothing_that_acts():
    none(
        f'{module.name} imports {name}'
        for module in MODULES
        if below(module.name, 'nodeserver.core')
        for name in module.imports
        if name not in PURE and not below(name, 'nodeserver.core')
    )


def test_imports_stand_at_the_top():
    none(
        f'{module.name} imports {name} within a function'
        for module in MODULES
        for name in module.hidden
        if not any(
            below(module.name, package) and below(name, permitted)
            for package, names in OPTIONAL.items()
            for permitted in names
        )
    )


def test_only_payload_unpickles():
    none(
        f'{module.name}:{line}'
        for module in MODULES
        if module.name != 'nodeserver.payload'
        for line in unpickling(module)
    )


def test_no_modules_import_each_other_in_a_circle():
    graph = {
        module.name: module.own - {module.name} - OPTIONAL.get(module.name, set())
        for module in MODULES
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(' -> '.join(error.args[1]))


def test_files_and_functions_stay_short_and_files_say_what_they_are():
    found = []
    for module in MODULES:
        lines = module.text.count('\n')
        if lines > MOST_LINES_OF_A_FILE:
            found.append(f'{module.name}: {lines} lines')
        if not ast.get_docstring(module.tree):
            found.append(f'{module.name}: no docstring')
        for function in module.functions:
            lines = (function.end_lineno or 0) - function.lineno + 1
            if lines > MOST_LINES_OF_A_FUNCTION:
                found.append(f'{module.name}:{function.name}: {lines} lines')
    none(found)


def loaded(modules: list[str], suspects: tuple[str, ...]) -> str:
    """Import modules in a fresh interpreter; answer what it printed of the suspects."""
    look = (
        f'import sys, {", ".join(modules)}\n'
        f'print([m for m in sys.modules if m.partition(".")[0].startswith({suspects!r})'
        f' or m in {suspects!r}])'
    )
    command = [sys.executable, '-W', 'error', '-c', look]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return done.stdout + done.stderr


def test_importing_dispy_nb_loads_nothing_of_jupyter():
    assert loaded(['dispy_nb'], JUPYTER) == '[]\n'


def test_services_load_nothing_that_unpickles():
    services = [module.name for module in MODULES if below(module.name, 'nodeserver.services')]
    assert loaded(services, ('cloudpickle', 'nodeserver.payload')) == '[]\n'
