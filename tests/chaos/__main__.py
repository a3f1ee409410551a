"""Run the chaos and say how it went: `python -m tests.chaos --faults 1000 --seed 7`."""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos import clientprogram_path
from tests.chaos.ledger import faults_in, summary
from tests.chaos.members import ClientMember, Member, SchedulerMember, python
from tests.support.machines import Machine, machines
from tests.support.netns import Lan

NODES = 3  # of the scheduler
OWN_NODES = 2  # of the cluster that has its own scheduler
CPUS = 2
CLIENTS = ('shared', 'shared+reentrant', 'embedded', 'embedded+reentrant')
CALM = 240.0  # seconds after the last fault within which all must have ended
FORGETTING = 20.0  # seconds within which nothing is kept any more
FAULTS = ('kill', 'kill', 'restart', 'freeze', 'cut')


class Chaos:
    """The members of a run, and what is done to them."""

    def __init__(self, hosts: list[Machine], directory: Path, rng: random.Random) -> None:
        self._rng = rng
        self._ledger = directory / 'ledger'
        self._logs = directory / 'logs'
        self._ledger.mkdir(mode=0o700)
        self._logs.mkdir(mode=0o700)
        self._hosts = hosts
        self.faults: dict[str, int] = {}

    def gather(self, jobs: int) -> None:
        """Start a scheduler, nodes and clients."""
        first, other, *rest = self._hosts
        nodes, own = rest[:NODES], rest[NODES : NODES + 2 * OWN_NODES]
        self.kinds: dict[str, str] = {}
        words = python('nodeserver.cli.dispyscheduler', '--pulse_interval', 1, '--dest_path_prefix')
        words += [first.home / 'state', *(w for node in nodes for w in ('--nodes', node.ip))]
        self.members: list[Member] = [
            SchedulerMember('scheduler', (first, other), words, self._logs)
        ]
        for number, machine in enumerate([*nodes, *own]):
            words = python('nodeserver.cli.dispynode', '--cpus', CPUS, '--dest_path_prefix')
            words += [machine.home / 'node']
            self.members.append(Member(f'node{number}', machine, words, self._logs))
        self.clients = []
        for number, kind in enumerate(CLIENTS):
            machine = rest[NODES + 2 * OWN_NODES + number]
            name = f'client{number}'
            half = own[:OWN_NODES] if kind == 'embedded' else own[OWN_NODES:]
            places = [first.ip] if kind.startswith('shared') else [each.ip for each in half]
            script = [sys.executable, clientprogram_path(), self._ledger, name, kind, jobs, *places]
            self.kinds[name] = kind
            self.clients.append(ClientMember(name, machine, script, self._ledger, self._logs))
        self.members += self.clients
        for member in self.members:
            member.start()

    def break_one(self) -> None:
        """Do something to a member that is well."""
        well = [member for member in self.members if member.is_well]
        if well:
            fault = self._rng.choice(FAULTS)
            getattr(self._rng.choice(well), fault)(self._rng)
            self.faults[fault] = self.faults.get(fault, 0) + 1

    def watch(self, seconds: float) -> None:
        """Let some time pass."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for member in self.members:
                member.watch()
            time.sleep(0.05)

    def calm_down(self) -> None:
        """Mend everything, and wait until the clients have ended."""
        for member in self.members:
            member.mend()
        end = time.monotonic() + CALM
        while time.monotonic() < end and not all(client.is_done for client in self.clients):
            self.watch(0.5)

    def verdict(self) -> list[str]:
        """What is not as promised, once everything was asked to end."""
        found: list[str] = []
        for name, kind in self.kinds.items():
            found += faults_in(self._ledger, name, reentrant=kind.endswith('+reentrant'))
            print(summary(self._ledger, name), flush=True)
        found += self._kept()
        for member in reversed(self.members):
            member.stop()
            found += member.failures
        found += self._left()
        return found

    def _kept(self) -> list[str]:
        """What nodes and clients have on their disks, now that every job is settled: nothing."""
        deadline = time.monotonic() + FORGETTING
        while (kept := self._files_kept()) and time.monotonic() < deadline:
            self.watch(0.2)
        return [f'kept: {path}' for path in kept]

    def _files_kept(self) -> list[Path]:
        homes = [machine.home for machine in self._hosts]
        patterns = ('node/.dispynode-kept/outcomes', '_dispy_*', '.local/state/dispy-nb/*/_dispy_*')
        return [path for home in homes for pattern in patterns for path in home.glob(pattern)]

    def _left(self) -> list[str]:
        """Processes that are left on the hosts: none may be."""
        deadline = time.monotonic() + 10
        while (left := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return [f'left: {words}' for words in left]

    def _processes(self) -> list[str]:
        homes = [str(machine.home) for machine in self._hosts]
        found = []
        for entry in Path('/proc').iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                words = (entry / 'environ').read_bytes().decode(errors='replace')
                if any(f'HOME={home}\0' in words for home in homes):
                    found.append((entry / 'cmdline').read_bytes().replace(b'\0', b' ').decode())
            except OSError:
                continue
        return [words for words in found if words]

    def tell(self) -> None:
        """Show the end of each log."""
        for member in self.members:
            print(member.last_words())


def main() -> int:
    """Run until it is enough; 0 if all was as promised."""
    options = _options()
    seed = options.seed or int.from_bytes(os.urandom(4), 'big')
    print(f'chaos of {options.faults} faults from seed {seed}', flush=True)
    directory = Path(tempfile.mkdtemp(prefix='chaos'))
    count = 2 + NODES + 2 * OWN_NODES + len(CLIENTS)
    lans = Lan(count)  # type: ignore[no-untyped-call]
    with lans as lan, machines(*lan) as hosts:
        chaos = Chaos(hosts, directory, random.Random(seed))
        began = time.monotonic()
        chaos.gather(options.jobs or options.faults * 4)
        chaos.watch(5.0)
        for _ in range(options.faults):
            chaos.break_one()
            chaos.watch(options.pause)
        chaos.calm_down()
        found = chaos.verdict()
        if found:
            chaos.tell()
        for line in found[:50]:
            print(line)
        told = ', '.join(f'{count} {fault}' for fault, count in sorted(chaos.faults.items()))
        print(f'{time.monotonic() - began:.0f} s; {told}; {len(found)} broken promises')
    if found:
        print(f'logs and ledger: {directory}')
        return 1
    shutil.rmtree(directory)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m tests.chaos', description=__doc__)
    parser.add_argument('--faults', type=int, default=1000, help='how many things are broken')
    parser.add_argument('--pause', type=float, default=1.0, help='seconds between two of them')
    parser.add_argument('--jobs', type=int, default=0, help='of each client; 4 for each fault')
    parser.add_argument('--seed', type=int, default=0, help='of the choice of faults; a fresh one')
    return parser.parse_args()


if __name__ == '__main__':
    sys.exit(main())
