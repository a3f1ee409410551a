"""The body of a cell as a function of its values, with the lines that the notebook has."""

import ast
import builtins
import dis
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dispy_nb.notebook.magics.errors import show_as
from dispy_nb.notebook.magics.words import nearest
from dispy_nb.notebook.over.reads import early_reads, global_names
from nodeserver.core.errors import UsageError
from nodeserver.worker.helpers import NAMES

_OWN = '__main__'


class CellSyntaxError(UsageError):
    """The body of a cell is no Python; it is shown as IPython shows a `SyntaxError` of a cell."""


@dataclass(frozen=True, slots=True)
class Source:
    """The text of a cell: where its body begins, and what tracebacks call it."""

    file: str
    body: str
    lines_before: int  # the body
    number: int  # of the cell: In[number]


@dataclass(frozen=True, slots=True)
class Body:
    """The compiled body, and the names that it has to find in the notebook."""

    code: types.CodeType
    globals: tuple[str, ...]  # read, and not set by itself
    initial: tuple[str, ...]  # local ones whose value in the notebook may be read first


def read_cell(shell: Any, line: str, body: str) -> Source:
    """Give the running cell's text a place where tracebacks find its lines."""
    raw = _raw_cell(shell, f'%%dispy {line}\n{body}', body)
    number = _number(shell)
    file = shell.compile.cache(raw, number, raw_code=raw)
    before = raw[: raw.rindex(body.rstrip('\n'))].count('\n')
    return Source(file, body, before, number)


def _number(shell: Any) -> int:
    """Which cell runs; versions of IPython count on before it runs, or afterwards."""
    cells = shell.history_manager.input_hist_parsed
    is_kept = len(cells) > 1 and 'run_cell_magic' in cells[-1]
    return len(cells) - 1 if is_kept else int(shell.execution_count)


def _raw_cell(shell: Any, text: str, body: str) -> str:
    """Return the cell as it stands in the notebook, where the front end has told us."""
    get_parent = getattr(shell, 'get_parent', None)  # of a kernel's shell
    parent = get_parent() if get_parent is not None else None
    told = (parent or {}).get('content', {}).get('code', '')
    magic = told.lstrip().startswith('%%dispy') and told.rstrip().endswith(body.rstrip())
    return told if magic else text


def compile_body(shell: Any, source: Source, parameters: Sequence[str]) -> Body:
    """Compile the body as a function of these values; the value of its last expression is returned.

    Raises
    ------
    CellSyntaxError
        It is no Python, with the line of the cell.
    """
    text = '\n' * source.lines_before + source.body
    try:
        tree = shell.compile.ast_parse(text, source.file)
        # as what it is: `return` is an error there
        compile(tree, source.file, 'exec', shell.compile.flags, True)
        code = _compiled(shell, source, tree, parameters)
        own = dict.fromkeys((*code.co_varnames, *code.co_cellvars))
        early = early_reads(tree.body, parameters, code.co_cellvars) - set(parameters)
        initial = tuple(name for name in own if name in early and is_of_the_user(shell, name))
        if initial:
            code = _compiled(shell, source, tree, (*parameters, *initial))
    except (SyntaxError, ValueError, OverflowError) as error:
        raise _in_the_cell(shell, error) from None
    read, stored = global_names(code)
    names = tuple(name for name in read if name not in stored or is_of_the_user(shell, name))
    return Body(code, names, initial)


def _compiled(
    shell: Any, source: Source, tree: ast.Module, parameters: Sequence[str]
) -> types.CodeType:
    """Compile a function with these parameters and that body."""
    function = _function_of(tree, parameters, f'cell_{source.number}')
    module = ast.fix_missing_locations(ast.Module([function], []))
    outer = compile(module, source.file, 'exec', shell.compile.flags, True)
    return next(each for each in outer.co_consts if isinstance(each, types.CodeType))


def _function_of(tree: ast.Module, parameters: Sequence[str], name: str) -> ast.FunctionDef:
    body = list(tree.body) or [ast.Pass()]
    if isinstance(body[-1], ast.Expr):
        body[-1] = ast.copy_location(ast.Return(body[-1].value), body[-1])
    function = ast.parse(f'def {name}(*, {", ".join(parameters)}): pass').body[0]
    assert isinstance(function, ast.FunctionDef)
    function.body = body
    return function


def _in_the_cell(shell: Any, error: Exception) -> CellSyntaxError:
    shown = CellSyntaxError(str(error))
    lines = shell.SyntaxTB.structured_traceback(type(error), error, [])
    show_as(shown, '\n'.join(lines))
    return shown


def function_of(shell: Any, body: Body) -> types.FunctionType:
    """Make the function, with the variables of the notebook that it reads.

    Raises
    ------
    NameError
        It reads a name that neither the notebook nor a node has.
    """
    names = shell.user_ns
    found = {name: names[name] for name in body.globals if is_of_the_user(shell, name)}
    for name in body.globals:
        if name not in found:
            _check_on_nodes(shell, body.code, name)
    function = types.FunctionType(body.code, {'__name__': _OWN, **found}, body.code.co_name)
    function.__module__ = _OWN
    function.__kwdefaults__ = {name: names[name] for name in body.initial} or None
    return function


def is_of_the_user(shell: Any, name: str) -> bool:
    """Whether the notebook has a name that IPython did not put there."""
    if name not in shell.user_ns:
        return False
    hidden = shell.user_ns_hidden
    return name not in hidden or shell.user_ns[name] is not hidden[name]


def _check_on_nodes(shell: Any, code: types.CodeType, name: str) -> None:
    """Refuse a name that jobs would not find."""
    there = name in vars(builtins) and not _is_of_ipython(vars(builtins)[name])
    if there or name in NAMES or name.startswith('__'):
        return
    if name in shell.user_ns or name in vars(builtins):
        text = f'{name!r} is of this notebook, and not on nodes'
    else:
        known = [*shell.user_ns, *vars(builtins), *NAMES]
        text = f'name {name!r} is not defined{nearest(name, known)}'
    line = _line_of(code, name)
    error = NameError(text, name=name)
    show_as(error, f'NameError: {text} (line {line} of the cell; nothing was sent)')
    raise error


def _is_of_ipython(value: object) -> bool:
    module = getattr(value, '__module__', None)
    return str(module).partition('.')[0] in ('IPython', 'ipykernel')


def _line_of(code: types.CodeType, name: str) -> int:
    """The first line that reads a global."""
    lines = [
        line
        for each in [code, *(c for c in code.co_consts if isinstance(c, types.CodeType))]
        for line in _lines_with(each, name)
    ]
    return min(lines, default=code.co_firstlineno)


def _lines_with(code: types.CodeType, name: str) -> list[int]:
    found = []
    for each in dis.get_instructions(code):
        if each.argval == name and each.positions is not None and each.positions.lineno:
            found.append(each.positions.lineno)
    return found
