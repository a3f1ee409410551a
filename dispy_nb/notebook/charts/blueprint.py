"""Documents of Bokeh, written down as BokehJS reads them.

Importing Bokeh's models takes longer than a first chart may (0.5 s), and nothing but this is needed
of them.  The tests have Bokeh itself read what is made here.  A model's `id` is a name of ours.
"""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

Model = dict[str, Any]

_numbers: Iterator[int] = count()


def model(kind: str, id: str = '', **attributes: Any) -> Model:
    """Write down a model; without an id it gets one that nobody needs to know."""
    given = id or f'{kind}{next(_numbers)}'
    return {'type': 'object', 'name': kind, 'id': given, 'attributes': attributes}


def again(written: Model) -> Model:
    """Refer to a model that was written down before."""
    return {'id': written['id']}


def field(column: str, transform: Model | None = None) -> Model:
    """Name the column that holds a property of each row."""
    more = {'transform': transform} if transform else {}
    return {'type': 'field', 'field': column} | more


def mapping(entries: dict[str, Any]) -> Model:
    """Write down a dictionary."""
    return {'type': 'map', 'entries': [list(entry) for entry in entries.items()]}


def source(id: str, columns: Sequence[str]) -> Model:
    """Write down an empty table."""
    return model(
        'ColumnDataSource',
        id,
        name=id,
        selected=model('Selection', indices=[], line_indices=[]),
        selection_policy=model('UnionRenderers'),
        data=mapping({column: [] for column in columns}),
    )


def renderer(id: str, table: Model, glyph: Model, **attributes: Any) -> Model:
    """Write down what draws the rows of a table."""
    view = model('CDSView', filter=model('AllIndices'))
    return model(
        'GlyphRenderer', id, name=id, data_source=table, glyph=glyph, view=view, **attributes
    )


def document(root: Model, version: str) -> dict[str, Any]:
    """Write down a document with one root, for this version of BokehJS."""
    return {'root': root['id'], 'json': {'version': version, 'title': '', 'roots': [root]}}
