"""The widget of a cluster: a bar, the numbers, and a row per node."""

import ipywidgets

from dispy_nb.notebook.pages import nodes_html, numbers_html
from dispy_nb.snapshot import Snapshot


class ProgressWidget:
    """Shows snapshots; any number of cells can show the widget itself, `box`."""

    def __init__(self) -> None:
        wide = ipywidgets.Layout(width='auto', flex='1 1 auto')
        self._title = ipywidgets.HTML()
        self._bar = ipywidgets.IntProgress(value=0, min=0, max=1, layout=wide)
        self._numbers = ipywidgets.HTML()
        self._nodes = ipywidgets.HTML()
        head = ipywidgets.HBox([self._title, self._bar])
        self.box = ipywidgets.VBox([head, self._numbers, self._nodes])

    def draw(self, snapshot: Snapshot) -> None:
        """Show these figures; what has not changed is not sent."""
        done = f'{snapshot.ended} of {snapshot.submitted} jobs'
        with self._bar.hold_sync():
            self._bar.max = max(snapshot.submitted, 1)
            self._bar.value = snapshot.ended
            self._bar.bar_style = bar_style(snapshot)
            self._bar.tooltip = f'{snapshot.name}: {done}'
        self._title.value = f'{snapshot.name}: {done}'
        self._numbers.value = numbers_html(snapshot)
        self._nodes.value = nodes_html(snapshot)

    def view(self) -> dict[str, object]:
        """Return what makes a front end show the widget, by media type."""
        bundle: dict[str, object] = self.box._repr_mimebundle_()
        return {kind: value for kind, value in bundle.items() if kind != 'text/plain'}


def bar_style(snapshot: Snapshot) -> str:
    """Choose the colour: failures are seen at once, the end without any is green."""
    if snapshot.failed:
        return 'danger'
    if snapshot.cancelled:
        return 'warning'
    return 'success' if snapshot.submitted and not snapshot.pending else 'info'
