"""A package in a process of its own: the client's `__main__` is this one's, names are known."""

import os
import sys
import types
from dataclasses import dataclass
from typing import Any

from nodeserver.definitions import settle_classes
from nodeserver.payload import Package, load_package
from nodeserver.wire.lane import TemplateSettings
from nodeserver.worker import helpers
from nodeserver.worker.lanefile import LaneFile
from nodeserver.worker.portion import use_cpus
from nodeserver.worker.surroundings import bind, namespaces


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A package, the globals that its functions share, and what these were before `setup`."""

    package: Package
    spaces: list[dict[str, Any]]
    before: list[dict[str, Any]]


def unpack(settings: TemplateSettings, data: bytes, file: LaneFile) -> Unpacked:
    """Load the package into a fresh `__main__`, in the directory of the jobs."""
    use_cpus(settings.cpus)
    os.chdir(settings.directory)
    if settings.directory not in sys.path[:1]:
        sys.path.insert(0, settings.directory)
    sys.modules['__main__'] = types.ModuleType('__main__')
    helpers.install(settings, file)
    package = load_package(data)
    settle_classes()
    spaces = namespaces(*package.parts)
    bind(package.depends, spaces)
    return Unpacked(package, spaces, [dict(names) for names in spaces])
