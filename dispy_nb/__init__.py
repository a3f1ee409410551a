"""Run functions on the machines of a network, from a notebook or a script.

import dispy_nb as dispy

cluster = dispy.JobCluster(function)
job = cluster.submit(argument)
print(job())
"""

import importlib
from typing import Any

from dispy_nb import config, display
from dispy_nb.cluster import JobCluster
from dispy_nb.completion import as_completed
from dispy_nb.executor import Executor
from dispy_nb.job import DispyJob
from dispy_nb.joblib_entry import await_joblib, register_joblib
from dispy_nb.joboptions import ClusterView
from dispy_nb.local import LocalNodes, start_nodes
from dispy_nb.log import logger
from dispy_nb.nodes import DispyNode, DispyNodeAvailInfo, NodeAllocate
from dispy_nb.olderverbs import ClusterStatus
from dispy_nb.recovery.attaching import attach
from dispy_nb.recovery.recovering import fault_recover_jobs, recover_jobs
from dispy_nb.sharedcluster import SharedJobCluster
from dispy_nb.shareddata import Shared
from nodeserver.core.errors import (
    CertificateError,
    ClusterClosed,
    DatabaseBusy,
    DatabaseError,
    DispyError,
    JobFailed,
    KeyFileError,
    NodesMissing,
    NodesNotStarted,
    NotYetSupported,
    PicklingFailed,
    PortBusy,
    SchedulerRefused,
    UnknownParameter,
    UsageError,
)

__all__ = [
    'CertificateError',
    'ClusterClosed',
    'ClusterStatus',
    'ClusterView',
    'DatabaseBusy',
    'DatabaseError',
    'DispyError',
    'DispyJob',
    'DispyNode',
    'DispyNodeAvailInfo',
    'Executor',
    'JobCluster',
    'JobFailed',
    'KeyFileError',
    'LocalNodes',
    'NodeAllocate',
    'NodesMissing',
    'NodesNotStarted',
    'NotYetSupported',
    'PicklingFailed',
    'PortBusy',
    'SchedulerRefused',
    'Shared',
    'SharedJobCluster',
    'UnknownParameter',
    'UsageError',
    'as_completed',
    'attach',
    'config',
    'fault_recover_jobs',
    'logger',
    'recover_jobs',
    'register_joblib',
    'start_nodes',
]

display.register()
await_joblib()


def load_ipython_extension(shell: Any) -> None:
    """Make `%dispy` and `%%dispy` known: what `%load_ext dispy_nb` calls (V01)."""
    # by name: `import dispy_nb` loads no Jupyter package
    importlib.import_module('dispy_nb.notebook.magics.extension').load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Take them away: what `%unload_ext dispy_nb` calls."""
    importlib.import_module('dispy_nb.notebook.magics.extension').unload(shell)


def __getattr__(name: str) -> str:
    """Look the version up only for those who ask: what it takes to do so loads slowly."""
    if name in ('__version__', '_dispy_version'):
        try:
            return str(importlib.import_module('importlib.metadata').version('dispy-nb'))
        except ModuleNotFoundError:  # a source tree on the path
            return 'not installed'
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
