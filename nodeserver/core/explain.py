"""Why jobs wait, in words, from the same records that the scheduler decides by (D12)."""

from nodeserver.core.computation import NOTICE_DELAY, Computation
from nodeserver.core.fleet import NodeRecord, NodeUse, UseState, matches_address, matching_spec
from nodeserver.core.nodenames import NodeNames
from nodeserver.core.recruiting import Recruiting
from nodeserver.core.sharing import Sharing
from nodeserver.core.values import ONE_CPU

KEY_ADVICE = (
    'give both the same key: run `dispy key export` on one machine and the line it prints '
    '(`dispy key import ...`) on the other, or use the same secret on both'
)
NOBODY = (
    'nobody answered: start `dispynode` on each machine that should run jobs; if it runs, '
    'check that it listens on that port, that no firewall drops UDP and TCP to it, and '
    f'that both have the same key ({KEY_ADVICE}); `dispy doctor HOST` says which of these it is'
)

MOST_NAMES = 10  # of nodes of one kind, in one text
_USELESS = (
    UseState.BUSY,
    UseState.FAILED,
    UseState.UNWANTED,
    UseState.DEALLOCATED,
    UseState.DISMISSED,
)


def explain(fleet: Recruiting, comp: Computation, now: float, sharing: Sharing) -> list[str]:
    """Say where a computation stands: its jobs, each node, and what to do if there is none."""
    ready, strangers = fleet.discovery.ready_count(comp), _strangers(fleet, comp)
    if sharing.is_held_back(comp):
        counts = f'{_count(len(comp.waiting), "job")} waiting, {len(comp.jobs)} on nodes'
        return [f'{comp.declared.name}: {counts}', *sharing.lines(comp)]
    lines = [_jobs_line(fleet, comp, ready), *_priority_lines(comp), *sharing.lines(comp)]
    lines += comp.takeover.words(now) if comp.takeover is not None else []
    lines += _pinned_lines(fleet, comp, list(comp.pinned_nodes()), now)
    others = [node for node in fleet.nodes.values() if _is_of_no_element(node, comp)]
    wanted = [node for node in fleet.nodes.values() if not _is_of_no_element(node, comp)]
    lines += [_node_line(node, comp, now) for node in wanted]
    lines += _some([_node_line(node, comp, now) for node in others], 'nodes that match no element')
    lines += fleet.discovery.relays.words()
    keys = [f'{address}: uses another key; {KEY_ADVICE}' for address in strangers]
    lines += _some(keys, 'addresses with another key')
    refusals = [f'{address}: {reason}' for address, reason in fleet.discovery.refusals.items()]
    lines += _some(refusals, 'addresses without a connection')
    lines += fleet.discovery.knocking.words(comp)[:MOST_NAMES]
    if not ready:
        lines += _advice(comp, anybody=bool(fleet.nodes or strangers))
    return lines


def _some(lines: list[str], what: str) -> list[str]:
    """Keep a text readable, however many nodes others have, or strangers pretend to be."""
    more = len(lines) - MOST_NAMES
    return lines if more <= 0 else [*lines[:MOST_NAMES], f'and {more} more {what}']


def _is_of_no_element(node: NodeRecord, comp: Computation) -> bool:
    return comp.id not in node.uses and matching_spec(comp.specs, node) is None


def notice(fleet: Recruiting, comp: Computation, now: float, sharing: Sharing) -> str:
    """What the user should be told without asking; '' if all goes well."""
    if not fleet.discovery.ready_count(comp):
        return '\n  '.join(explain(fleet, comp, now, sharing))
    names, pinned = NodeNames(fleet.nodes), comp.pinned_nodes()
    useless = [name for name in pinned if _is_useless(names.find(name, comp.id), comp)]
    told = comp.takeover.words(now) if comp.takeover is not None else []
    told += sharing.faults(comp)
    told += _pinned_lines(fleet, comp, useless, now) + _slow_lines(fleet, comp, now)[:MOST_NAMES]
    lines = '\n  '.join(told)
    return f'{comp.declared.name}: {lines}' if lines else ''


def _is_useless(node: NodeRecord | None, comp: Computation) -> bool:
    """Whether a job for this node only would wait for something that does not come by itself."""
    use = node.uses.get(comp.id) if node else None
    if node is None or use is None or node.ending or use.state in _USELESS:
        return True
    return use.state is UseState.READY and not node.can_run(comp.id)


