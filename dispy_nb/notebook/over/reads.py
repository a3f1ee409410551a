"""Which variables the body of a cell reads before it has set them itself.

In a cell `total += x` reads the notebook's `total`; in a function, which the body becomes, Python
would say that the local `total` has no value.
"""

import ast
import dis
from collections.abc import Iterable, Iterator, Sequence
from types import CodeType
from typing import Any


def global_names(code: CodeType) -> tuple[dict[str, None], set[str]]:
    """Name the globals that code reads, in order, and those that it sets; functions in it too."""
    read: dict[str, None] = {}
    stored: set[str] = set()
    own = {each.argval for each in dis.get_instructions(code) if each.opname == 'STORE_NAME'}
    for each in dis.get_instructions(code):
        if each.opname in ('STORE_GLOBAL', 'DELETE_GLOBAL'):
            stored.add(each.argval)
        elif 'GLOBAL' in each.opname or (each.opname == 'LOAD_NAME' and each.argval not in own):
            read[each.argval] = None
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            more, set_there = global_names(inner)
            read |= more
            stored |= set_there
    return read, stored


def early_reads(
    body: Sequence[ast.stmt], known: Iterable[str], captured: Iterable[str]
) -> set[str]:
    """Name what is read where it may not have been set yet.

    `known` has a value from the start; `captured` is read by inner functions, which are called
    after the body has run up to there, or to its end.
    """
    reads = _EarlyReads(known)
    reads.run(body)
    return reads.early | (set(captured) - reads.known)


class _EarlyReads(ast.NodeVisitor):
    """Walks through a body in the order in which it runs; of branches, what all set is set."""

    def __init__(self, known: Iterable[str]) -> None:
        self.known = set(known)
        self.early: set[str] = set()

    def run(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    def _branches(self, branches: Iterable[Iterable[ast.AST | None]]) -> None:
        """Run one of these; afterwards is known what each of them has set."""
        before, after = set(self.known), None
        for branch in branches:
            self.known = set(before)
            self.run(branch)
            after = self.known if after is None else after & self.known
        self.known = before if after is None else after

    def _within(self, nodes: Iterable[ast.AST | None]) -> None:
        """Run what sets nothing here: it has names of its own."""
        before = set(self.known)
        self.run(nodes)
        self.known = before

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self.known.add(node.id)
        elif node.id not in self.known:
            self.early.add(node.id)
        if isinstance(node.ctx, ast.Del):
            self.known.discard(node.id)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.run([node.value, *node.targets])

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:  # annotations of local variables are not evaluated
            self.run([node.value, node.target])

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name) and node.target.id not in self.known:
            self.early.add(node.target.id)
        self.run([node.value, node.target])

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.run([node.value, node.target])

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        self._branches([node.body, node.orelse])

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit(node.test)
        self._branches([[node.body], [node.orelse]])

    def visit_While(self, node: ast.While) -> None:
        self.visit(node.test)
        self._branches([node.body, node.orelse])

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self.visit(node.iter)
        self._branches([[node.target, *node.body], node.orelse])

    def visit_Try(self, node: Any) -> None:
        before = set(self.known)
        self._branches([[*node.body, *node.orelse], *[[each] for each in node.handlers]])
        after, self.known = self.known, before & self.known
        self.run(node.finalbody)
        self.known |= after

    visit_TryStar = visit_Try  # noqa: N815

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self.run([node.type])
        self.known |= {node.name} if node.name else set()
        self.run(node.body)

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            self.run([item.context_expr, item.optional_vars])
        self.run(node.body)

    def visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        self._branches([[], *([case.pattern, case.guard, *case.body] for case in node.cases)])

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        self.run([node.pattern])
        self.known |= {node.name} if node.name else set()

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        self.known |= {node.name} if node.name else set()

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        self.run([*node.keys, *node.patterns])
        self.known |= {node.rest} if node.rest else set()

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.known |= {each.asname or each.name.partition('.')[0] for each in node.names}

    visit_ImportFrom = visit_Import  # noqa: N815

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.run([*node.decorator_list, *_defaults(node.args)])
        self.known.add(node.name)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.run(_defaults(node.args))

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.run([*node.decorator_list, *node.bases, *node.keywords])
        self._within(node.body)
        self.known.add(node.name)

    def _comprehension(self, node: Any) -> None:
        parts = [part for each in node.generators for part in (each.iter, each.target, *each.ifs)]
        values = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        self._within([*parts, *values])

    visit_ListComp = visit_SetComp = _comprehension  # noqa: N815
    visit_DictComp = visit_GeneratorExp = _comprehension  # noqa: N815


def _defaults(arguments: ast.arguments) -> Iterator[ast.expr]:
    yield from arguments.defaults
    yield from (each for each in arguments.kw_defaults if each is not None)
