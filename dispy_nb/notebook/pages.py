"""A cluster's figures as HTML and as text: what is saved, and what is shown without widgets.

Notebooks that are not trusted show the HTML as well: no script, no SVG, no style sheet.  It takes
its colours from where it is shown, so that it can be read on light and on dark.
"""

import time
from collections.abc import Sequence
from html import escape
from typing import Any

from dispy_nb.history import Failure
from dispy_nb.notebook.widget.outputs import NOTHING
from dispy_nb.notebook.widget.states import (
    MOST_TEXT,
    busiest,
    gone_wrong,
    mean_text,
    memory_text,
    more_failures,
    remaining_text,
    share_text,
)
from dispy_nb.progress import clock_text, progress_text, rate_text
from dispy_nb.snapshot import NodeSnapshot, ProvisionalSnapshot, Snapshot
from dispy_nb.table import status_table

NODES_SHOWN = 16  # rows; the busiest ones
FAILURES_SHOWN = 3
DETAIL_LINES = 12  # of a traceback
MOST_DETAIL = 1500  # characters of it
OUTPUT_LINES = 20

# Okabe and Ito's colours, which the colour-blind can tell apart; the words say the same
_COLOURS = {
    'finished': '#009E73',
    'failed': '#D55E00',
    'cancelled': '#CC79A7',
    'running': '#56B4E9',
}
_LINE = '1px solid rgba(128, 128, 128, 0.6)'
_TEXT = 'padding:2px 10px 2px 0;text-align:left'
_LEFT = f'{_TEXT};white-space:nowrap'
_RIGHT = 'padding:2px 10px 2px 0;text-align:right;white-space:nowrap'
_NODE_HEADS = (
    *(('node', _LEFT), ('address', _LEFT), ('cpus', _RIGHT), ('busy', _RIGHT), ('cpu', _RIGHT)),
    *(('memory', _RIGHT), ('jobs', _RIGHT), ('s/job', _RIGHT), ('share of jobs', _LEFT)),
)
_RESULT_HEADS = (('job', _LEFT), ('count', _RIGHT), ('when', _RIGHT), ('provisional result', _TEXT))
_PRE = f'margin:2px 0 6px 0;padding:4px 8px;border-left:{_LINE};overflow-x:auto;font-size:90%'


def page(snapshot: Snapshot, output: dict[str, Any] = NOTHING) -> dict[str, Any]:
    """Return both forms, by media type, as displays take them."""
    return {
        'text/html': html_page(snapshot, output),
        'text/plain': text_page(snapshot, output),
    }


def text_page(snapshot: Snapshot, output: dict[str, Any] = NOTHING) -> str:
    """Lay everything out for a terminal or a text file."""
    lines = [progress_text(snapshot), numbers(snapshot)]
    shown = gone_wrong(snapshot)[:FAILURES_SHOWN]
    for failure in shown:
        lines.append(_failure_text(failure))
        lines += [f'    {line}' for line in _detail(failure).splitlines()]
    lines += [_more_text(snapshot, shown), _notice(snapshot)]
    lines += [_provisional_text(row) for row in snapshot.provisionals]
    lines += [_output_title(output), *(f'    {line}' for line in _output_lines(output))]
    return '\n'.join(filter(None, lines)) + '\n' + status_table(snapshot)


def html_page(snapshot: Snapshot, output: dict[str, Any] = NOTHING) -> str:
    """Lay everything out for a browser."""
    closed = ', closed' if snapshot.closed else ''
    title = f'<b>{escape(snapshot.name)}</b>: {snapshot.ended} of {_jobs(snapshot)} ended{closed}'
    parts = (
        f'<div>{title}</div>',
        _bar(snapshot),
        f'<div>{numbers(snapshot)}</div>',
        _line(_notice(snapshot)),
        nodes_html(snapshot),
        _failures_html(snapshot),
        _results_html(snapshot),
        _output_html(output),
    )
    return f'<div style="line-height:1.5;max-width:960px">{"".join(parts)}</div>'


def numbers(snapshot: Snapshot) -> str:
    """Say how many jobs are where, how fast it goes, how long it has taken and may take yet."""
    s = snapshot
    left = remaining_text(s.remaining)
    return (
        f'{s.submitted} created, {s.waiting} waiting, {s.running} running, {s.finished} finished, '
        f'{s.failed} failed, {s.cancelled} cancelled; {rate_text(s.rate)}, {clock_text(s.elapsed)}'
    ) + (f', {left}' if left else '')


def nodes_html(snapshot: Snapshot) -> str:
    """Make a table of nodes, with a bar each."""
    shown = busiest(snapshot, NODES_SHOWN)
    if not shown:
        return ''
    done = sum(node.jobs_done for node in snapshot.nodes)
    most = max(1, *(node.jobs_done for node in shown), 1)
    rows = [_node_texts(node, done, node.jobs_done / most) for node in shown]
    left = len(snapshot.nodes) - len(shown)
    return _table(_NODE_HEADS, rows) + (f'<div>and {left} more nodes</div>' if left else '')