def _slow_lines(fleet: Recruiting, comp: Computation, now: float) -> list[str]:
    """Nodes that have been setting up for so long that people wonder."""
    return [
        _node_line(node, comp, now)
        for node in fleet.nodes.values()
        if now - node.opened_at.get(comp.id, now) >= NOTICE_DELAY
    ]


def _strangers(fleet: Recruiting, comp: Computation) -> list[str]:
    """Addresses with another key where this computation looks for nodes and has none."""
    found = {n.address for n in fleet.nodes.values() if n.can_run(comp.id)}
    return [
        address
        for address in fleet.discovery.other_keys
        if address not in found and any(matches_address(s, address) for s in comp.specs)
    ]


def _jobs_line(fleet: Recruiting, comp: Computation, ready: int) -> str:
    waiting, running = len(comp.waiting), len(comp.jobs)
    text = f'{comp.declared.name}: {_count(waiting, "job")} waiting, {running} on nodes'
    if comp.closing:
        return f'{text}; the cluster is closed'
    if not ready:
        coming = sum(1 for node in fleet.nodes.values() if _is_coming(node, comp))
        if coming:
            return f'{text}; {_count(coming, "node")} setting up, none ready yet'
        return f'{text}; no node can be used'
    if comp.has_waiting() and _all_busy(fleet, comp):
        if comp.declared.resources != ONE_CPU:
            return f'{text}; no room for one more on {_count(ready, "usable node")}'
        return f'{text}; all cpus of the {_count(ready, "usable node")} are busy'
    return f'{text}; {_count(ready, "node")} ready'


def _is_coming(node: NodeRecord, comp: Computation) -> bool:
    """Whether a node is about to be used, if all goes well."""
    use = node.uses.get(comp.id)
    return use is not None and use.state in (UseState.ASKING, UseState.OPENING)


def _priority_lines(comp: Computation) -> list[str]:
    """Say which of the jobs that wait go first, if they are not all alike."""
    counts = comp.queue.count_by_priority(comp.waiting) if comp.has_priorities else {}
    if len(counts) < 2:
        return []
    highest = max(counts)
    behind = sum(counts.values()) - counts[highest]
    return [
        f'{_count(counts[highest], "job")} of priority {highest} '
        f'{"goes" if counts[highest] == 1 else "go"} first; {_wait(behind)} behind'
    ]


def _all_busy(fleet: Recruiting, comp: Computation) -> bool:
    ready = (n for n in fleet.nodes.values() if n.can_run(comp.id) and not n.ending)
    return all(_is_full(node, node.uses[comp.id], comp) for node in ready)


def _is_full(node: NodeRecord, use: NodeUse, comp: Computation) -> bool:
    return node.free_for(comp.id) <= 0


def _pinned_lines(fleet: Recruiting, comp: Computation, names: list[str], now: float) -> list[str]:
    """Say of jobs that wait for one node each how it stands with that node."""
    counts = {name: comp.waiting_for(name) for name in names}
    names = [name for name in names if counts[name]]
    lines = [_pinned_line(fleet, comp, name, counts[name], now) for name in names[:MOST_NAMES]]
    others = names[MOST_NAMES:]
    if others:
        rest = sum(counts[name] for name in others)
        lines.append(f'{_wait(rest)} for {_count(len(others), "more node")} that were named')
    return lines


def _pinned_line(fleet: Recruiting, comp: Computation, name: str, count: int, now: float) -> str:
    names = name.split('\n')
    node = fleet.named(name, comp)
    if node is None:  # one that is known but not used by this computation is worth a word
        node = next((n for n in fleet.nodes.values() if n.address in names), None)
    if node is not None:
        return f'{_wait(count)} for node {node.title}: {standing(node, comp, now)}'
    title = f'{names[0]} ({", ".join(names[1:])})' if names[1:] else name
    return f'{_wait(count)} for node {title}, which was not found'


def _wait(jobs: int) -> str:
    return f'{_count(jobs, "job")} {"waits" if jobs == 1 else "wait"}'


def _node_line(node: NodeRecord, comp: Computation, now: float) -> str:
    place = ', which connected to this program' if node.has_called else f' port {node.port}'
    return f'node {node.title}{place}: {standing(node, comp, now)}'


