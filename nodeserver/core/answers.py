"""What nodes answer of the jobs that they were given, and what of it is believed (D4)."""

from collections.abc import Callable
from itertools import compress

from nodeserver.core.computation import Computation
from nodeserver.core.fleet import NodeRecord
from nodeserver.core.letters import acknowledgement, part_of
from nodeserver.core.messages import ComputationRefused, JobsDone, JobsReturned
from nodeserver.core.parts import Parts
from nodeserver.core.retries import split
from nodeserver.core.status import JobStatus


class Answers:
    """Takes in letters, and jobs that come back."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._computations = parts.fleet.computations
        self._dispatch = parts.dispatch
        # whether an answer was under way before a handover, of which it is part once more
        self.comes_again: Callable[[NodeRecord, Computation, JobsDone | JobsReturned], bool]
        # whether a computation that is not here may come back: its nodes keep what they have
        self.may_return: Callable[[int], bool]

    def done(self, node: NodeRecord, message: JobsDone, now: float) -> None:
        """Jobs have ended: pass on what is told of current attempts."""
        comp = self._computations.get(message.computation)
        if comp is None or comp.closing:
            if not self.may_return(message.computation):
                self._parts.send(node.id, acknowledgement(message))
            return
        if comp.takeover is not None and self.comes_again(node, comp, message):
            return
        current = comp.are_current(message.ids, message.attempts, node.id)
        if False in current:
            self._pass_again(node, comp, message, current)
            if comp.undelivered.believed_in(node.id, message.letter) and not any(current):
                return
            message = part_of(message, current)
        if not message.ids:
            self._parts.send(node.id, acknowledgement(message))
            return
        self._dispatch.ended(node, comp, len(message.ids))
        comp.pace.learn(message.seconds)
        if comp.has_retries:
            message, retried = split(comp, message)
            if retried is not None:
                self._parts.records.note(comp, '', retried.ids)
                self._dispatch.enlist(comp)
                self._parts.send(comp.client, retried)
        comp.settle(message.ids)
        if message.ids:
            if False in current:
                comp.undelivered.believe_more(node.id, message)
            else:
                comp.undelivered.letters[node.id, message.letter] = message.ids, message.attempts
            self._parts.send(comp.client, message)
            if comp.takeover is not None:
                comp.takeover.settled.update(message.ids)
        else:
            self._parts.send(node.id, acknowledgement(message))

    def _pass_again(
        self, node: NodeRecord, comp: Computation, message: JobsDone, current: list[bool]
    ) -> None:
        """Pass on what was believed of a letter before: its client may not have got it."""
        believed = set(comp.undelivered.believed_in(node.id, message.letter))
        if believed:
            rows = zip(message.ids, current, strict=True)
            keep = [job in believed and not is_current for job, is_current in rows]
            if any(keep):
                again = part_of(message, keep)
                self._parts.send(comp.client, again)
                if comp.takeover is not None:
                    comp.takeover.settled.update(again.ids)

    def returned(self, node: NodeRecord, message: JobsReturned, now: float) -> None:
        """A node gives back what it has not begun."""
        comp = self._computations.get(message.computation)
        if comp is None or comp.closing:
            self._dispatch.recalls.returned(node, message.computation, of_use=True)
            return
        if comp.takeover is not None and self.comes_again(node, comp, message):
            return
        current = comp.are_current(message.ids, message.attempts, node.id)
        ids = list(compress(message.ids, current))
        of_use = not all(map(comp.is_pinned, ids))
        self._dispatch.recalls.returned(node, comp.id, of_use)
        self._dispatch.unload(node, comp, len(ids))
        self._parts.endings.requeue(comp, ids, message.reason)
        self._parts.steering.returned(node, comp)

    def refused(self, node: NodeRecord, message: ComputationRefused, now: float) -> None:
        """A node cannot run a computation, or cannot any more."""
        parts = self._parts
        comp = self._computations.get(message.computation)
        if comp is not None and message.kind == 'over':
            reason = f'node {node.title}: {message.reason}'
            parts.endings.give_up(node, comp, reason, JobStatus.TERMINATED)
        elif comp is not None:
            parts.endings.give_up(node, comp, f'node {node.title} failed: {message.reason}')
        if comp is not None:
            parts.files.node_gone(node, comp, message.reason)
        parts.fleet.node_refused(node, message, now)
