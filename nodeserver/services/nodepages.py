"""What a node shows to those who watch it by HTTP (Z16)."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict

from nodeserver.core.nodestatus import NodeFigures
from nodeserver.io.health import Answer, Figure, Page, metrics
from nodeserver.io.procfigures import process_figures


def node_pages(
    name: str, figures: Callable[[], NodeFigures], lines: Callable[[], list[str]]
) -> dict[str, Page]:
    """Make the pages of a node, from what its core says of itself."""
    began_at = time.time()

    def health() -> Answer:
        return Answer('ending\n', 503) if figures().ending else Answer('ok\n')

    def status() -> Answer:
        seen = figures()
        state = 'ending' if seen.ending else 'serving'
        told = {'name': name, 'state': state, 'since': round(began_at, 3), **asdict(seen)}
        return Answer(json.dumps({**told, 'words': lines()}) + '\n', kind='application/json')

    return {
        '/healthz': Page(health),
        '/metrics': Page(lambda: metrics([*_figures(figures()), *process_figures()])),
        '/status': Page(status, is_private=True),
    }


def _figures(seen: NodeFigures) -> list[Figure]:
    cpus = {'used': seen.busy, 'free': max(0, seen.cpus - seen.busy)}
    jobs = {'running': seen.running, 'waiting': seen.waiting}
    return [
        Figure('dispynode_cpus', 'gauge', 'Processors that are offered.', cpus, 'state'),
        Figure('dispynode_jobs', 'gauge', 'Jobs that have not ended.', jobs, 'state'),
        Figure(
            'dispynode_programs',
            'gauge',
            'Programs and schedulers that are connected.',
            {'': seen.programs},
        ),
        Figure(
            'dispynode_kept_computations',
            'gauge',
            'Computations whose outcomes are kept until somebody fetches them.',
            {'': seen.kept},
        ),
    ]