def standing(node: NodeRecord, comp: Computation, now: float) -> str:
    """Say how a node stands with a computation: what it is doing for it, or why it is not used."""
    if node.broken_at is not None and node.details is not None:
        seconds = round(now - node.broken_at)
        return f'its connection broke {seconds} s ago, and is being made anew'
    use = node.uses.get(comp.id)
    if node.ending:
        return f'takes no more jobs: {node.ending}'
    if use is None:
        if node.refusal:
            return node.refusal
        if matching_spec(comp.specs, node) is None:
            return 'found, but it matches no element of `nodes`; `allocate_node()` adds it'
        if comp.declared.collects:
            return 'not used: only what other nodes have of this computation is collected'
        if node.details is not None:
            return 'not used yet: the computation waits for its turn'
        return 'found, connected, waiting for its details' if node.connected else 'connecting'
    match use.state:
        case UseState.READY:
            return _load(node, use, comp)
        case UseState.BUSY:
            return f'busy: {use.reason}; it is used as soon as it is free'
        case UseState.FAILED:
            return f'cannot run this computation: {use.reason}; `resetup_node()` tries again'
        case UseState.UNWANTED:
            return f'not used: {use.reason}; `allocate_node()` asks again'
        case UseState.EMPTY:
            return 'has nothing more of this computation: what it had was collected'
        case UseState.ASKING:
            return 'waiting for the answer of `allocate()`, which runs behind other callbacks'
        case UseState.OPENING:
            seconds = round(now - node.opened_at.get(comp.id, now))
            return f'setting up for {seconds} s: it receives the computation and runs `setup`'
        case _:
            return _leaving(node, use, comp)


def _leaving(node: NodeRecord, use: NodeUse, comp: Computation) -> str:
    """How it stands with a node that is used no more, or not at the moment."""
    load = node.loads.get(comp.id, 0)
    running = f'; {_count(load, "job")} there may end' if load else ''
    afterwards = f', and {use.reason}' if use.reason else ''
    match use.state:
        case UseState.DEALLOCATED:
            return f'takes no new jobs: deallocated{running}; `allocate_node()` uses it again'
        case UseState.DRAINING:
            return f'is being closed{running}{afterwards}'
        case UseState.DISMISSED:
            return f'not used: {use.reason}; `allocate_node()` uses it again'
        case _:
            return f'closing: it ends what is left of this computation{afterwards}'


def _load(node: NodeRecord, use: NodeUse, comp: Computation) -> str:
    own = node.loads.get(comp.id, 0)
    room = node.capacity_for(comp.id)
    load, others = min(own, room), sum(node.loads.values()) - own
    if not room:
        words = node.misfit(comp.id) if use.cpus else 'none of its cpus are to be used'
        running = f'; {_count(own, "job")} there may end' if own else ''
        more = f'; `set_node_cpus()` gives it {"more" if use.cpus else "some"}'
        return f'{words}{running}{more if use.cpus < node.cpus else ""}'
    if comp.id in node.needs:
        text = 'full: ' if _is_full(node, use, comp) else ''
        text += f'{_count(load, "job")} of at most {room} at a time'
    else:
        text = 'all cpus busy: ' if _is_full(node, use, comp) else ''
        text += f'{load} of {_count(use.cpus, "cpu")} in use'
    if others:
        text += f', {_count(others, "job")} of other computations'
    if own > load:
        behind = own - load
        text += f'; {behind} more {"job waits" if behind == 1 else "jobs wait"} there'
        text += ' behind running ones'
    return text


def _advice(comp: Computation, anybody: bool) -> list[str]:
    lines = [f'looked for nodes at: {places(comp)}; asked {_count(comp.pings, "time")}']
    if not anybody:
        lines.append(NOBODY)
    return lines


def places(comp: Computation) -> str:
    """Say where a computation looks for nodes."""
    asked = [f'{s.pattern} (port {s.port})' for s in comp.specs if '*' not in s.pattern]
    if any('*' in s.pattern for s in comp.specs):
        asked.append(f'the local network by broadcast to port {comp.declared.node_port}')
    return ', '.join(asked)


def _count(number: int, thing: str) -> str:
    return f'{number} {thing}' if number == 1 else f'{number} {thing}s'
