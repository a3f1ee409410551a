"""Run functions on the machines of a network, from a notebook or a script.

import dispy_nb as dispy

cluster = dispy.JobCluster(function)
job = cluster.submit(argument)
print(job())
"""

from dispy_nb import display
from dispy_nb.cluster import JobCluster
from dispy_nb.completion import as_completed
from dispy_nb.executor import Executor
from dispy_nb.job import DispyJob
from dispy_nb.joblib_entry import await_joblib, register_joblib
from dispy_nb.joboptions import ClusterView
from dispy_nb.local import LocalNodes, start_nodes
from dispy_nb.log import logger
from dispy_nb.nodes import DispyNode, DispyNodeAvailInfo, NodeAllocate
from dispy_nb.shareddata import Shared
from dispy_nb.tocome import SharedJobCluster, recover_jobs
from nodeserver.core.errors import (
    ClusterClosed,
    DispyError,
    JobFailed,
    KeyFileError,
    NodesMissing,
    NodesNotStarted,
    NotYetSupported,
    PicklingFailed,
    PortBusy,
    UsageError,
)

__all__ = [
    'ClusterClosed',
    'ClusterView',
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
    'Shared',
    'SharedJobCluster',
    'UsageError',
    'as_completed',
    'logger',
    'recover_jobs',
    'register_joblib',
    'start_nodes',
]

display.register()
await_joblib()
