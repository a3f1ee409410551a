"""What the pages of docs/ say, for tests that hold them against the code."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md')))
_FENCED = re.compile(r'^```.*?^```$', re.MULTILINE | re.DOTALL)
_OURS = ('dispy_nb', 'nodeserver')


def prose(path: Path) -> str:
    """Read a page without its examples."""
    return _FENCED.sub('', path.read_text(encoding='utf-8'))


def section(text: str, title: str) -> str:
    """What stands below a heading, up to the next one that is not below it."""
    found = re.search(rf'^(#+) {re.escape(title)}$', text, re.MULTILINE)
    assert found is not None, f'there is no heading {title}'
    rest = text[found.end() :]
    end = re.search(rf'^#{{1,{len(found[1])}}} ', rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def spans(text: str) -> set[str]:
    """List what stands in backticks."""
    return set(re.findall(r'`([^`\n]+)`', text))


def rows(text: str) -> Iterator[list[str]]:
    """Yield the cells of each row of the tables."""
    for line in text.splitlines():
        if line.startswith('| ') and not line.startswith('| ---'):
            yield [cell.strip() for cell in line.strip('|').split(' |')]


def anchors(text: str) -> set[str]:
    """List what links to headings of a page may name, as GitHub makes it of them."""
    heads = re.findall(r'^#+ (.*)$', text, re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', head.lower()).replace(' ', '-') for head in heads}


def links(text: str) -> list[tuple[str, str]]:
    """List the links to files of this repository: path and heading."""
    targets = re.findall(r'\]\(([^)\s]+)\)', text)
    return [
        (path, anchor)
        for path, _, anchor in (target.partition('#') for target in targets)
        if '://' not in path
    ]


def written(name: str, function: Callable[..., Any], bound: bool = True) -> str:
    """Write a function's parameters and defaults as the pages do."""
    parameters = list(inspect.signature(function).parameters.values())[1 if bound else 0 :]
    parts: list[str] = []
    for parameter in parameters:
        has_star = any(part.startswith('*') for part in parts)
        if parameter.kind is parameter.KEYWORD_ONLY and not has_star:
            parts.append('*')
        mark = {parameter.VAR_POSITIONAL: '*', parameter.VAR_KEYWORD: '**'}.get(parameter.kind, '')
        default = parameter.default
        value = '' if default is parameter.empty else f'={default!r}'
        parts.append(mark + parameter.name + value.replace('Ellipsis', '...'))
    return f'{name}({", ".join(parts)})'


def members(cls: type) -> dict[str, Any]:
    """Find the public methods and attributes that classes of this package give to a class."""
    found: dict[str, Any] = {}
    for each in reversed(cls.__mro__):
        if not each.__module__.startswith(_OURS):
            continue
        found |= dict.fromkeys((*inspect.get_annotations(each), *_set_on_self(each)))
        found |= vars(each)
    return {name: member for name, member in found.items() if not name.startswith('_')}


def _set_on_self(cls: type) -> Iterator[str]:
    """Name the attributes that a class's methods give to an instance."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError):  # made without source, as a named tuple's is
        return
    for node in ast.walk(tree):
        is_set = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if is_set and isinstance(node.value, ast.Name) and node.value.id == 'self':
            yield node.attr
