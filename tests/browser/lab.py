"""A JupyterLab server of the tests' own: its notebooks, its kernels, and what they leave behind.

test ── writes notebooks ──▶ folder ◀── server ──▶ kernels ──▶ nodes of LocalNodes ──▶ jobs
"""

import json
import os
import secrets
import sys
import textwrap
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat

from tests.support.programs import Program, eventually, free_port, program

# the window that offers news would lie over the notebook, and asks a server of somebody else's
_SETTINGS = {
    'notification': {'fetchNews': 'false', 'checkForUpdates': False, 'doNotDisturbMode': True}
}
_KERNEL = {'name': 'python3', 'display_name': 'Python 3', 'language': 'python'}


class Lab:
    """A running server."""

    def __init__(self, process: Program, base: str, token: str, folder: Path) -> None:
        self.process = process
        self.base = base
        self._token = token
        self._folder = folder

    def url(self, kind: str, path: str) -> str:
        """Say where a notebook is shown: `kind` is `lab` or, for Notebook 7, `notebooks`."""
        # in a workspace of its own JupyterLab opens no notebook of another test as well
        place = f'lab/workspaces/{path.partition(".")[0]}/tree' if kind == 'lab' else kind
        return f'{self.base}{place}/{path}?token={self._token}'

    def write(self, name: str, cells: Sequence[str], kernel: str = 'python3') -> None:
        """Write a notebook that has not run."""
        made = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(textwrap.dedent(cell).strip()) for cell in cells],
            metadata={'kernelspec': {**_KERNEL, 'name': kernel}},
        )
        nbformat.write(made, self._folder / name)

    def copy_without_kernel(self, name: str, other: str) -> None:
        """Copy a saved notebook as for a reader who neither has its kernel nor trusts it."""
        read = self.read(name)
        # of another language: JupyterLab takes any kernel of the language rather than none
        read.metadata['kernelspec'] = dict.fromkeys(_KERNEL, 'absent')
        read.metadata['language_info'] = {'name': 'absent'}
        nbformat.write(read, self._folder / other)

    def read(self, name: str) -> Any:
        """Read a notebook as it was saved."""
        return nbformat.read(self._folder / name, as_version=4)

    def export(self, name: str) -> str:
        """Have the server make HTML of a saved notebook."""
        return self._ask('GET', f'nbconvert/html/{name}').decode()

    def kernels(self) -> list[str]:
        """Answer the ids of the kernels that run."""
        return [kernel['id'] for kernel in json.loads(self._ask('GET', 'api/kernels'))]

    def end_kernels(self) -> None:
        """End all sessions, each kernel in order, and wait until the server has forgotten them."""
        for session in json.loads(self._ask('GET', 'api/sessions')):
            self._ask('DELETE', f'api/sessions/{session["id"]}')
        eventually(lambda: not self.kernels(), message='no kernel runs')

    def _ask(self, method: str, path: str) -> bytes:
        request = urllib.request.Request(self.base + path, method=method)
        request.add_header('Authorization', f'token {self._token}')
        with urllib.request.urlopen(request, timeout=30) as response:
            answer: bytes = response.read()
        return answer


@contextmanager
def running_lab(home: Path) -> Iterator[Lab]:
    """Run a server until the block ends; whatever it or a kernel keeps lies in `home`."""
    folder, settings = home / 'notebooks', home / 'settings' / '@jupyterlab'
    folder.mkdir()
    for plugin, chosen in _SETTINGS.items():
        file = settings / 'apputils-extension' / f'{plugin}.jupyterlab-settings'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(chosen))
    port, token = free_port(), secrets.token_hex(16)
    command = [
        *(sys.executable, '-m', 'jupyterlab', '--no-browser', '--expose-app-in-browser'),
        *('--ip=127.0.0.1', f'--port={port}', '--ServerApp.port_retries=0', '--allow-root'),
        *(f'--IdentityProvider.token={token}', f'--ServerApp.root_dir={folder}'),
    ]
    command.append('--JupyterNotebookApp.expose_app_in_browser=True')
    env = {
        **os.environ,
        'JUPYTERLAB_SETTINGS_DIR': str(home / 'settings'),
        'JUPYTERLAB_WORKSPACES_DIR': str(home / 'workspaces'),
        'JUPYTER_CONFIG_DIR': str(home / 'config'),
        'JUPYTER_DATA_DIR': str(home / 'data'),
        'JUPYTER_RUNTIME_DIR': str(home / 'runtime'),
        'IPYTHONDIR': str(home / 'ipython'),
    }
    with program(*command, ready='is running at', env=env) as process:
        yield Lab(process, f'http://127.0.0.1:{port}/', token, folder)
