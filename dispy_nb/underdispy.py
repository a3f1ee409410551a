"""`import dispy.config` where a program has said `sys.modules['dispy'] = dispy_nb`.

Without this, Python would load each module anew under its other name: what is set in the one
`config` would not be seen by the other.
"""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

OURS = 'dispy_nb'
THEIRS = 'dispy'


def answer_to_dispy() -> None:
    """Have `dispy.x` be `dispy_nb.x`, wherever `dispy` is this package."""
    sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds modules below `dispy` while that is another name of this package."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, module = name.partition('.')
        if package != THEIRS or not module or sys.modules.get(THEIRS) is not sys.modules[OURS]:
            return None
        if importlib.util.find_spec(f'{OURS}.{module}') is None:
            return None
        return ModuleSpec(name, _Loader(f'{OURS}.{module}'))


class _Loader(Loader):
    """Gives out the one module that there is."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module = importlib.import_module(self._name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing but undo what the import has written into the module."""
        module.__spec__ = self._spec
