"""A cluster's figures as HTML and as text: what is saved, and what is shown without widgets.

Notebooks that are not trusted show the HTML as well: no script, no SVG, no style sheet.
"""

from html import escape
from typing import Any

from dispy_nb.progress import clock_text, progress_text, rate_text
from dispy_nb.snapshot import NodeSnapshot, Snapshot
from dispy_nb.table import status_table

NODES_SHOWN = 16  # rows; the busiest ones
FAILURES_SHOWN = 3

_CELL = 'padding:1px 8px;text-align:right'
_HEADS = ('node', 'address', 'cpus', 'busy', 'jobs', 's/job', 'share of jobs')
_GREEN, _RED, _GREY = '#388e3c', '#d32f2f', '#9e9e9e'


def page(snapshot: Snapshot) -> dict[str, Any]:
    """Return both forms, by media type, as displays take them."""
    return {'text/html': html_page(snapshot), 'text/plain': text_page(snapshot)}


def text_page(snapshot: Snapshot) -> str:
    """Lay everything out for a terminal or a text file."""
    lines = [progress_text(snapshot), numbers(snapshot), *_notes(snapshot)]
    return '\n'.join(lines) + '\n' + status_table(snapshot)


def html_page(snapshot: Snapshot) -> str:
    """Lay everything out for a browser."""
    ended = snapshot.ended / snapshot.submitted if snapshot.submitted else 0.0
    color = _RED if snapshot.failed else _GREEN
    return (
        f'<div><b>{escape(snapshot.name)}</b> {snapshot.ended} of {snapshot.submitted} jobs'
        f'{_bar(ended, color, "100%")}{numbers_html(snapshot)}{nodes_html(snapshot)}</div>'
    )


def numbers(snapshot: Snapshot) -> str:
    """Say how many jobs are where, how fast it goes and how long it has taken."""
    s = snapshot
    return (
        f'{s.submitted} created, {s.waiting} waiting, {s.running} running, {s.finished} finished, '
        f'{s.failed} failed, {s.cancelled} cancelled; {rate_text(s.rate)}, {clock_text(s.elapsed)}'
    )


def numbers_html(snapshot: Snapshot) -> str:
    """Say the same for a browser, and below it what went wrong and why nothing happens."""
    notes = ''.join(f'<div>{escape(note)}</div>' for note in _notes(snapshot))
    return f'<div>{numbers(snapshot)}</div>{notes}'


def nodes_html(snapshot: Snapshot) -> str:
    """Make a table of nodes, with a bar each."""
    nodes = sorted(snapshot.nodes, key=lambda node: node.jobs_done, reverse=True)
    if not nodes:
        return ''
    most = max(nodes[0].jobs_done, 1)
    shown = sorted(nodes[:NODES_SHOWN], key=lambda node: node.name)
    head = ''.join(f'<th style="{_CELL}">{name}</th>' for name in _HEADS)
    rows = ''.join(_row(node, node.jobs_done / most) for node in shown)
    more = f'<div>and {len(nodes) - len(shown)} more nodes</div>' if len(nodes) > len(shown) else ''
    return f'<table><tr>{head}</tr>{rows}</table>{more}'


def _row(node: NodeSnapshot, share: float) -> str:
    mean = node.cpu_time / node.jobs_done if node.jobs_done else 0.0
    gone = ' (gone)' if node.closed else ''
    texts = (
        escape(node.name) + gone,
        escape(node.address),
        node.cpus,
        node.busy,
        node.jobs_done,
        f'{mean:.3f}',
        _bar(share, _GREY if node.closed else _GREEN, '120px'),
    )
    cells = ''.join(f'<td style="{_CELL}">{text}</td>' for text in texts)
    return f'<tr>{cells}</tr>'


def _bar(share: float, color: str, width: str) -> str:
    inner = f'<div style="width:{share:.1%};height:10px;background-color:{color}"></div>'
    return f'<div style="width:{width};height:10px;background-color:#e0e0e0">{inner}</div>'


def _notes(snapshot: Snapshot) -> list[str]:
    notes = [
        f'job {failure.id} {failure.status}: {failure.text}'
        for failure in snapshot.failures[:FAILURES_SHOWN]
    ]
    if snapshot.pending and snapshot.notice:
        notes.append(snapshot.notice)
    return notes
