"""Cells of notebooks as their users know them: in tracebacks, and as the place of a statement."""

import ast
import linecache
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any

from dispy_nb.surroundings import running_shell

_VARIABLE = re.compile(r"global variable '(\w+)'")
_FRAME = re.compile(r'(?P<indent>[ |+]*)File "(?P<file>[^"\n]+)", line (?P<line>\d+)(?P<rest>.*)')


def name_cells(text: str) -> str:
    """Have a traceback speak of `Cell In[3]` in place of the file that a cell is compiled as (V17).

    Lines of source are put in where the node had none: it has those of the computation only.
    """
    cell_name = getattr(getattr(running_shell(), 'compile', None), 'format_code_name', None)
    if cell_name is None or 'File "' not in text:
        return text
    lines = text.split('\n')
    named: list[str] = []
    for line, following in zip(lines, [*lines[1:], ''], strict=True):
        frame = _FRAME.fullmatch(line)
        names = cell_name(frame['file']) if frame else None
        if frame is None or names is None:
            named.append(line)
            continue
        named.append(f'{frame["indent"]}{" ".join(names)}, line {frame["line"]}{frame["rest"]}')
        deeper = f'{frame["indent"]}  '
        source = linecache.getline(frame['file'], int(frame['line'])).strip()
        if source and not following.startswith(deeper):
            named.append(deeper + source)
    return '\n'.join(named)


_subject_told: ContextVar[str | None] = ContextVar('_subject_told', default=None)


@contextmanager
def statement_about(subject: str) -> Iterator[None]:
    """Have what runs within the block be about this variable; '' if it is about none.

    For magics: their statement does not say which variable they set.
    """
    token = _subject_told.set(subject)
    try:
        yield
    finally:
        _subject_told.reset(token)


def running_statement() -> str:
    """Return what the running cell's statement is about: the variable that it sets, or all of it.

    '' outside of cells, and in threads that they started.
    """
    if (told := _subject_told.get()) is not None:
        return told
    shell = running_shell()
    namespace: dict[str, Any] = getattr(shell, 'user_ns', {})
    inner: str | None = None  # what a magic runs: `%%time`, `%%capture`
    subject = ''
    for frame in _cell_frames(namespace):
        source = ''.join(linecache.getlines(frame.f_code.co_filename))
        source = source if inner is None or source else shell.transform_cell(inner)
        statement = _statement_at(source, frame.f_lineno)
        if statement is None:
            break
        subject, inner = _subject(statement, namespace), _run_by_magic(statement)
        if inner is None:
            break
    return subject


def _statement_at(source: str, line: int) -> ast.stmt | None:
    """Find the statement of a cell; within a loop it is all of that, which runs several times."""
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # a cell that is no file: an `%%dispy` cell, or one that was left out
        return None
    found: ast.stmt | None = None
    while statements:
        at = [each for each in statements if each.lineno <= line <= (each.end_lineno or 0)]
        found = at[0] if at else found
        match at:
            case [ast.With() | ast.AsyncWith() | ast.If() as block]:
                statements = [*block.body, *getattr(block, 'orelse', ())]
            case [ast.Try() | ast.TryStar() as block]:
                handlers = [each for handler in block.handlers for each in handler.body]
                statements = [*block.body, *handlers, *block.orelse, *block.finalbody]
            case _:
                break
    return found


def _subject(statement: ast.stmt, namespace: dict[str, Any]) -> str:
    match statement:
        case (
            ast.Assign(targets=[target, *_])
            | ast.AnnAssign(target=target)
            | ast.AugAssign(target=target)
            | ast.Expr(value=ast.NamedExpr(target=target))
        ):
            return ast.unparse(_WithIndices(namespace).visit(target))
        case ast.With() | ast.AsyncWith():
            return f'with {", ".join(map(ast.unparse, statement.items))}'
        case _:
            return ast.unparse(statement)


class _WithIndices(ast.NodeTransformer):
    """Has `runs[name]` be `runs['a']`: another name is another place."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self._namespace = namespace
        self._depth = 0

    def visit_Subscript(self, node: ast.Subscript) -> ast.Subscript:
        value = self.visit(node.value)
        self._depth += 1
        index = self.visit(node.slice)
        self._depth -= 1
        return ast.Subscript(value, index, node.ctx)

    def visit_Name(self, node: ast.Name) -> ast.expr:
        value = self._namespace.get(node.id)
        is_plain = type(value) in (str, int, float, bool)
        return ast.Constant(value) if self._depth and is_plain else node


def _run_by_magic(statement: ast.stmt) -> str | None:
    """Return the Python that a statement has a magic run, None if it does no such thing."""
    match statement:
        case ast.Expr(
            value=ast.Call(
                func=ast.Attribute(attr='run_cell_magic' | 'run_line_magic'),
                args=[*_, ast.Constant(value=str(text))],
            )
        ):
            return text
    return None


def _cell_frames(namespace: dict[str, Any]) -> list[FrameType]:
    """Find the frames that run a cell's own statements, the outermost first."""
    found: list[FrameType] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals is namespace and frame.f_code.co_name == '<module>':
            found.append(frame)
        frame = frame.f_back
    return found[::-1]


def variable_of(value: Any) -> str:
    """Return the name of a notebook's variable that holds this very object, '' if there is none."""
    namespace: dict[str, Any] = getattr(running_shell(), 'user_ns', {})
    for name, held in list(namespace.items()):
        if held is value and not name.startswith('_'):
            return name
    return ''


def defined_in(name: str) -> str:
    """Say which cell has set a variable last: 'In[3]'; '' if that is not known."""
    history = getattr(running_shell(), 'history_manager', None)
    cells = list(getattr(history, 'input_hist_parsed', ()))
    for number in range(len(cells) - 1, 0, -1):
        if name in cells[number] and name in _names_set(cells[number]):
            return f'In[{number}]'
    return ''


def _names_set(text: str) -> Iterator[str]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.alias):
            yield node.asname or node.name.partition('.')[0]


def with_cell(text: str) -> str:
    """Have words about a global variable say which cell has set it."""
    match = _VARIABLE.search(text)
    cell = defined_in(match[1]) if match else ''
    return f'{text} ({match[1]} was set in Cell {cell})' if match and cell else text
