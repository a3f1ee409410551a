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
    frame = _cell_frame(getattr(shell, 'user_ns', None)) if shell is not None else None
    if frame is None:
        return ''
    source = ''.join(linecache.getlines(frame.f_code.co_filename))
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # a cell that is no file: an `%%dispy` cell, or one that was left out
        return ''
    for statement in statements:
        if statement.lineno <= frame.f_lineno <= (statement.end_lineno or 0):
            return _subject(statement)
    return ''


def _subject(statement: ast.stmt) -> str:
    match statement:
        case ast.Assign(targets=[target, *_]):
            return ast.unparse(target)
        case ast.AnnAssign(target=target) | ast.AugAssign(target=target):
            return ast.unparse(target)
        case ast.Expr(value=ast.NamedExpr(target=target)):
            return ast.unparse(target)
        case _:
            return ast.unparse(statement)


def _cell_frame(namespace: dict[str, Any] | None) -> FrameType | None:
    """Find the outermost frame that runs a cell's own statements."""
    found, frame = None, sys._getframe(1)
    back: FrameType | None = frame
    while back is not None:
        if back.f_globals is namespace and back.f_code.co_name == '<module>':
            found = back
        back = back.f_back
    return found


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
