"""How soon a cut link is noticed, and used again: `python -m benchmarks.healing` (root, Linux).

A client and a node on two hosts of a test network; jobs of 50 ms follow each other.  The node is
taken off the network for some seconds without anybody being told, and put back.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from tests.support import netns
from tests.support.machines import Machine, machines
from tests.support.programs import Program, eventually

CUTS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0)
SETTLING = 3.0  # seconds of undisturbed work between the cuts

CLIENT = """
import json, sys, time
import dispy_nb as dispy

def compute(number):
    import time
    time.sleep(0.05)
    return number

def tell(**what):
    print(json.dumps({'at': time.monotonic(), **what}), flush=True)

with dispy.JobCluster(compute, [sys.argv[1]], progress=False) as cluster:
    number, is_broken = 0, False
    while True:
        job = cluster.submit(number)
        while not job.wait(0.02):
            broken = 'connection broke' in cluster.explain()
            if broken != is_broken:
                is_broken = broken
                tell(broken=broken)
        is_broken = False
        tell(result=job.result, status=job.status.name)
        number += 1
"""


def main() -> None:
    """Cut, heal and measure, and print a line for each length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--cuts', type=float, nargs='*', default=CUTS, help='seconds')
    parser.add_argument('--rounds', type=int, default=3)
    arguments = parser.parse_args()
    print('| cut s | noticed after s | next result after healing s | jobs lost or twice |')
    print('| --- | --- | --- | --- |')
    network: Any = netns
    with network.Lan(2) as lan, machines(*lan) as (here, there), ExitStack() as stack:
        stack.enter_context(there.node('-c', 1))
        client = stack.enter_context(_client(here, there))
        for seconds in arguments.cuts:
            rounds = [_round(client, there, seconds) for _ in range(arguments.rounds)]
            noticed = [f'{first:.1f}' for first, _, _ in rounds if first is not None]
            healed = [f'{second:.2f}' for _, second, _ in rounds]
            wrong = sum(third for _, _, third in rounds)
            print(f'| {seconds:g} | {", ".join(noticed) or "-"} | {", ".join(healed)} | {wrong} |')
            sys.stdout.flush()


def _client(here: Machine, there: Machine) -> Program:
    script = here.home / 'client.py'
    script.write_text(CLIENT, encoding='utf-8')
    command = [*here.within, sys.executable, str(script), there.ip]
    program = Program(command, here.env)
    eventually(lambda: '"result": 20' in program.output(), 30, program.log)
    return program


def _round(client: Program, there: Machine, seconds: float) -> tuple[float | None, float, int]:
    """When a cut was noticed, how long after its end work went on, and what went wrong."""
    time.sleep(SETTLING)
    before = len(list(_told(client)))
    host: Any = there.host
    began = time.monotonic()
    host.cut()
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    host.heal()
    healed = time.monotonic()

    def after_healing() -> list[dict[str, object]]:
        lines = list(_told(client))[before:]
        return [line for line in lines if 'result' in line and float(str(line['at'])) > healed]

    next_one = float(str(eventually(after_healing, 60, client.log)[0]['at']))
    told = list(_told(client))[before:]
    noticed = [float(str(line['at'])) - began for line in told if line.get('broken')]
    return (noticed[0] if noticed else None), next_one - healed, _wrong(client)


def _told(client: Program) -> Iterator[dict[str, object]]:
    for line in client.output().splitlines():
        if line.endswith('}'):
            yield json.loads(line)


def _wrong(client: Program) -> int:
    """How many results are missing, come twice, or are none."""
    results = [line for line in _told(client) if 'result' in line]
    right = [line['result'] == number for number, line in enumerate(results)]
    return len(right) - sum(right)


if __name__ == '__main__':
    main()
