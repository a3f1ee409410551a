"""What a scheduler has to do, in figures: for its status, and for who watches it."""

from dataclasses import dataclass

from nodeserver.core.listing import NodeList, list_nodes
from nodeserver.core.recruiting import Recruiting


@dataclass(frozen=True, slots=True)
class ComputationRow:
    """One computation; `owner` says whose it is, in words."""

    client: str
    name: str
    owner: str
    waiting: int  # jobs
    running: int  # jobs that are with nodes
    nodes: int  # that can run them
    is_exclusive: bool


@dataclass(frozen=True, slots=True)
class Overview:
    """A scheduler at one moment."""

    computations: tuple[ComputationRow, ...]
    nodes: NodeList

    @property
    def unfinished(self) -> int:
        """How many jobs have not ended."""
        return sum(row.waiting + row.running for row in self.computations)


def overview(fleet: Recruiting, now: float) -> Overview:
    """Count what waits and runs, and list the nodes."""
    rows = tuple(
        ComputationRow(
            comp.client,
            comp.declared.name,
            comp.declared.owner,
            len(comp.waiting),
            len(comp.jobs),
            fleet.discovery.ready_count(comp),
            comp.declared.exclusive,
        )
        for comp in fleet.computations.values()
        if not comp.closing
    )
    return Overview(rows, list_nodes(fleet, now))


def describe(name: str, seen: Overview, clients: int) -> list[str]:
    """Say in words what a scheduler does."""
    programs = '1 program' if clients == 1 else f'{clients} programs'
    lines = [f'{name}: {programs} connected, {len(seen.computations)} computations']
    for row in seen.computations:
        exclusive = ', exclusive' if row.is_exclusive else ''
        lines.append(
            f'computation {row.name} of {row.owner}{exclusive}: {row.running} jobs running, '
            f'{row.waiting} waiting, on {row.nodes} nodes'
        )
    for node in seen.nodes.rows:
        cpus = f'{node.cpus} cpus' if node.cpus is not None else 'not connected'
        used = f', {node.cpus - node.free} in use' if node.cpus and node.free is not None else ''
        words = f': {node.words}' if node.words else ''
        lines.append(f'node {node.name or node.address} ({node.address}): {cpus}{used}{words}')
    return lines
