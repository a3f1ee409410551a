"""A kernel with the magics loaded: what a cell shows, returns, prints and raises."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.notebook.kernel import LIMIT, Kernel, running_kernel

# of a busy machine: that nodes take their time is worth a line of the log
_LOG = re.compile(r'^dispy: .*\n(?:  .*\n)*', re.MULTILINE)


class Cells(Kernel):
    """Runs cells; each answers what became of it alone."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel._client, kernel.manager)
        self.value = ''  # of the last expression, as text
        self.shown: list[str] = []  # by the cell, as text

    def cell(self, source: str, fails: bool = False) -> str:
        """Run a cell to its end, and answer what it has printed and shown; or why it failed."""
        self.begin(source)
        return self.end(fails)

    def begin(self, source: str) -> None:
        """Have a cell run."""
        self.text, self.value, self.shown = {'stdout': '', 'stderr': ''}, '', []
        self.errors = []
        self.start(source)

    def end(self, fails: bool = False) -> str:
        """Wait for the end of the cell."""
        self.hear_until(lambda: not self.running)
        said = _LOG.sub('', self.text['stderr']) + '\n'.join(self.errors)
        assert bool(said) is fails, said or self.text
        return said if fails else '\n'.join([self.text['stdout'], *self.shown])

    def of(self, expression: str) -> str:
        """Answer the repr of an expression."""
        self.cell(f'print(repr(({expression})))')
        return self.text['stdout'].rstrip('\n')

    def words(self) -> list[str]:
        """Answer all text that is on the screen now."""
        widgets = [str(state['value']) for state in self.states.values() if 'value' in state]
        return widgets + [str(each['text/plain']) for each in self.displays.values()]

    def finished_of_open_clusters(self) -> list[int]:
        """Answer what live widgets say; the page beside them is drawn anew only at the end."""
        figures = [s['figures'] for s in self.states.values() if 'figures' in s]
        return [int(each['finished']) for each in figures if not each['closed']]

    def complete(self, line: str) -> list[str]:
        """Answer what the kernel offers at the end of a line."""
        reply = self._client.complete(line, reply=True, timeout=LIMIT)
        matches: list[str] = reply['content']['matches']
        return matches

    def _take(self, message: dict[str, Any]) -> None:
        content = message['content']
        is_own = message['parent_header'].get('msg_id') == self.running
        if message['msg_type'] == 'execute_result':
            self.value = content['data']['text/plain']
        elif message['msg_type'] == 'display_data' and is_own:
            self.shown.append(content['data']['text/plain'])
        super()._take(message)


@contextmanager
def cells_with_magics() -> Iterator[Cells]:
    """Run a kernel with the magics, and end the node servers that it has started."""
    with running_kernel() as kernel:
        cells = Cells(kernel)
        cells.cell('%load_ext dispy_nb')
        yield cells
        cells.cell(
            """
            from dispy_nb import closing, local
            for each in closing.open_clusters(): each.close(timeout=0, terminate=True)
            local.close_all()
            """
        )
