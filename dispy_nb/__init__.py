"""Run functions on the machines of a network, from a notebook or a script.

import dispy_nb as dispy

cluster = dispy.JobCluster(function)
job = cluster.submit(argument)
print(job())
"""

from dispy_nb import display
from dispy_nb.cluster import JobCluster
from dispy_nb.job import DispyJob
from dispy_nb.local import LocalNodes, start_nodes
from dispy_nb.log import logger
from dispy_nb.nodes import DispyNode, DispyNodeAvailInfo, NodeAllocate
from dispy_nb.shareddata import Shared
from dispy_nb.tocome import SharedJobCluster, recover_jobs
from nodeserver.core.errors import (
    ClusterClosed,
    DispyError,
    KeyFileError,
    NodesNotStarted,
    NotYetSupported,
    PicklingFailed,
    PortBusy,
    UsageError,
)

__all__ = [
    'ClusterClosed',
    'DispyError',
    'DispyJob',
    'DispyNode',
    'DispyNodeAvailInfo',
    'JobCluster',
    'KeyFileError',
    'LocalNodes',
    'NodeAllocate',
    'NodesNotStarted',
    'NotYetSupported',
    'PicklingFailed',
    'PortBusy',
    'Shared',
    'SharedJobCluster',
    'UsageError',
    'logger',
    'recover_jobs',
    'start_nodes',
]

display.register()
