"""The documents that are written down here are ones that Bokeh itself understands."""

import json
from itertools import pairwise
from typing import Any

import bokeh
import pytest
from bokeh.document import Document
from bokeh.models import ColumnDataSource, GlyphRenderer, HoverTool, Model, Plot

from dispy_nb.notebook.charts import figures, looks
from dispy_nb.notebook.charts.blueprint import model
from dispy_nb.notebook.charts.figures import BAR_COLUMNS, MOST_JOBS, MOST_NODES, PANELS


def read(bundle: dict[str, Any]) -> Document:
    """Have Bokeh read a document: it takes no model, property or value that it does not know."""
    written = json.loads(json.dumps(bundle['json']))
    if hasattr(bokeh.document.document, 'DocumentConfig'):  # since 3.8 it wants one
        written |= {'config': model('DocumentConfig', 'config')}
    document = Document.from_json(written)
    (root,) = document.roots
    assert root.id == bundle['root']
    return document


@pytest.fixture(params=[figures.cluster_document, figures.plot_document])
def document(request) -> Document:
    return read(request.param(bokeh.__version__))


def test_every_line_reads_columns_that_are_there(document: Document):
    renderers = list(document.select({'type': GlyphRenderer}))
    assert renderers
    for renderer in renderers:
        columns = renderer.data_source.data
        for name in renderer.glyph.dataspecs():
            value = getattr(renderer.glyph, name)
            column = value.field if hasattr(value, 'field') else None
            if isinstance(value, str) and name in ('x', 'y', 'left', 'right', 'top', 'bottom'):
                column = value
            assert column is None or column in columns


def test_ids_are_unlike_and_nothing_needs_more_than_the_one_program(document: Document):
    models = list(document.models)
    assert len({each.id for each in models}) == len(models)
    # widgets, tables and drawing by a graphics processor would be programs of their own
    assert {each.__module__.split('.')[1] for each in models} == {'models'}
    assert not [each for each in models if '.widgets' in each.__module__]
    assert not [plot for plot in models if isinstance(plot, Plot) and plot.toolbar_location]


@pytest.mark.row('V09')
def test_a_cluster_has_its_panels_lines_and_bars():
    document = read(figures.cluster_document(bokeh.__version__))
    plots = {plot.id for plot in document.select({'type': Plot})}
    assert plots == {f'{metric}.panel' for metric in PANELS} | {'timeline.panel'}
    sources = {source.id: source for source in document.select({'type': ColumnDataSource})}
    assert set(sources) == {'nodes', 'ended', 'running', 'busy'}
    assert set(sources['ended'].data) == set(BAR_COLUMNS)
    assert len(sources['nodes'].data) == 1 + len(PANELS) * (MOST_NODES + 1)
    (hover,) = by_id(document, 'timeline.panel').select({'type': HoverTool})
    shown = dict(hover.tooltips)
    assert shown['job'] == '@id'
    assert shown['arguments'] == '@arguments'
    assert '@left' in shown['time']
    assert '{safe}' not in str(hover.tooltips)  # which would show users' text as HTML


def by_id(document: Document, id: str) -> Model:
    found = document.get_model_by_id(id)
    assert found is not None
    return found


def test_colours_are_never_the_only_sign():
    lines = [(looks.color_of(place), looks.dash_of(place)) for place in range(MOST_JOBS)]
    assert len(set(lines)) == MOST_JOBS
    neighbours = pairwise(lines)
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in neighbours)
    assert len(set(looks.HATCHES.values())) == len(looks.STATUS_COLORS)
    assert set(looks.HATCHES) == set(looks.STATUS_COLORS)
