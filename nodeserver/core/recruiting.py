"""How nodes that were found come into use: matched, asked, opened; and how they go.

    PeerConnected ──▶ NodeDetails ──▶ (AllocateAsk ──▶ AllocateAnswer)
                  ──▶ OpenComputation ──▶ ComputationReady

Each computation walks this way with each node on its own; `NodeUse.state` says how far it came.
"""

from collections.abc import Callable

from nodeserver.core import levels
from nodeserver.core.asking import allocate_ask, is_to_be_asked
from nodeserver.core.computation import NOTICE_DELAY, Computation
from nodeserver.core.demands import misfit
from nodeserver.core.discovery import Discovery
from nodeserver.core.effects import Effect, Send
from nodeserver.core.fleet import IN_USE, NodeRecord, UseState, cpus_of, matching_spec, use_in
from nodeserver.core.fleetmessages import LimitCpus
from nodeserver.core.messages import (
    AllocateAnswer,
    CloseComputation,
    ComputationReady,
    ComputationRefused,
    NodeChanged,
    NodeDetails,
    NodeEnding,
    NodeFree,
    NodeNotice,
    NodePaused,
    NodePulse,
    Notice,
    OpenComputation,
)
from nodeserver.core.nodenames import NodeNames
from nodeserver.core.records import Records
from nodeserver.core.status import NodeStatus
from nodeserver.core.takeover import Takeover
from nodeserver.core.values import ONE_CPU

COLLECTING = 'only what it has of it is asked for'
_UNWANTED = 'allocate() returned 0 for it'
MOST_REMARKS = 100  # of all nodes, on one computation
# the computation has so many cpus there, or will have
_SIZED = (*IN_USE, UseState.OPENING, UseState.BUSY)


