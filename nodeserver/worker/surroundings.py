"""What a lasting worker puts back after each job, so that the next one finds it as it was (D5)."""

import os
import sys

from nodeserver.worker import ancestry
from nodeserver.worker.output import Capture


class Surroundings:
    """Names of `__main__`, working directory, environment and standard streams.

    Objects changed in place, modules' own state, signal handlers and threads are not put back.
    """

    def __init__(self, directory: str, capture: Capture) -> None:
        self._directory = directory
        self._capture = capture
        self._globals = sys.modules['__main__'].__dict__
        self._names = dict(self._globals)
        # the mapping below `os.environ`: comparing that itself decodes every variable
        self._environment: dict[object, object] = vars(os.environ)['_data']
        self._variables = dict(self._environment)

    def sweep(self) -> None:
        """End the processes that the job left behind."""
        if ancestry.has_children():
            ancestry.sweep(())

    def restore(self) -> None:
        """Put everything back; looking first whether it changed would cost more."""
        self._globals.clear()
        self._globals.update(self._names)
        os.chdir(self._directory)
        if self._environment != self._variables:
            self._restore_environment()
        self._capture.restore()

    def _restore_environment(self) -> None:
        for name in list(os.environb):
            if name not in self._variables:
                del os.environb[name]
        for name, value in self._variables.items():
            assert isinstance(name, bytes)
            assert isinstance(value, bytes)
            os.environb[name] = value
