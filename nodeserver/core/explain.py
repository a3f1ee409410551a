"""Why jobs wait, in words, from the same records that the scheduler decides by (D12)."""

from nodeserver.core.computation import Computation
from nodeserver.core.fleet import NodeRecord, UseState, matching_spec
from nodeserver.core.recruiting import Recruiting

KEY_ADVICE = (
    'give both the same key: run `dispy key export` on one machine and the line it prints '
    '(`dispy key import ...`) on the other, or use the same secret on both'
)


def explain(fleet: Recruiting, comp: Computation, now: float) -> list[str]:
    """Say where a computation stands: its jobs, each node, and what to do if there is none."""
    ready = fleet.ready_count(comp)
    lines = [_jobs_line(comp, ready)]
    lines += [_node_line(node, comp) for node in fleet.nodes.values()]
    lines += [f'{address}: uses another key; {KEY_ADVICE}' for address in fleet.other_keys]
    lines += [f'{address}: {reason}' for address, reason in fleet.refusals.items()]
    if not ready:
        lines += _advice(fleet, comp)
    return lines


def _jobs_line(comp: Computation, ready: int) -> str:
    waiting, running = len(comp.waiting), len(comp.jobs)
    text = f'{comp.declared.name}: {_count(waiting, "job")} waiting, {running} on nodes'
    if comp.closing:
        return f'{text}; the cluster is closed'
    if not ready:
        return f'{text}; no node can be used'
    if waiting:
        return f'{text}; all cpus of the {_count(ready, "usable node")} are busy'
    return f'{text}; {_count(ready, "node")} ready'


def _node_line(node: NodeRecord, comp: Computation) -> str:
    return f'node {node.title} port {node.port}: {_standing(node, comp)}'


def _standing(node: NodeRecord, comp: Computation) -> str:
    use = node.uses.get(comp.id)
    if node.ending:
        return f'takes no more jobs: {node.ending}'
    if use is None:
        if node.refusal:
            return node.refusal
        if matching_spec(comp.declared.specs, node) is None:
            return 'found, but it matches no element of `nodes`'
        return 'found, connected, waiting for its details' if node.connected else 'connecting'
    match use.state:
        case UseState.READY:
            load = min(use.load, use.cpus)
            rest = f'; {_count(use.load - load, "job")} more at hand' if use.load > load else ''
            busy = 'all cpus busy: ' if load == use.cpus else ''
            return f'{busy}{load} of {_count(use.cpus, "cpu")} in use{rest}'
        case UseState.BUSY:
            return f'busy: {use.reason}; it is used as soon as it is free'
        case UseState.FAILED:
            return f'cannot run this computation: {use.reason}'
        case UseState.UNWANTED:
            return f'not used: {use.reason}'
        case UseState.ASKING:
            return 'waiting for the answer of `allocate()`'
        case UseState.OPENING:
            return 'receiving the computation'
        case _:
            return 'closing'


def _advice(fleet: Recruiting, comp: Computation) -> list[str]:
    specs = comp.declared.specs
    asked = [f'{s.pattern} (port {s.port})' for s in specs if '*' not in s.pattern]
    if any('*' in s.pattern for s in specs):
        asked.append(f'the local network by broadcast to port {comp.declared.node_port}')
    lines = [f'looked for nodes at: {", ".join(asked)}; asked {_count(comp.pings, "time")}']
    if not fleet.nodes and not fleet.other_keys:
        lines.append(
            'nobody answered: start `dispynode` on each machine that should run jobs; if it runs, '
            'check that it listens on that port, that no firewall drops UDP and TCP to it, and '
            f'that both have the same key ({KEY_ADVICE})'
        )
    return lines


def _count(number: int, thing: str) -> str:
    return f'{number} {thing}' if number == 1 else f'{number} {thing}s'
