"""What the facts of a place mean where a program should listen for nodes: pure.

That is where nodes with `--scheduler_node` connect to: TCP alone, and a node is expected.
"""

from typing import Final

from dispy_nb.doctor.facts import NodeFacts
from dispy_nb.doctor.findings import Fault, Finding, Level, fine
from dispy_nb.doctor.judgelocal import open_port
from nodeserver.core.diagnosis import Reach

TAKES_NODES: Final = 'takes connections of a node'


def is_program(facts: NodeFacts) -> bool:
    """Whether a program, and not a node, is or should be there."""
    if facts.link is not None and TAKES_NODES in facts.link.refusal:
        return True
    is_foreign = bool(facts.tcp.words) and not facts.tcp.is_zeromq
    return facts.port == facts.client_port and not facts.udp.port and not is_foreign


def judge_program(facts: NodeFacts, place: str) -> Finding:
    """Judge whether a node could connect to a program there; the key is judged elsewhere."""
    check = f'TCP port {facts.tcp.port} for nodes'
    if facts.tcp.reach is Reach.OPEN:
        return fine(check, 'open', place)
    if facts.tcp.reach is Reach.REFUSED:
        words = 'no program listens there now'
        advice = (
            'a node with --scheduler_node goes on trying: start the program; if it runs, give '
            'the port that it said it has taken, or a port= of its own'
        )
        return Finding(check, Level.PROBLEM, Fault.REACH, words, advice, place)
    is_there = facts.neighbour is True
    if facts.neighbour is False or (facts.tcp.reach is Reach.UNREACHABLE and not is_there):
        advice = 'check that it is switched on and connected, and what its address is'
        words = 'no machine answers for this address'
        return Finding('machine', Level.PROBLEM, Fault.REACH, words, advice, place)
    words = 'nothing comes back: a firewall there' + ('' if is_there else ' or between')
    words += ' drops it' if is_there else ' drops it, or the machine is off'
    fault = Fault.FIREWALL if is_there else Fault.REACH
    advice = open_port('TCP', facts.tcp.port, ' on that machine, and on what is between')
    return Finding(check, Level.PROBLEM, fault, words, advice, place)
