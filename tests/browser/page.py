"""A page of a browser that shows a notebook: what its reader does, sees, and never hears of."""

from typing import Any

from nbconvert.filters import strip_ansi
from playwright.sync_api import BrowserContext, ConsoleMessage, Dialog, Locator, Page, WebSocket

from tests.browser.lab import Lab

LIMIT = 15_000  # milliseconds
_NETWORK = ('http:', 'https:', 'ws:', 'wss:')
# errors of Jupyter's own scripts, with which dispy-nb has nothing to do
_KNOWN = (
    "Cannot read properties of undefined (reading 'schema')",  # Notebook 7, as it loads
    "Command 'filebrowser:open-path' not registered",  # Notebook 7, as it loads
    'Could not restore the debugger state',  # JupyterLab, of a kernel that was killed
    '[anywidget] Failed to initialize model',  # on a busy machine: see revive.js
)
_IDLE = """path => {
    const shown = window.jupyterapp?.shell?.currentWidget;
    const kernel = shown?.sessionContext?.session?.kernel;
    return shown?.context?.path === path && kernel?.status === 'idle';
}"""
# a promise that was returned to us would be waited for without a limit
_EXECUTE = """([command, args, active]) => {
    window.executed = false;
    // at once with the command: a dialog that closes gives the focus back to another cell
    if (active >= 0) window.jupyterapp.shell.currentWidget.content.activeCellIndex = active;
    const done = () => { window.executed = true; };
    window.jupyterapp.commands.execute(command, args).then(done, done);
}"""

_RAISED = """() => {
    const cells = window.jupyterapp.shell.currentWidget.content.model.cells;
    return Array.from(cells).flatMap(cell => cell.toJSON().outputs ?? [])
        .filter(output => output.output_type === 'error')
        .map(output => output.traceback.join('\\n'));
}"""
_CLOSE_ALL = """() => {
    const open = [...window.jupyterapp.shell.widgets('main')];
    for (const widget of open) widget.dispose();
    delete globalThis.dispyOpenSections;  // what this reader has opened is not the next one's
    return open.every((widget) => !widget.context);  // a launcher comes by itself
}"""


def new_tab(context: BrowserContext) -> Page:
    """Open a tab that can be left at any time: changes that are not saved are given up."""
    page = context.new_page()
    page.on('dialog', Dialog.accept)
    page.set_default_timeout(LIMIT)
    return page


class NotebookPage:
    """A notebook in a tab of JupyterLab, or of Notebook 7 (`kind` is `notebooks`)."""

    def __init__(self, page: Page, lab: Lab, path: str, kind: str = 'lab') -> None:
        self.page = page
        self.path = path
        self._kind = kind
        self.complaints: list[str] = []  # exceptions and errors of the page's own scripts
        self.strangers: list[str] = []  # whatever was asked of anybody but our server
        self._lab = lab
        self._listeners = {
            'request': lambda request: self._look_at(request.url),
            'websocket': self._look_at_socket,
            'pageerror': lambda error: self._complain(str(error)),
            'console': self._hear,
        }
        for event, listener in self._listeners.items():
            page.on(event, listener)  # type: ignore[call-overload]

    def open(self) -> None:
        """Open the notebook, and wait for its kernel."""
        if self._kind == 'lab' and self.page.evaluate('window.jupyterapp?.name') == 'JupyterLab':
            self._execute('docmanager:open', path=self.path)
            self.wait_for_kernel()
        else:
            self.load()

    def load(self) -> None:
        """Load the page anew, as its reader would, and wait for the kernel."""
        self.page.goto(self._lab.url(self._kind, self.path))
        self.wait_for_kernel()

    def open_without_kernel(self) -> None:
        """Open a notebook whose kernel is not here, and have none."""
        self._execute('docmanager:open', path=self.path)
        dialog = self.page.get_by_role('dialog')
        dialog.get_by_role('button', name='No Kernel').click()
        self.wait_until_executed()

    def leave(self, healthy: bool) -> None:
        """Close the notebook without saving it; the tab stays as the next test needs it."""
        for event in list(self._listeners):  # JupyterLab complains of each unanswered request
            self.page.remove_listener(event, self._listeners.pop(event))
        if not self.page.is_closed():
            if healthy and self._kind == 'lab':
                self.page.wait_for_function(_CLOSE_ALL)
            else:  # who knows which dialogs are open
                self.page.goto('about:blank')

    def wait_for_kernel(self) -> None:
        """Wait until the kernel is there and has nothing to do."""
        self.page.wait_for_function(_IDLE, arg=self.path, timeout=LIMIT)

    def start_all(self) -> None:
        """Run all cells, without waiting for their ends."""
        self._execute('notebook:run-all-cells')

    def run_all(self) -> None:
        """Run all cells to their ends."""
        self.start_all()
        self.wait_until_executed()

    def start(self, number: int) -> None:
        """Run a cell, without waiting for its end."""
        self._execute('notebook:run-cell', active=number)

    def run(self, number: int) -> None:
        """Run a cell to its end."""
        self.start(number)
        self.wait_until_executed()

    def wait_until_executed(self) -> None:
        """Wait for the end of what was started last; a cell must not raise."""
        self.page.wait_for_function('window.executed', timeout=LIMIT)
        raised = self.page.evaluate(_RAISED)
        assert raised == [], strip_ansi('\n'.join(raised))

    def is_executed(self) -> bool:
        """Whether what was started last has ended."""
        return bool(self.page.evaluate('window.executed'))

    def save(self) -> None:
        """Save the notebook."""
        self._execute('docmanager:save')
        self.wait_until_executed()

    def toggle_files(self) -> None:
        """Hide or show the list of files, which takes room from the notebook."""
        self._execute('application:toggle-left-area')
        self.wait_until_executed()

    def choose_theme(self, dark: bool) -> None:
        """Switch to the light or the dark theme."""
        name = 'JupyterLab Dark' if dark else 'JupyterLab Light'
        self._execute('apputils:change-theme', theme=name)
        light = 'false' if dark else 'true'
        self.page.wait_for_function(f"document.body.dataset.jpThemeLight === '{light}'")

    def cell(self, number: int) -> Locator:
        """Find a cell."""
        shown = self.page.locator('.jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook')
        return shown.locator(f'.jp-Cell[data-windowed-list-index="{number}"]')

    def output(self, number: int) -> Locator:
        """Find what a cell has put out."""
        return self.cell(number).locator('.jp-Cell-outputArea')

    def focus_before(self, part: Locator) -> None:
        """Put the focus where the next press of Tab moves it to the first control of the part."""
        part.evaluate('part => { part.tabIndex = -1; part.focus(); }')

    def _execute(self, command: str, *, active: int = -1, **arguments: Any) -> None:
        self.page.evaluate(_EXECUTE, [command, arguments, active])

    def _look_at(self, url: str) -> None:
        kind, _, rest = url.partition('://')
        if f'{kind}:' in _NETWORK and not f'http://{rest}'.startswith(self._lab.base):
            self.strangers.append(url)

    def _look_at_socket(self, socket: WebSocket) -> None:
        self._look_at(socket.url)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == 'error':
            self._complain(f'{message.text} ({message.location.get("url")})')

    def _complain(self, words: str) -> None:
        if not any(known in words for known in _KNOWN):
            self.complaints.append(words)
