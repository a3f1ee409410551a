"""Which modules a function's code or a source file imports, without running either."""

import ast
import dis
import types
import warnings
from collections.abc import Iterator
from typing import NamedTuple


class Import(NamedTuple):
    """An import as it is written: `from ..module import names`, or `import module`."""

    module: str
    names: tuple[str, ...] = ()
    level: int = 0

    def absolute(self, package: str) -> str:
        """Return the dotted name of the module; '' if it is above the package."""
        if not self.level:
            return self.module
        parts = package.split('.')
        if not package or self.level > len(parts):
            return ''
        base = '.'.join(parts[: len(parts) - self.level + 1])
        return f'{base}.{self.module}' if self.module else base


class Scan(NamedTuple):
    """What a source file imports, and the names that it gives to `import *`."""

    imports: tuple[Import, ...] = ()
    public: tuple[str, ...] = ()


def imports_in_code(code: types.CodeType) -> Iterator[Import]:
    """List what a function imports when it runs, and what the functions in it do."""
    before: list[object] = [None, None]  # constants: level, and names
    for instruction in dis.get_instructions(code):
        if instruction.opname == 'EXTENDED_ARG':
            continue
        if instruction.opname == 'IMPORT_NAME':
            level, names = before
            yield Import(
                str(instruction.argval),
                tuple(names) if isinstance(names, tuple) else (),
                level if isinstance(level, int) else 0,
            )
        before = [before[1], instruction.argval]
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from imports_in_code(const)


def scan_source(source: bytes) -> Scan:
    """List what a file imports anywhere, but for what is there for type checkers or a main program.

    A file with errors imports nothing: who imports it will be told.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # the user hears of them where the file is imported
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return Scan()
    imports: list[Import] = []
    public: list[str] = []
    for statement in _statements(tree):
        if isinstance(statement, ast.Import):
            imports += (Import(alias.name) for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            names = tuple(alias.name for alias in statement.names)
            imports.append(Import(statement.module or '', names, statement.level))
        else:
            public += _public_names(statement)
    return Scan(tuple(dict.fromkeys(imports)), tuple(public))


def _statements(node: ast.AST) -> Iterator[ast.stmt]:
    """Walk over all statements, in order, without their expressions."""
    blocks = ['body', 'handlers', 'orelse', 'finalbody', 'cases']
    if isinstance(node, ast.If) and _is_never_true(node.test):
        blocks = ['orelse']
    for block in blocks:
        inner = getattr(node, block, None)
        for child in inner if isinstance(inner, list) else ():
            if isinstance(child, ast.stmt):
                yield child
            yield from _statements(child)


def _is_never_true(test: ast.expr) -> bool:
    """Whether a condition is false wherever the file is imported and run."""
    match test:
        case ast.Name('TYPE_CHECKING') | ast.Attribute(attr='TYPE_CHECKING'):
            return True
        case ast.Compare(ast.Name('__name__'), [ast.Eq()], [ast.Constant('__main__')]):
            return True
    return False


def _public_names(statement: ast.stmt) -> Iterator[str]:
    """Yield what is written into `__all__`: `import *` imports those that are modules."""
    match statement:
        case ast.Assign([ast.Name('__all__')], ast.List(items) | ast.Tuple(items)) | ast.AugAssign(
            ast.Name('__all__'), ast.Add(), ast.List(items) | ast.Tuple(items)
        ):
            for item in items:
                if isinstance(item, ast.Constant) and isinstance(item.value, str):
                    yield item.value
