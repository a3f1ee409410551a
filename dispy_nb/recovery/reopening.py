"""Opens a cluster once more, of the class that it was."""

from typing import Any

from dispy_nb.cluster import Cluster, JobCluster
from dispy_nb.recovery.resumption import Resumption
from dispy_nb.sharedcluster import SharedJobCluster


def reopened(resumption: Resumption, callback: Any = None, cluster_status: Any = None) -> Cluster:
    """Open the cluster of a program that was killed."""
    is_shared = resumption.recorded.setting.scheduler is not None
    kind: type[Cluster] = SharedJobCluster if is_shared else JobCluster
    return kind._resumed(resumption.prepared(callback, cluster_status), resumption)