def _node_texts(node: NodeSnapshot, done: int, bar: float) -> tuple[str, ...]:
    gone = ' (gone)' if node.closed else ''
    return (
        escape(node.name) + gone,
        escape(node.address),
        str(node.cpus),
        str(node.busy),
        '' if node.cpu_in_use is None else f'{node.cpu_in_use:.0f} %',
        memory_text(node),
        str(node.jobs_done),
        mean_text(node),
        f'{_strip(bar)} {share_text(node, done)}',
    )


def _table(heads: tuple[tuple[str, str], ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Lay out texts, which are escaped already."""
    styles = [style for _, style in heads]
    head = ''.join(
        f'<th style="{style};border-bottom:{_LINE}">{name}</th>' for name, style in heads
    )
    body = ''
    for row in rows:
        cells = zip(row, styles, strict=True)
        texts = ''.join(f'<td style="{style}">{text}</td>' for text, style in cells)
        body += f'<tr>{texts}</tr>'
    style = 'border-collapse:collapse;margin:6px 0'
    # too wide for a narrow window it is scrolled, and no name or number is broken
    table = f'<table style="{style}"><tr>{head}</tr>{body}</table>'
    return f'<div style="overflow-x:auto">{table}</div>'


def _bar(snapshot: Snapshot) -> str:
    """Draw one bar, with a part for each status; what is left of it waits."""
    parts = ''
    for status, colour in _COLOURS.items():
        count = getattr(snapshot, status)
        if count:
            # rounded down: in all no more than there is room for
            share = int(10_000 * count / snapshot.submitted) / 100
            parts += (
                f'<div style="float:left;width:{share:.2f}%;height:12px;background-color:{colour}" '
                f'title="{count} {status}"></div>'
            )
    return f'<div style="height:12px;margin:3px 0;border:{_LINE};overflow:hidden">{parts}</div>'


def _strip(share: float) -> str:
    colour = _COLOURS['running']
    inner = f'<div style="width:{share:.1%};height:8px;background-color:{colour}"></div>'
    style = f'display:inline-block;width:100px;height:8px;border:{_LINE}'
    return f'<div style="{style}">{inner}</div>'


def _failures_html(snapshot: Snapshot) -> str:
    shown = gone_wrong(snapshot)[:FAILURES_SHOWN]
    parts = ''.join(_line(_failure_text(each)) + _block(_detail(each)) for each in shown)
    return parts + _line(_more_text(snapshot, shown))


def _results_html(snapshot: Snapshot) -> str:
    rows = [
        (escape(row.id), str(row.count), _moment(row), escape(row.text))
        for row in snapshot.provisionals
    ]
    return _table(_RESULT_HEADS, rows) if rows else ''


def _output_html(output: dict[str, Any]) -> str:
    return _line(_output_title(output)) + _block('\n'.join(_output_lines(output)))


def _block(text: str) -> str:
    return f'<pre style="{_PRE}">{escape(text)}</pre>' if text else ''


def _line(text: str) -> str:
    return f'<div>{escape(text)}</div>' if text else ''


def _jobs(snapshot: Snapshot) -> str:
    return '1 job' if snapshot.submitted == 1 else f'{snapshot.submitted} jobs'


def _failure_text(failure: Failure) -> str:
    arguments = f' ({failure.arguments})' if failure.arguments else ''
    return f'job {failure.id}{arguments} {failure.status}: {failure.text[:MOST_TEXT]}'


def _detail(failure: Failure) -> str:
    """Take the end of a traceback, which says most."""
    text = failure.detail[-MOST_DETAIL:].strip()
    return '' if text == failure.text else '\n'.join(text.splitlines()[-DETAIL_LINES:])


def _more_text(snapshot: Snapshot, shown: list[Failure]) -> str:
    more = more_failures(snapshot, shown)
    return f'and {more} more that failed' if more else ''


def _notice(snapshot: Snapshot) -> str:
    return snapshot.notice if snapshot.pending else ''


def _provisional_text(row: ProvisionalSnapshot) -> str:
    return f'job {row.id}: provisional result {row.count} at {_moment(row)}: {row.text}'


def _moment(row: ProvisionalSnapshot) -> str:
    return time.strftime('%H:%M:%S', time.localtime(row.at))


def _output_title(output: dict[str, Any]) -> str:
    return f'last output of job {output["id"]}:' if _output_lines(output) else ''


def _output_lines(output: dict[str, Any]) -> list[str]:
    if output['job'] is None:
        return []
    lines = f'{output["stdout"]}\n{output["stderr"]}'.splitlines()
    return [line for line in lines if line.strip()][-OUTPUT_LINES:]
