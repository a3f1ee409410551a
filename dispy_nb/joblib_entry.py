"""Has joblib know the backend 'dispy', whichever of the two was imported first (Z04).

joblib has no entry points: a backend must be in its table before somebody asks for it.  So where
joblib is not imported yet, the import of it is awaited; it is never imported by this module.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

NAME = 'dispy'
_TABLE = 'joblib.parallel'  # the module with the table of backends


def register_joblib() -> None:
    """Make `joblib.parallel_config(backend='dispy')` known; `import dispy_nb` does so itself.

    Only of use where joblib has been reloaded, or its table of backends was emptied.
    """
    importlib.import_module(_TABLE).register_parallel_backend(NAME, _make_backend)


def await_joblib() -> None:
    """Register with joblib now if it is there, else when it is imported."""
    if _TABLE in sys.modules:
        register_joblib()
    else:
        sys.meta_path.insert(0, _Waiting())


def _make_backend(**options: Any) -> Any:
    # by name: joblib is not everywhere, and `import dispy_nb` does without it
    return importlib.import_module('dispy_nb.joblib_backend').DispyBackend(**options)


class _Waiting(MetaPathFinder):
    """Sees joblib's table being imported, once, and leaves."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _TABLE:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Registering(spec.loader)
        return spec


class _Registering(Loader):
    """Loads a module as its own loader does, then registers."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None
        spec.loader = module.__loader__ = self._loader  # as if nobody had waited
        self._loader.exec_module(module)
        module.register_parallel_backend(NAME, _make_backend)
