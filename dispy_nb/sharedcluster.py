"""`SharedJobCluster`: a cluster whose nodes are shared by several programs."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from dispy_nb import remoteruntime
from dispy_nb.cluster import Cluster
from dispy_nb.nodes import DispyNode, pin_names
from dispy_nb.othernames import takes_other_names
from dispy_nb.runtime import Runtime
from dispy_nb.sharedoptions import SharedOptions
from nodeserver.core.errors import UsageError
from nodeserver.io.udp import CLIENT_PORT, NODE_PORT

_log = logging.getLogger('dispy_nb')


class SharedJobCluster(Cluster):
    """Run a function on nodes that several programs share, through `dispyscheduler` (section B).

    That program finds the nodes and shares them out; this one connects to it, and to no node.
    Everything that a `JobCluster` does, this cluster does too, by the same methods.  While the
    scheduler cannot be reached, which is said at once and then once a minute, jobs wait or run on;
    a scheduler that comes back is told of everything that has not ended.

    Parameters
    ----------
    computation, nodes, depends, dest_path, loglevel, cleanup, reentrant : optional
        As of `JobCluster`; `nodes` chooses among the nodes that the scheduler reaches.
    ip_addr : str or list of str, optional
        Own addresses at which this program waits for a scheduler that looks for it; all of them
        by default.
    port : int, optional
        TCP port for that (51347; None or 0: any free one).
    scheduler_node : str, optional
        Host name or address of the machine on which `dispyscheduler` runs; this one by default.
    scheduler_port : int, optional
        Its port for programs (51349).
    ext_ip_addr : str or list of str, optional
        Where the scheduler finds this program, if that is not where its connection comes from.
    exclusive : bool
        Have all nodes for this cluster alone: it waits until those before it are closed, and those
        after it wait until it is.
    secret, keyfile, certfile : optional
        What the scheduler was given for its side of programs (``--cluster_secret``,
        ``--cluster_certfile``, ``--cluster_keyfile``); nodes may have others.

    Raises
    ------
    UsageError
        An argument has a wrong value.
    DatabaseError
        `recover_file` cannot be used: the text says why.
    SchedulerRefused
        The scheduler has another key or certificate, or something else answers at its port.
    PortBusy
        Another program has the `port` that was given.
    CertificateError
        `certfile` or `keyfile` cannot be used: the text says which, why, and what to do.
    PicklingFailed
        The function refers to something that cannot travel.
    """

    _unconfirmed = (
        'the scheduler has not confirmed the end of the cluster: what nodes keep of it goes later, '
        'by itself'
    )

    @takes_other_names
    def __init__(
        self,
        computation: Callable[..., Any] | str,
        nodes: Sequence[Any] = ['*'],
        depends: Sequence[Any] = [],
        ip_addr: str | list[str] | None = None,
        port: int | None = CLIENT_PORT,
        scheduler_node: str | None = None,
        scheduler_port: int | None = None,
        ext_ip_addr: str | list[str] | None = None,
        dest_path: str | None = None,
        loglevel: int = logging.WARNING,
        cleanup: bool | Callable[..., Any] = True,
        reentrant: bool = False,
        exclusive: bool = False,
        secret: str = '',
        keyfile: str | None = None,
        certfile: str | None = None,
        *,
        callback: Callable[..., Any] | None = None,
        cluster_status: Callable[..., Any] | None = None,
        setup: Callable[..., Any] | None = None,
        node_port: int | None = NODE_PORT,
        recover_file: str | None = None,
        ping_interval: float | None = None,
        isolation: str = 'job',
        insecure: bool = False,
        name: str | None = None,
        progress: bool | None = None,
        cpus: int = 1,
        memory: int | str | None = None,
        gpus: int = 0,
    ) -> None:
        given = dict(locals())  # first of all: exactly the parameters
        del given['self']
        self._make(SharedOptions(**given))

    def set_node_cpus(self, node: DispyNode | str, cpus: int) -> int:
        """Leave the number of cpus of a node as it is: the node is shared (B14).

        Returns
        -------
        int
            How many are used; -1 if the node is unknown or not in use, which is logged.
        """
        if isinstance(cpus, bool) or not isinstance(cpus, int):
            raise UsageError(f'cpus must be a whole number, not {cpus!r}')
        self._check_open_for('set_node_cpus')
        names = pin_names(node, self._shell.nodes.values()).split('\n')
        for each in self._shell.nodes.values():
            if not each.closed and {each.node_id, each.ip_addr, each.name} & {*names}:
                _log.warning(
                    '%s: set_node_cpus(): the node is shared: this cluster may use %s there as '
                    'before; its own `cpus` command changes that for all programs',
                    self.name,
                    '1 cpu' if each.cpus == 1 else f'{each.cpus} cpus',
                )
                return each.cpus
        _log.warning('%s: set_node_cpus(): no node %s is in use', self.name, node)
        return -1

    def uses_only(self, nodes: set[tuple[str, int]]) -> bool:
        """Whether it ends with these nodes: never, as the scheduler may know others."""
        return False

    def _acquire(self, options: Any, alone: bool) -> Runtime:
        return remoteruntime.acquire(options, alone)