class Recruiting:
    """The fleet, and the computations that use it."""

    def __init__(
        self,
        emit: Callable[[Effect], None],
        use_changed: Callable[[NodeRecord], None],
        is_tls: bool = False,
    ) -> None:
        self.nodes: dict[str, NodeRecord] = {}
        self.computations: dict[int, Computation] = {}
        self.records = Records(self.computations, emit)
        self.number_of: Callable[[str], int] = lambda client: 0  # what nodes know a client by
        self.held_back: dict[int, Computation] = {}  # those of them that may not start yet
        self.discovery = Discovery(self.nodes, self.computations, emit)
        self.discovery.is_tls = is_tls
        self._emit = emit
        self._use_changed = use_changed
        self.is_shared = False  # it claims nodes for clients, and not for a program of its own

    def named(self, name: str, comp: Computation) -> NodeRecord | None:
        """The node with this id, or one of these lines as address or name, used by this one."""
        return NodeNames(self.nodes).find(name, comp.id)

    # from connection to use

    def details(self, node: NodeRecord, message: NodeDetails, now: float) -> None:
        """A node told about itself: offer it to each computation that has not met it."""
        before, node.details, node.cpus = node.cpus, message, max(1, message.cpus)
        node.availability = message.availability
        for comp in list(self.computations.values()):
            if comp.id not in node.uses:
                self.offer(node, comp, now)
            elif node.cpus != before:
                self._resize(node, comp, now)
        self._use_changed(node)

    def _resize(self, node: NodeRecord, comp: Computation, now: float) -> None:
        """A node that a computation has met offers other cpus than before."""
        use = node.uses[comp.id]
        if use.state is UseState.UNWANTED and node.wishes.get(comp.id) != 0:  # it was too small
            node.leave(comp.id)
            self.offer(node, comp, now)
        elif use.state in _SIZED:
            cpus = node.share_of(comp.id, comp.specs)
            self.set_use(node, comp, use.state, cpus, use.reason)
            self._emit(Send(node.id, LimitCpus(comp.id, cpus)))
            if use.state in IN_USE:
                self.tell(node, comp, NodeStatus.AVAIL_INFO, '')

    def pulse(self, node: NodeRecord, message: NodePulse, now: float) -> None:
        """The node lives; its clients learn what it has to spare."""
        node.availability = message.availability
        is_pulse, node.owes_pulse = node.owes_pulse, False
        for computation, use in node.uses.items():
            comp = self.computations[computation]
            if use.state not in IN_USE:
                continue
            if is_pulse and comp.is_told_figures:
                self.tell(node, comp, NodeStatus.AVAIL_INFO, '')
            elif comp.watched_until > now:
                self.tell(node, comp, NodeStatus.FIGURES, '')

    def declare(self, comp: Computation, now: float) -> None:
        """A computation starts: offer it the nodes that are known, and look for others."""
        self.computations[comp.id] = comp
        for node in list(self.nodes.values()):
            if node.details and comp.id not in node.uses:
                self.offer(node, comp, now)
        self.discovery.look(comp, now)

    def offer(self, node: NodeRecord, comp: Computation, now: float) -> None:
        """Match a node against `nodes`; open the computation there, or ask the client first."""
        if node.details is None:
            return
        resumes = self._is_to_resume(node, comp)
        if comp.closing:
            if resumes:
                self._have_dropped(node, comp, now)
            return
        is_gathering = comp.takeover is not None and comp.takeover.is_gathering
        if is_gathering:
            return  # what it said of jobs would not be understood yet
        if comp.id in self.held_back and not resumes:
            return
        if comp.declared.collects and not resumes:
            return
        if node.id in comp.dismissed and not resumes:  # it was lost meanwhile, and is back
            node.uses[comp.id] = use_in(UseState.DISMISSED, 0, comp.dismissed[node.id])
            return
        index = matching_spec(comp.specs, node)
        if resumes:
            self._open(node, comp, node.share_of(comp.id, comp.specs), now)
        elif index is not None and comp.specs[index].asks_client:
            node.uses[comp.id] = use_in(UseState.ASKING, 0)
            self.ask(node, comp)
        elif index is not None:
            self._open(node, comp, cpus_of(comp.specs[index], node.details.cpus), now)

    def ask(self, node: NodeRecord, comp: Computation) -> None:
        """Have the client say how much of a node it wants."""
        ask = allocate_ask(node, comp)
        if ask is not None:
            self._emit(Send(comp.client, ask))

    def _is_to_resume(self, node: NodeRecord, comp: Computation) -> bool:
        """Whether a node may have jobs of a computation, or outcomes that its client lacks."""
        if comp.takeover is not None and comp.takeover.is_known(node):
            return True
        return self.is_shared and comp.undelivered.may_be_at(node, comp.nodes)

    def _have_dropped(self, node: NodeRecord, comp: Computation, now: float) -> None:
        """A node has come too late: what it keeps of a computation is not wanted any more."""
        self._open(node, comp, 1, now)
        if comp.takeover is not None:
            comp.takeover.handovers.pop(node.id, None)
            for name in comp.takeover.names_of(node):
                comp.takeover.forget(name)
            comp.takeover = None if comp.takeover.is_over else comp.takeover
        if comp.id in node.uses:
            self.close_on(node, comp)

    def answered(self, message: AllocateAnswer, now: float) -> None:
        """The client's `allocate` said how many cpus it wants of a node."""
        node = self.nodes.get(message.node)
        comp = self.computations.get(message.computation)
        use = node.uses.get(message.computation) if node else None
        if node is None or comp is None or use is None:
            return
        if use.state is UseState.READY:
            self._answered_again(node, comp, message)
        elif use.state is not UseState.ASKING:
            return
        elif message.cpus <= 0:
            reason = message.reason or _UNWANTED
            node.wishes[comp.id] = 0
            node.uses[comp.id] = use_in(UseState.UNWANTED, use.cpus, reason)
        else:
            if message.setup_args:
                node.setup_args[comp.id] = message.setup_args
            if message.manifest:
                node.manifests[comp.id] = message.manifest
            if message.cpus < node.cpus:  # else it wants all, however many they are
                node.wishes[comp.id] = message.cpus
            self._open(node, comp, min(message.cpus, node.cpus), now)

    def _answered_again(self, node: NodeRecord, comp: Computation, message: AllocateAnswer) -> None:
        """The client has said how many cpus it wants of a node that was in use before."""
        cpus = max(1, min(message.cpus, node.cpus))
        if message.cpus < node.cpus:
            node.wishes[comp.id] = message.cpus
        if message.cpus <= 0:  # what runs there ends
            comp.dismissed[node.id] = message.reason or _UNWANTED
        state = UseState.READY if message.cpus > 0 else UseState.DEALLOCATED
        self.set_use(node, comp, state, cpus)
        self._emit(Send(node.id, LimitCpus(comp.id, cpus)))

    def _open(self, node: NodeRecord, comp: Computation, cpus: int, now: float) -> None:
        resumes = self._is_to_resume(node, comp)
        if resumes:
            cpus = max(1, cpus)  # what is there is wanted however few are to be used
        if cpus <= 0:
            reason = f'all of its {node.cpus} cpus are to be left free'
            node.uses[comp.id] = use_in(UseState.UNWANTED, 0, reason)
            return
        if not self._fits(node, comp, cpus) and not resumes:
            return
        # where its client is asked how much it wants, only what is there is taken before
        is_asked = is_to_be_asked(node, comp)
        if resumes and is_asked and comp.id not in node.wishes:
            cpus = 1  # until it has answered
        collects = comp.closing or comp.declared.collects or comp.id in self.held_back
        is_wanted = matching_spec(comp.specs, node) is not None and node.id not in comp.dismissed
        collects = resumes and (collects or not is_wanted or is_asked)
        if resumes:
            comp.takeover = comp.takeover or Takeover()
            comp.takeover.asked(node)
        self.records.node(comp, node.as_known())
        node.shared.pop(comp.id, None)  # what it had of them it has forgotten
        node.uses[comp.id] = use_in(UseState.OPENING, cpus, COLLECTING if collects else '')
        node.opened_at[comp.id] = now
        comp.notice_at = min(comp.notice_at, now + NOTICE_DELAY)
        declared = comp.declared
        message = OpenComputation(
            declared.computation,
            declared.name,
            declared.owner,
            declared.python,
            declared.package,
            declared.isolation,
            declared.dest_path,
            declared.cleanup,
            declared.pulse_interval,
            cpus,
            manifest=node.manifests.get(comp.id, declared.manifest),
            setup_args=node.setup_args.get(comp.id, b''),
            resources=declared.resources,
            token=declared.token,
            epoch=declared.epoch,
            resumes=resumes,
            collects=collects,
            yields=resumes and not self.is_shared,
            client=self.number_of(comp.client),
        )
        self._emit(Send(node.id, message))

    def _fits(self, node: NodeRecord, comp: Computation, cpus: int) -> bool:
        """Whether a node can ever run a job; what more than a cpu that needs is noted."""
        needs, details = comp.declared.resources, node.details
        if needs == ONE_CPU or details is None:
            return True
        node.needs[comp.id] = needs
        words = misfit(needs, cpus, details.memory, details.gpus)
        if words:
            node.uses[comp.id] = use_in(UseState.UNWANTED, cpus, words)
        return not words

    def ready(self, node: NodeRecord, message: ComputationReady) -> None:
        """The node can run this computation's jobs."""
        use = node.uses.get(message.computation)
        if use is not None and use.state is UseState.OPENING:
            comp = self.computations[message.computation]
            node.opened_at.pop(comp.id, None)
            state = UseState.DEALLOCATED if node.id in comp.dismissed else UseState.READY
            self.set_use(node, comp, state, use.cpus)
            self.tell(node, comp, NodeStatus.INITIALIZED, '')
            if use.reason == COLLECTING and is_to_be_asked(node, comp):
                self.ask(node, comp)
            self._pass_on(node, comp, message.remarks)

    def _pass_on(self, node: NodeRecord, comp: Computation, remarks: str) -> None:
        """Tell the user what the node has to remark, but nothing that another one has said."""
        for remark in remarks.splitlines():
            if remark not in comp.remarks and len(comp.remarks) < MOST_REMARKS:
                comp.remarks.add(remark)
                text = f'{comp.declared.name}: at node {node.title}, {remark}'
                self._emit(Send(comp.client, Notice(comp.id, levels.WARNING, text)))

    def node_refused(self, node: NodeRecord, message: ComputationRefused, now: float) -> None:
        """The node is held by somebody else, or cannot run this computation."""
        use = node.uses.get(message.computation)
        comp = self.computations.get(message.computation)
        if use is None or comp is None or use.state is UseState.CLOSING:
            return
        if message.kind == 'empty' and use.reason == COLLECTING:
            self._collected(node, comp, now)
            return
        was_ready = use.state in IN_USE
        state = UseState.FAILED if message.kind == 'failed' else UseState.BUSY
        node.uses[comp.id] = use_in(state, use.cpus, message.reason)
        node.opened_at.pop(comp.id, None)
        if state is UseState.FAILED:
            text = f'node {node.title} cannot run {comp.declared.name}: {message.reason}'
            self._emit(Send(comp.client, Notice(comp.id, levels.WARNING, text)))
        if was_ready:
            self._use_changed(node)
            self.tell(node, comp, NodeStatus.CLOSED, message.reason)
            comp.ping_at = min(comp.ping_at, now + 1.0)

    def _collected(self, node: NodeRecord, comp: Computation, now: float) -> None:
        """A node has handed over all that it had: it is used as any other, or not."""
        node.opened_at.pop(comp.id, None)
        if comp.declared.collects or comp.closing:
            cpus = node.uses[comp.id].cpus
            node.uses[comp.id] = use_in(UseState.EMPTY, cpus)
        else:
            node.leave(comp.id)
            self.offer(node, comp, now)

    def node_free(self, node: NodeRecord, message: NodeFree, now: float) -> None:
        """A node that was held by somebody else can be asked again."""
        for computation, use in list(node.uses.items()):
            if use.state is UseState.BUSY:
                self._open(node, self.computations[computation], use.cpus, now)

    def noted(self, node: NodeRecord, message: NodeNotice, now: float) -> None:
        """Pass on what a node has to tell of a computation, also of its end."""
        comp = self.computations.get(message.computation)
        if comp is not None and comp.id in node.uses:
            text = f'{comp.declared.name} on node {node.title}: {message.text}'
            self._emit(Send(comp.client, Notice(comp.id, message.level, text)))

    # leaving

    def ending(self, node: NodeRecord, message: NodeEnding | NodePaused, now: float) -> None:
        """The node takes no more jobs, and others are looked for; or it takes them again."""
        node.ending = message.reason
        self._use_changed(node)
        for computation in node.uses:
            comp = self.computations[computation]
            comp.ping_at = min(comp.ping_at, now + 1.0)

    def close(self, comp: Computation) -> bool:
        """Have every node forget a computation; True when none has anything of it."""
        comp.closing = True
        self.discovery.knocking.unwanted()
        for node in self.nodes.values():
            use = node.uses.get(comp.id)
            if use is None:
                continue
            if use.state in (UseState.ASKING, UseState.UNWANTED, UseState.DISMISSED):
                node.leave(comp.id)
            elif use.state is not UseState.CLOSING:
                self.close_on(node, comp)
        return self.is_unused(comp)

    def close_on(self, node: NodeRecord, comp: Computation, again: bool = False) -> None:
        """Have a node forget a computation, which may be opened there again."""
        use = node.uses[comp.id]
        self.set_use(node, comp, UseState.CLOSING, use.cpus, use.reason)
        # a node may take another program for its holder yet, which is gone
        token = comp.declared.token if comp.closing and not comp.keeps else b''
        message = CloseComputation(comp.id, again, token=token, epoch=comp.declared.epoch)
        self._emit(Send(node.id, message))

    def set_use(
        self, node: NodeRecord, comp: Computation, state: UseState, cpus: int, reason: str = ''
    ) -> None:
        """Note how a node stands with a computation, where jobs may run or might have run."""
        node.uses[comp.id] = use_in(state, cpus, reason)
        node.is_capped = node.is_capped or cpus < node.cpus or comp.id in node.needs
        self._use_changed(node)

    def is_unused(self, comp: Computation) -> bool:
        """Whether no node has anything of this computation."""
        return not any(comp.id in node.uses for node in self.nodes.values())

    def tell(self, node: NodeRecord, comp: Computation, status: NodeStatus, reason: str) -> None:
        """Let the client know of a change of a node it uses."""
        details, use = node.details, node.uses.get(comp.id)
        change = NodeChanged(
            comp.id,
            int(status),
            node.id,
            node.address,
            details.name if details else '',
            use.cpus if use else 0,
            details.platform if details else '',
            node.availability,
            reason,
            node.asked_port or node.port,
            node.cpus,
            details.memory if details else 0,
        )
        self._emit(Send(comp.client, change))
