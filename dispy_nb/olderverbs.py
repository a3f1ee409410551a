"""Methods of clusters that programs written for dispy 4.15 call."""

from typing import Any, NamedTuple

from dispy_nb.job import DispyJob
from dispy_nb.nodes import DispyNode
from dispy_nb.showing import Showing
from nodeserver.core.messages import ORDINARY, JobOptions


class ClusterStatus(NamedTuple):
    """What `JobCluster.status` returns."""

    nodes: list[DispyNode]
    jobs_pending: int


class OlderVerbs(Showing):
    """The part of `JobCluster` that only has other names for things."""

    def submit_job_id(self, id: Any, /, *args: Any, **kwargs: Any) -> DispyJob:
        """Submit a job whose `id` is set before anybody is told of it; else as `submit`."""
        return self._submit('', args, kwargs, id=id)

    def submit_job_id_node(
        self, id: Any, node: DispyNode | str, /, *args: Any, **kwargs: Any
    ) -> DispyJob:
        """Submit a job with this `id` for one node only; else as `submit_node`."""
        return self._submit(self._pin(node), args, kwargs, id=id)

    def status(self) -> ClusterStatus:
        """Return the nodes that are there, and how many jobs have not ended."""
        nodes = [node for node in list(self._shell.nodes.values()) if not node.closed]
        return ClusterStatus(nodes, self.snapshot().pending)

    def shutdown(self) -> None:
        """Close the cluster, once its jobs have ended.

        There is nothing else to shut down: what serves all clusters of a program ends with the
        last one.
        """
        self.close()

    # what a cluster has

    def _pin(self, node: DispyNode | str) -> str:
        raise NotImplementedError

    def _submit(
        self,
        node: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: JobOptions = ORDINARY,
        id: Any = ...,
    ) -> DispyJob:
        raise NotImplementedError
