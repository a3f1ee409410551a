"""The widget of a cluster: a state goes in, a user's wish comes out, nothing else.

draw(state) ──▶ traits, one message ──▶ cluster_widget.js     (cluster_widget.css: how it looks)
take(wish) ◀── custom message ◀── a button of any view

`cluster_widget.js` is the view, and knows nothing but the traits.
"""

import contextvars
import json
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

ENVELOPE = 1000  # bytes of a message besides the state
MOST_BYTES = 30_000  # of states in a message, if it has several

_HERE = Path(__file__).parent
# as one module, in this order
_MODULES = ('../revive.js', 'widget_elements.js', 'cluster_head.js', 'cluster_widget.js')


class ClusterWidget(anywidget.AnyWidget):
    """Shows states; any number of cells and browsers can show the same widget.

    Parameters
    ----------
    take : callable
        Called with each message that a view sends, in the kernel's main thread or a subshell.
    state : dict
        What is shown at first, by trait.
    """

    _esm = '\n'.join((_HERE / name).read_text(encoding='utf-8') for name in _MODULES)
    _css = (_HERE / 'cluster_widget.css').read_text(encoding='utf-8')
    own_id = traitlets.Unicode().tag(sync=True)  # that of the model, which views are not told

    figures = traitlets.Dict().tag(sync=True)
    nodes = traitlets.Dict().tag(sync=True)
    jobs = traitlets.Dict().tag(sync=True)
    failures = traitlets.Dict().tag(sync=True)
    results = traitlets.Dict().tag(sync=True)
    output = traitlets.Dict().tag(sync=True)
    said: Any = traitlets.Dict({'number': 0, 'text': '', 'is_error': False}).tag(sync=True)

    def __init__(self, take: Callable[[object], object], state: dict[str, Any]) -> None:
        self._guard = threading.Lock()  # the sending of groups is not made for two threads
        self._left: set[str] = set()  # traits for which the last message had no room
        self._context = contextvars.copy_context()
        own_id = uuid.uuid4().hex
        super().__init__(model_id=own_id, own_id=own_id, **state)
        self.on_msg(lambda widget, content, buffers: take(content))

    def send_state(self, key: Any = None) -> None:
        """Send traits as if the cell did it that made the widget, whichever thread it is.

        ipykernel 7.4 hands what a view sends to that subshell in whose name was sent last, and in
        another thread that is the one of the latest request: JupyterLab may have ended it.
        """
        self._context.copy().run(super().send_state, key)

    def draw(self, state: dict[str, Any]) -> int:
        """Show a state, by trait; return the bytes that had to be sent: 0 if it was shown.

        What would make the message too large comes with the next one, and first.
        """
        order = sorted(state, key=lambda name: name not in self._left)
        chosen: dict[str, Any] = {}
        size, self._left = 0, set()
        for name in order:
            if getattr(self, name) != state[name]:
                more = len(json.dumps(state[name]))
                if chosen and size + more > MOST_BYTES:
                    self._left.add(name)
                else:
                    chosen[name] = state[name]
                    size += more
        if not chosen:
            return 0
        with self._guard, self.hold_sync():
            for name, value in chosen.items():
                setattr(self, name, value)
        return size + ENVELOPE

    def say(self, text: str, is_error: bool) -> None:
        """Answer a wish in words; the number tells that they are new, also if they are the same."""
        with self._guard:
            self.said = {
                'number': self.said['number'] + 1,
                'text': text,
                'is_error': is_error,
            }

    def view(self) -> dict[str, object]:
        """Return what makes a front end show the widget, by media type."""
        bundle: Any = self._repr_mimebundle_()
        # ipywidgets answers with a bundle, anywidget with one and its metadata
        bundle = bundle[0] if isinstance(bundle, tuple) else bundle
        return {kind: value for kind, value in bundle.items() if kind != 'text/plain'}
