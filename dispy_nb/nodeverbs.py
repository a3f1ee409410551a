"""What a cluster does with single nodes: more of them, none of this one, some cpus of that one."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

from dispy_nb.job import DispyJob
from dispy_nb.nodes import DispyNode, NodeAllocate, check_node_text, pin_names
from dispy_nb.options import ClusterOptions, as_allocation
from dispy_nb.packaging import dump_setup_args, node_spec
from dispy_nb.project import ByValue
from dispy_nb.runtime import Runtime
from dispy_nb.shell import ClusterShell
from nodeserver.core.errors import ClusterClosed, UsageError
from nodeserver.core.events import RequestMade
from nodeserver.core.fleetmessages import (
    AddNodes,
    CloseNode,
    DeallocateNode,
    FindNodes,
    SetNodeCpus,
)
from nodeserver.core.messages import Message
from nodeserver.core.values import NodeSpec
from nodeserver.io.driver import Seat

_log = logging.getLogger('dispy_nb')

Node = DispyNode | str
AnyNode = Node | tuple[Any, ...] | NodeAllocate


class NodeVerbs:
    """The part of `JobCluster` that chooses nodes and controls them while it runs.

    Those that answer 0 do so as soon as the scheduler knows; what nodes take time for follows.
    A node is given as a `DispyNode`, an address or a host name.  They raise `UsageError` for a
    value of a wrong type, and `ClusterClosed` after `close()`.
    """

    name: str
    _options: ClusterOptions
    _shell: ClusterShell
    _runtime: Runtime
    _seat: Seat
    _travels: ByValue
    _computation: int
    _is_closed: bool

    def allocate_node(self, node: AnyNode | list[AnyNode]) -> int:
        """Use one more node, or a list of them: elements as in `nodes` (C13).

        It is asked for at once.  One that was closed, deallocated or turned down by `allocate`
        before, or that failed, is used again; one that is in use goes on as it is.

        Returns
        -------
        int
            0, also before it was found; -1 if a host name has no address, which is logged: the
            others of the list are used all the same.
        """
        allocations = [
            as_allocation(element) for element in self._options.with_own_nodes(_listed(node))
        ]
        for allocation in allocations:
            dump_setup_args(allocation, self._travels)  # what cannot travel is told here
        known = self._with_addresses('allocate_node', allocations)

        def put_first(computation: int, number: int) -> Message:
            self._shell.allocations[:0] = [allocation for allocation, _ in known]
            return AddNodes(computation, number, [spec for _, spec in known])

        if known:
            self._request('allocate_node', put_first)
        return 0 if len(known) == len(allocations) else -1

    def discover_nodes(self, nodes: AnyNode | list[AnyNode]) -> int:
        """Ask again for nodes; ``'*'`` asks the local network by broadcast.

        Those that answer are used if an element of `nodes` matches them.

        Returns
        -------
        int
            0; -1 if a host name has no address, which is logged.
        """
        allocations = [as_allocation(element) for element in _listed(nodes)]
        known = self._with_addresses('discover_nodes', allocations)
        specs = [spec for _, spec in known]
        targets = [(spec.pattern, spec.port) for spec in specs if '*' not in spec.pattern]
        ports = [spec.port for spec in specs if '*' in spec.pattern]
        for port in ports or [0]:
            self._request('discover_nodes', _finding(targets, port))
            targets = []
        return 0 if len(known) == len(allocations) else -1

    def deallocate_node(self, node: Node) -> int:
        """Give a node no more jobs; the computation stays there for `allocate_node`.

        Jobs that run there may end; those that have not begun go to others.

        Returns
        -------
        int
            0; -1 if the cluster knows no such node, which is logged.
        """
        return self._ask_of('deallocate_node', node, DeallocateNode)

    def close_node(self, node: Node, terminate_pending: bool = False) -> int:
        """Close the computation on a node once its jobs there have ended.

        Jobs that have not begun there go to others; those for this node only end `Cancelled`.

        Parameters
        ----------
        terminate_pending : bool
            Whether running jobs are cancelled, and not waited for.

        Returns
        -------
        int
            0 at once; -1 if the cluster knows no such node, which is logged.
        """
        return self._close_on('close_node', node, terminate_pending, again=False)

    def resetup_node(self, node: Node, terminate_pending: bool = False) -> int:
        """Close the computation on a node and open it there anew: `allocate` and `setup` again.

        Jobs for this node only wait for it.  Parameters and answer are those of `close_node`.
        """
        return self._close_on('resetup_node', node, terminate_pending, again=True)

    def set_node_cpus(self, node: Node, cpus: int) -> int:
        """Use so many cpus of a node from now on (C15, C16).

        Parameters
        ----------
        cpus : int
            How many to use; 0: none, so that jobs wait.  Below 0: how many of those that the node
            offers to leave unused.  Jobs that run may end, also if they are too many.

        Returns
        -------
        int
            How many are used now; -1 if the node is unknown or not in use, which is logged.
        """
        if isinstance(cpus, bool) or not isinstance(cpus, int):
            raise UsageError(f'cpus must be a whole number, not {cpus!r}')
        bounded = max(-(2**31), min(cpus, 2**31))
        return self._ask_of('set_node_cpus', node, SetNodeCpus, bounded)

    def node_jobs(self, node: Node, from_node: bool = False) -> list[DispyJob]:
        """List the jobs that are with a node now (C14).

        `from_node` is accepted; the answer is the same, since nodes report each change.
        """
        wanted = node.node_id if isinstance(node, DispyNode) else check_node_text(node)
        return [
            job
            for job in list(self._shell.jobs.values())
            if job.node is not None
            and wanted in (job.node.node_id, job.node.ip_addr, job.node.name)
        ]

    # requests

    def _close_on(self, verb: str, node: Node, terminate: bool, again: bool) -> int:
        if not isinstance(terminate, bool):
            raise UsageError(f'terminate_pending must be True or False, not {terminate!r}')
        return self._ask_of(verb, node, CloseNode, terminate, again)

    def _ask_of(self, verb: str, node: Node, kind: Callable[..., Message], *more: object) -> int:
        """Ask for something about one node."""
        names = pin_names(node, self._shell.nodes.values())
        return self._request(verb, lambda c, number: kind(c, number, names, *more))

    def _request(self, verb: str, make: Callable[[int, int], Message]) -> int:
        """Ask the scheduler and return what it answers; what there is to say of it is logged."""
        self._check_open_for(verb)

        def post(number: int) -> None:
            self._runtime.post(self._seat, RequestMade(make(self._computation, number)))

        answer = self._shell.requests.ask(post)
        if answer is None:
            self._check_open_for(verb, closed=True)
            return -1
        if answer.reason:
            _log.warning('%s: %s(): %s', self.name, verb, answer.reason)
        return answer.value

    def _check_open_for(self, verb: str, closed: bool = False) -> None:
        self.waiting()
        if self._is_closed or closed:
            raise ClusterClosed(f'cluster {self.name} is closed: {verb}() has no nodes to act on')

    def _with_addresses(
        self, verb: str, allocations: Iterable[NodeAllocate]
    ) -> list[tuple[NodeAllocate, NodeSpec]]:
        """Those whose host has an address, with it; the others are logged."""
        self._check_open_for(verb)
        known = []
        for allocation in allocations:
            try:
                spec = node_spec(allocation, self._options.node_port or 0)
            except UsageError as error:
                _log.warning('%s: %s(): %s', self.name, verb, error)
            else:
                known.append((allocation, spec))
        return known

    def waiting(self) -> None:
        """Take note that somebody is about to wait."""
        raise NotImplementedError


def _listed(nodes: AnyNode | list[AnyNode]) -> list[AnyNode]:
    listed = nodes if isinstance(nodes, list) else [nodes]
    if not listed:
        raise UsageError('the list of nodes is empty: no node would be asked')
    return listed


def _finding(targets: list[tuple[str, int]], port: int) -> Callable[[int, int], Message]:
    return lambda computation, number: FindNodes(computation, number, targets, port)
