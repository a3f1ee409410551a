"""A cluster before it is opened: what travels, and its arguments as values to compare."""

from dataclasses import dataclass, fields
from typing import Any

from dispy_nb.dependencies import SourceFiles
from dispy_nb.depends import objects_of
from dispy_nb.options import ClusterOptions
from dispy_nb.packaging import declare, modules_of, own_files, project_of
from dispy_nb.project import ByValue
from nodeserver.core.messages import DeclareComputation
from nodeserver.definitions import meaning_of

# what the cluster of before takes over: its jobs need not be run anew for them
ADOPTED = ('callback', 'cluster_status', 'progress', 'loglevel')
# what `DeclareComputation` has in a form that can be compared
_DECLARED = ('computation', 'setup', 'cleanup', 'depends', 'allocations', 'name')


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that is found out of a cluster's options before anybody is told of it."""

    options: ClusterOptions
    declared: DeclareComputation
    files: SourceFiles
    travels: ByValue

    def arguments(self) -> dict[str, Any]:
        """Return what makes the difference between this and another cluster, by argument."""
        options, declared = self.options, self.declared
        given = {
            field.name: getattr(options, field.name)
            for field in fields(options)
            if field.name not in (*ADOPTED, *_DECLARED, 'nodes')
        }
        for name in ('computation', 'setup', 'cleanup'):
            given[name] = self._meaning(getattr(options, name))
        if isinstance(options.computation, str):
            given['computation'] = declared.package  # the program itself
        given['depends'] = declared.manifest, self._meaning(*objects_of(options.depends))
        own = [each for each in options.allocations if each.decides_itself]
        given['nodes'] = declared.specs, self._meaning(*own)
        return given

    def _meaning(self, *parts: object) -> object:
        try:
            return meaning_of(parts, self.travels)
        except Exception:  # noqa: BLE001 - a `NodeAllocate` of the user's, which need not travel
            return object()  # equal to nothing


def prepare(options: ClusterOptions) -> Prepared:
    """Find out all that a cluster needs.

    Raises
    ------
    UsageError, PicklingFailed
        Something cannot travel, or is not there.
    """
    project = project_of(options)
    files = own_files(options, project)
    declared = declare(options, project, files.manifest)
    travels = ByValue(modules_of(options, project), project.modules)
    return Prepared(options, declared, files, travels)
