"""What a shared scheduler shows to those who watch it: by HTTP, at its terminal, as JSON."""

import json
import time
from dataclasses import asdict
from typing import Any

from nodeserver.core.overview import Overview, describe
from nodeserver.io.health import Answer, Figure, Page, metrics
from nodeserver.io.procfigures import process_figures
from nodeserver.services.clientdoor import ClientDoor
from nodeserver.services.scheduler import SchedulerService


class SchedulerPages:
    """The state of one scheduler, in several forms."""

    def __init__(self, name: str, scheduler: SchedulerService, door: ClientDoor) -> None:
        self._name, self._scheduler, self._door = name, scheduler, door
        self._began_at = time.time()
        self.ending = ''  # why it takes no more programs
        self.pages = {
            '/healthz': Page(self._health),
            '/metrics': Page(self._metrics),
            '/status': Page(lambda: Answer(self.as_json(), kind='application/json'), True),
        }

    def in_words(self) -> list[str]:
        """Say what the scheduler does, a line each."""
        rows = self._scheduler.list_nodes().rows
        first, *others = describe(self._scheduler.overview(), rows, len(self._door.addresses))
        ending = [f'takes no more programs: {self.ending}'] if self.ending else []
        return [f'{self._name}: {first}', *ending, *others]

    def as_json(self) -> str:
        """Say the same for programs."""
        seen, rows = self._scheduler.overview(), self._scheduler.list_nodes().rows
        nodes = [
            {'name': r.name, 'address': r.address, 'cpus': r.cpus, 'free': r.free, 'words': r.words}
            for r in rows
        ]
        status: dict[str, Any] = {
            'name': self._name,
            'state': 'ending' if self.ending else 'serving',
            'since': round(self._began_at, 3),
            'clients': len(self._door.addresses),
            'jobs_ended': self._door.ended,
            'clusters': [asdict(row) for row in seen.computations],
            'nodes': nodes,
            'words': self.in_words(),
        }
        return json.dumps(status) + '\n'

    def _health(self) -> Answer:
        if self.ending:
            return Answer('ending\n', 503)
        return Answer('ok\n')

    def _metrics(self) -> Answer:
        figures = _figures(self._scheduler.overview(), len(self._door.addresses), self._door.ended)
        return metrics([*figures, *process_figures()])


def _figures(seen: Overview, clients: int, ended: int) -> list[Figure]:
    jobs = {'waiting': seen.waiting, 'running': seen.running}
    cpus = {'used': seen.cpus_used, 'free': seen.cpus - seen.cpus_used}
    return [
        Figure('dispyscheduler_clients', 'gauge', 'Programs that are connected.', {'': clients}),
        Figure(
            'dispyscheduler_clusters',
            'gauge',
            'Clusters that programs have open.',
            {'': len(seen.computations)},
        ),
        Figure('dispyscheduler_jobs', 'gauge', 'Jobs that have not ended.', jobs, 'state'),
        Figure(
            'dispyscheduler_jobs_ended_total',
            'counter',
            'Jobs whose outcomes went to their programs.',
            {'': ended},
        ),
        Figure('dispyscheduler_nodes', 'gauge', 'Nodes that are connected.', {'': seen.nodes}),
        Figure('dispyscheduler_cpus', 'gauge', 'Processors of these nodes.', cpus, 'state'),
    ]
