"""A kernel whose every message is heard, also between cells: what a browser would know."""

import secrets
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

WIDGET = 'application/vnd.jupyter.widget-view+json'
LIMIT = 30.0


class Kernel:
    """Runs cells and keeps what the kernel has said: outputs, displays, states of widgets."""

    def __init__(self, client: BlockingKernelClient, manager: KernelManager) -> None:
        self._client = client
        self.manager = manager
        self.states: dict[str, dict[str, Any]] = {}  # of widgets, by model id
        self.displays: dict[str, dict[str, Any]] = {}  # latest bundle, by display id
        self.updates: list[str] = []  # display ids, at each update
        self.text: dict[str, str] = {'stdout': '', 'stderr': ''}
        self.text_of: dict[str, str] = {}  # of both, by the cell under which it appears
        self.errors: list[str] = []
        self.running = ''  # id of the cell now running

    def run(self, source: str, cell_id: str = '') -> str:
        """Run a cell to its end, and answer its id; what it raises fails the test.

        A cell that has a `cell_id` is known by that when it is run again, as in JupyterLab.
        """
        cell = self.start(source, cell_id)
        self.hear_until(lambda: not self.running)
        assert self.errors == []
        return cell

    def start(self, source: str, cell_id: str = '') -> str:
        """Begin to run a cell, and answer its id."""
        content = {'code': textwrap.dedent(source).lstrip('\n'), 'silent': False}
        metadata = {'cellId': cell_id} if cell_id else {}
        message = self._client.session.msg('execute_request', content, metadata=metadata)
        self._client.shell_channel.send(message)
        self.running = message['header']['msg_id']
        return self.running

    def interrupt(self) -> str:
        """Interrupt the running cell, as the button does; answer the error that it ends with."""
        self.manager.interrupt_kernel()
        self.hear_until(lambda: not self.running)
        return self.errors.pop()

    def hear_until(self, condition: Callable[[], object]) -> None:
        """Take messages until the condition holds."""
        end = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < end, f'{condition}, after {self.displays}, {self.states}'
            try:
                self._take(self._client.get_iopub_msg(timeout=0.2))
            except Empty:
                continue

    def hear_for(self, seconds: float) -> None:
        """Take messages for so long."""
        end = time.monotonic() + seconds
        self.hear_until(lambda: time.monotonic() >= end)

    def widgets_below(self, model_id: str) -> Iterator[dict[str, Any]]:
        """Yield the states of a widget and all within it."""
        state = self.states[model_id]
        yield state
        for child in state.get('children', ()):
            yield from self.widgets_below(child.removeprefix('IPY_MODEL_'))

    def _take(self, message: dict[str, Any]) -> None:
        content: dict[str, Any] = message['content']
        kind, parent = message['msg_type'], message['parent_header'].get('msg_id')
        if kind == 'comm_open':
            self.states[content['comm_id']] = content['data'].get('state', {})
        elif kind == 'comm_msg':
            self.states[content['comm_id']] |= content['data'].get('state', {})
        elif kind in ('display_data', 'update_display_data'):
            name = content['transient']['display_id']
            self.displays[name] = content['data']
            if kind == 'update_display_data':
                self.updates.append(name)
        elif kind == 'stream':
            self.text[content['name']] += content['text']
            self.text_of[parent] = self.text_of.get(parent, '') + content['text']
        elif kind == 'error':
            self.errors.append('\n'.join(content['traceback']))
        elif content.get('execution_state') == 'idle' and self.running == parent:
            self.running = ''


def own_sockets() -> dict[str, str]:
    """Where a kernel listens: a TCP port chosen now may be taken by the time it starts."""
    place = Path(tempfile.gettempdir(), f'kernel-{secrets.token_hex(4)}')
    return {'transport': 'ipc', 'ip': str(place)}


@contextmanager
def running_kernel() -> Iterator[Kernel]:
    """Run a kernel of this interpreter until the block ends."""
    manager = KernelManager(kernel_name='python3', **own_sockets())
    manager.start_kernel()
    client = manager.blocking_client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=LIMIT)
        yield Kernel(client, manager)
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
        manager.cleanup_resources()
        manager.context.destroy(linger=0)


@contextmanager
def quiet_kernel(start: str, end: str) -> Iterator[Kernel]:
    """Run a kernel that begins and ends with these cells, and writes nothing to standard error."""
    with running_kernel() as kernel:
        kernel.run(start)
        yield kernel
        kernel.run(end)
        assert kernel.text['stderr'] == ''


def only_display(kernel: Kernel) -> dict[str, Any]:
    """Return the latest bundle of the one display that there is."""
    (bundle,) = kernel.displays.values()
    return bundle
