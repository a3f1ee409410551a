"""The widget that shows charts: a document of Bokeh, and BokehJS, both sent by the kernel.

Chart.data, .tail, ... ──▶ comm ──▶ chart.js ──▶ models of BokehJS

Everything is state: whoever opens a view of it, late or once more, sees the present.
"""

import json
import uuid
from functools import cache
from pathlib import Path
from typing import Any

import anywidget
import bokeh
import ipywidgets
import traitlets

_HERE = Path(__file__).parent
_MODULES = ('../revive.js', 'chart.js')  # as one module, in this order
VERSION: str = bokeh.__version__


class BokehJS(anywidget.AnyWidget):
    """Carries the program to the page, so that no network is needed; one for each kernel."""

    _esm = 'export default {render() {}}'
    js = traitlets.Unicode().tag(sync=True)


class Chart(anywidget.AnyWidget):
    """A document and what is shown in it."""

    _esm = ''.join((_HERE / name).read_text(encoding='utf-8') for name in _MODULES)
    own_id = traitlets.Unicode().tag(sync=True)  # that of the model, which views are not told
    version = traitlets.Unicode(VERSION).tag(sync=True)
    loader = traitlets.Instance(ipywidgets.Widget).tag(sync=True, **ipywidgets.widget_serialization)
    bundle = traitlets.Dict().tag(sync=True)  # the document, and which model is its root
    data = traitlets.Dict().tag(sync=True)  # columns, by the id of their source
    tail = traitlets.Dict().tag(sync=True)  # rows that follow them
    live = traitlets.Dict().tag(sync=True)  # columns of sources that are small, and always whole
    settings = traitlets.Dict().tag(sync=True)  # attributes of models, by their id
    legend: Any = traitlets.List().tag(sync=True)  # what lines and bars stand for
    words = traitlets.Unicode().tag(sync=True)  # the same for who cannot see it
    note = traitlets.Unicode().tag(sync=True)  # what the reader is to know besides

    def draw(self, state: dict[str, Any]) -> int:
        """Show a state, by trait; return the bytes that had to be sent: 0 if it was shown."""
        changed = {name: value for name, value in state.items() if getattr(self, name) != value}
        with self.hold_sync():  # one message
            for name, value in changed.items():
                setattr(self, name, value)
        return len(json.dumps(changed)) if changed else 0

    def view(self) -> dict[str, Any]:
        """Return what makes a front end show the widget, by media type."""
        bundle, _ = self._repr_mimebundle_() or ({}, {})
        return dict(bundle)


@cache
def bokeh_js() -> BokehJS:
    """Return the one program of this kernel."""
    path = Path(bokeh.__file__).parent / 'server' / 'static' / 'js' / 'bokeh.min.js'
    return BokehJS(js=path.read_text(encoding='utf-8'))


def new_chart(bundle: dict[str, Any], state: dict[str, Any]) -> Chart:
    """Make the widget of a document, with what it shows at first."""
    own_id = uuid.uuid4().hex
    return Chart(model_id=own_id, own_id=own_id, loader=bokeh_js(), bundle=bundle, **state)
