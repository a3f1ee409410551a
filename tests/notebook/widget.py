"""What tests of the cluster's widget have in common: its state as heard, and wishes of views."""

import json
from datetime import datetime
from typing import Any

from tests.notebook.kernel import WIDGET, Kernel

START = """
    import dispy_nb as dispy

    def hold(gate, fail=False, words=''):
        import pathlib, time
        print(words, flush=True)
        end = time.monotonic() + 20
        while not pathlib.Path(gate).exists() and time.monotonic() < end:
            time.sleep(0.02)
        assert not fail, 'on purpose'

    nodes = dispy.LocalNodes(2, cpus=1)
    cluster = dispy.JobCluster(hold, nodes=nodes.nodes, ip_addr='127.0.0.1', port=0)
"""
END = 'cluster.close(timeout=0, terminate=True); nodes.close()'


def model_of(kernel: Kernel) -> str:
    """Return the id of the one widget that displays show."""
    (model_id,) = {
        bundle[WIDGET]['model_id'] for bundle in kernel.displays.values() if WIDGET in bundle
    }
    return str(model_id)


class Shown:
    """The state of one widget, which a view would draw; it is sent wishes as by a view."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.model_id = model_of(kernel)

    def __getattr__(self, trait: str) -> Any:
        return self.kernel.states[self.model_id][trait]

    def wish(self, wish: object, **more: object) -> None:
        self.send({'wish': wish, **more})

    def send(self, content: object) -> None:
        """Send any content, as nothing checks what a front end sends."""
        client = self.kernel._client
        data = {'method': 'custom', 'content': content}
        body = {'comm_id': self.model_id, 'data': data}
        client.shell_channel.send(client.session.msg('comm_msg', body))

    def hear(self, words: str) -> None:
        """Take messages until this is said below the bar."""
        self.kernel.hear_until(lambda: words in self.said['text'])

    def hear_figures(self, **wanted: object) -> None:
        """Take messages until these figures are shown."""
        self.kernel.hear_until(lambda: wanted.items() <= self.figures.items())


class Ledger:
    """When messages about displays were sent, and how large they are."""

    def __init__(self, kernel: Kernel) -> None:
        self.rows: list[tuple[float, int]] = []
        self._take = kernel._take
        kernel._take = self._note  # type: ignore[method-assign]

    def _note(self, message: dict[str, Any]) -> None:
        self._take(message)
        if message['msg_type'] in ('comm_msg', 'update_display_data', 'display_data'):
            sent: datetime = message['header']['date']
            size = sum(
                len(json.dumps(message[part], default=str))
                for part in ('header', 'parent_header', 'metadata', 'content')
            )
            self.rows.append((sent.timestamp(), size))

    def most(self) -> tuple[int, int]:
        """Return the most messages, and the most bytes, that were sent within any second."""
        windows = [
            [size for at, size in self.rows if begin <= at < begin + 0.99] for begin, _ in self.rows
        ]
        return max(map(len, windows)), max(map(sum, windows))
