"""Asking the user's `NodeAllocate.allocate` for nodes as they are found (E04-E07).

AllocateAsk ──▶ callback thread: allocate() ──▶ cpus, files, arguments of `setup` ──▶ AllocateAnswer
"""

import functools
import logging
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from dispy_nb.callbacks import CallbackThread
from dispy_nb.files import ClusterFiles
from dispy_nb.nodes import NodeAllocate, allocated, avail_info
from dispy_nb.packaging import dump_setup_args, node_files
from nodeserver.core.effects import AskAllocation
from nodeserver.core.errors import PicklingFailed, UsageError
from nodeserver.core.messages import AllocateAnswer, AllocateAsk

_log = logging.getLogger('dispy_nb')


class Allocating:
    """Calls `allocate` on the callback thread; its answer goes to the scheduler."""

    def __init__(
        self,
        cluster: Any,
        allocations: Sequence[NodeAllocate],
        files: ClusterFiles,
        callbacks: CallbackThread,
    ) -> None:
        self._cluster = cluster
        self._allocations = allocations
        self._files = files
        self._callbacks = callbacks

    def perform(self, effect: AskAllocation) -> None:
        """Ask about one node."""
        ask = effect.ask
        allocation = self._allocations[ask.spec]
        allocate = allocation.allocate
        raised: list[str] = []

        @functools.wraps(allocate)
        def asking(*args: Any) -> Any:
            try:
                return allocate(*args)
            except BaseException as exc:
                text = textwrap.shorten(str(exc), 200)
                raised.append(f'allocate() raised {type(exc).__name__}: {text}')
                raise

        def answer(value: Any) -> None:
            self._answer(ask, allocation, value, raised)

        info = avail_info(ask.availability)
        args = (self._cluster, ask.address, ask.name, ask.cpus, info, ask.platform)
        self._callbacks.put(asking, args, answer)

    def _answer(
        self, ask: AllocateAsk, allocation: NodeAllocate, value: Any, raised: list[str]
    ) -> None:
        """Say how many cpus are wanted of a node, with what `allocate` has set for that node."""
        cpus, reason = (0, raised[0]) if raised else allocated(value, ask.cpus)
        extras: tuple[bytes, bytes] = b'', b''
        if cpus:
            try:
                extras = self._extras(ask.node, allocation)
            except (UsageError, PicklingFailed) as error:
                cpus, reason = 0, f'its allocation cannot be used: {error}'
        if reason and not raised:  # what it raised was shown already
            words = '%s: node %s (%s) is not used: %s'
            _log.warning(words, self._cluster.name, ask.name, ask.address, reason)
        say: Callable[[int], AllocateAnswer] = lambda computation: AllocateAnswer(  # noqa: E731
            computation, ask.node, cpus, reason, *extras
        )
        self._cluster.say(say)

    def _extras(self, node: str, allocation: NodeAllocate) -> tuple[bytes, bytes]:
        """The arguments of `setup` on this node, and the manifest of its files if it has more."""
        setup_args = dump_setup_args(allocation, self._cluster._travels)
        if not allocation.depends:
            return setup_args, b''
        files = self._files.own.joined(node_files(allocation))
        return setup_args, self._files.assign_to_node(node, files)
