"""Which variables of the notebook the body of a cell may read before it has set them."""

import ast
import textwrap

import pytest

from dispy_nb.notebook.over.reads import early_reads, global_names


def early(body: str) -> set[str]:
    """Answer what a body reads early, of the names that it also sets."""
    text = textwrap.dedent(body)
    function = f'def cell(*, x):\n{textwrap.indent(text, "    ")}'
    spaces: dict[str, object] = {}
    exec(function, spaces)
    code = spaces['cell'].__code__  # type: ignore[attr-defined]
    found = early_reads(ast.parse(text).body, ['x'], code.co_cellvars)
    return found & {*code.co_varnames, *code.co_cellvars}


@pytest.mark.parametrize(
    ('body', 'wanted'),
    [
        ('y = x; y', ''),
        ('y = y + x', 'y'),
        ('y += x', 'y'),
        ('if x: y = 1\nprint(y)', 'y'),
        ('if x: y = 1\nelse: y = 2\nprint(y)', ''),
        ('for i in range(3): y = i\nprint(y, i)', 'y i'),
        ('while x: y = 1; print(y)', ''),
        ('try: import numpy as y\nexcept ImportError: y = None\ny', ''),
        ('try: y = 1\nfinally: print(y)', 'y'),
        ('try: pass\nexcept E as y: print(y)', ''),
        ('with x as y: z = y\nprint(z)', ''),
        ('a = [y for y in x]; y = 1', ''),
        ('a = [y for _ in x]; y = 1', 'y'),
        ('a = {k: v for k, v in x if k in v}; k = v = 1', ''),
        ('def f(): return y\nf()\ny = 1', ''),  # set by the end
        ('def f(): return y\nif x: y = 1\nf()', 'y'),
        ('def f(a=y): return a\ny = 1', 'y'),
        ('g = lambda: y\nif x: y = 1', 'y'),
        ('class A:\n  y = 1\n  z = y\nz = A', ''),
        ('if (y := x): pass\ny', ''),
        ('a = y if x else 1; y = 2', 'y'),
        ('y = 1\ndel y\nprint(y)', 'y'),
        ('y: int = 1\ny', ''),
        ('y[0] = 1\ny = 2', 'y'),
        ('match x:\n  case [y, *z]: print(y, z)\n  case {"a": w, **v}: print(w, v)', ''),
        ('match x:\n  case 1: y = 1\nprint(y)', 'y'),
        ('import os.path\nos', ''),
        ('a, *b = x\nprint(a, b)', ''),
    ],
)
def test_what_may_be_read_before_it_is_set(body: str, wanted: str) -> None:
    assert early(body) == set(wanted.split())


def test_globals_are_those_of_inner_functions_too_and_attributes_are_none() -> None:
    spaces: dict[str, object] = {}
    exec(
        textwrap.dedent(
            """
            def cell(x):
                global counter
                counter = 1
                class A:
                    inner = 1
                    use = inner, other
                return lambda: helper(x).attribute + counter
            """
        ),
        spaces,
    )
    read, stored = global_names(spaces['cell'].__code__)  # type: ignore[attr-defined]
    assert set(read) - {'__name__'} == {'other', 'helper', 'counter'}
    assert stored == {'counter'}
