"""Sending a file to one node, at any time (H07)."""

import concurrent.futures
import logging
from os import PathLike
from pathlib import Path

from dispy_nb.dependencies import Dependency, digest, gather
from dispy_nb.files import ClusterFiles
from dispy_nb.nodes import DispyNode, check_node_text, pin_names
from dispy_nb.runtime import Runtime
from dispy_nb.shell import ClusterShell
from dispy_nb.slices import slices
from nodeserver.core.errors import UsageError
from nodeserver.core.events import FilesToSay
from nodeserver.io.driver import Seat

_log = logging.getLogger('dispy_nb')


class FileVerbs:
    """The part of `JobCluster` that sends files."""

    name: str
    _files: ClusterFiles
    _shell: ClusterShell
    _runtime: Runtime
    _seat: Seat
    _computation: int

    def send_file(
        self, path: str | PathLike[str], node: DispyNode | str, relay: bool = False
    ) -> int:
        """Copy a file into the directory of this cluster's jobs on one node, under its base name.

        Parameters
        ----------
        path : str or path
            The file; it may be of any size that the node takes (``dispynode --max_file_size``).
        node : DispyNode or str
            The node, its address or its host name; it must be ready for this cluster.
        relay : bool
            Accepted for programs written for dispy; without effect.

        Returns
        -------
        int
            0 once the file lies there; -1 if it does not: the log says why.

        Raises
        ------
        UsageError
            There is no such file, or `node` is neither a node nor a text.
        ClusterClosed
            The cluster is closed.
        """
        self._check_open()
        if not isinstance(path, str | PathLike) or not Path(path).is_file():
            raise UsageError(f'path must be a file that is there, not {path!r}')
        source = gather('path', [path])[0].source
        files = digest('path', [Dependency(Path(source).name, source)])
        target = self._node_named(node)
        if target is None:
            _log.warning('%s: %s was not sent: %s is not ready for it', self.name, path, node)
            return -1
        message, answer = self._files.send(self._computation, target.node_id, files)
        self._runtime.post(self._seat, FilesToSay(message))
        reason = _wait(answer)
        if reason:
            _log.warning('%s: %s was not sent to %s: %s', self.name, path, target.name, reason)
        return -1 if reason else 0

    def _node_named(self, node: DispyNode | str) -> DispyNode | None:
        """The node that is meant, if it is one that the cluster uses now."""
        known = [each for each in self._shell.nodes.values() if not each.closed]
        if isinstance(node, DispyNode):
            return node if any(node is each for each in known) else None
        names = pin_names(check_node_text(node), known).split('\n')
        return next((each for each in known if {each.ip_addr, each.name} & {*names}), None)

    def _check_open(self) -> None:
        raise NotImplementedError


def _wait(answer: 'concurrent.futures.Future[str]') -> str:
    """Wait in parts, so that Ctrl-C is seen."""
    for part in slices(None):
        try:
            return answer.result(part)
        except concurrent.futures.TimeoutError:
            continue
    raise AssertionError('slices of no end have ended')
