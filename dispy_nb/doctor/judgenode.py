"""What the facts of a node, or of a place where one should be, mean: pure."""

from collections.abc import Callable
from typing import Final

from dispy_nb.doctor.facts import NodeFacts
from dispy_nb.doctor.findings import Fault, Finding, Level, fine
from dispy_nb.doctor.judgegreeting import finding_there, is_tls, judge_greeting
from dispy_nb.doctor.judgelocal import judge_disk, open_port
from dispy_nb.doctor.judgeprogram import is_program, judge_program
from dispy_nb.doctor.judgerelay import is_relay, judge_relay
from nodeserver.core.diagnosis import Diagnosis, Reach
from nodeserver.core.knocking import RELAY_PORT

CLOCK_SECONDS: Final = 5.0  # a difference that nobody needs to hear of
CLOCK_MUCH: Final = 600.0
_START: Final = 'start `dispynode` there, with the same --node_port if that was given'
_START_RELAY: Final = 'start `dispynetrelay` there, or name the --relay_port that it was given'
_WORDS_SHOWN: Final = 40


def judge_node(facts: NodeFacts) -> list[Finding]:
    """Judge a node from this side, and from its own; or a program that waits for nodes."""
    if is_program(facts):
        found = [judge_program(facts, facts.where)]
    else:
        found = judge_reach(facts)
    found += judge_greeting(facts)
    if facts.link is None and facts.udp.clock:
        found.append(judge_difference(facts.udp.clock, facts.where))
    told = facts.link.diagnosis if facts.link is not None else None
    if told is not None:
        for judge in OF_DIAGNOSIS:
            found += judge(facts, told)
    if is_relay(facts):
        found.append(judge_relay(facts))
    return found + judge_other_address(facts)


# the way there


def judge_reach(facts: NodeFacts) -> list[Finding]:
    """Judge what became of UDP pings and a TCP connection: each combination means something."""
    udp, tcp = facts.udp, facts.tcp
    answered = bool(udp.port) or udp.other_key
    if Reach.PROHIBITED in (udp.reach, tcp.reach):
        return [
            finding_there(
                facts,
                'way out',
                Fault.FIREWALL,
                "this machine's own firewall lets nothing out to it",
                f'allow UDP and TCP to port {facts.port} in its output rules',
            )
        ]
    if tcp.reach is Reach.OPEN:
        is_ours = tcp.is_zeromq or is_tls(tcp)
        if not is_ours and not answered:  # what UDP does says nothing about a firewall then
            return [_judge_open(facts)]
        return [_judge_udp_alone(facts, answered), _judge_open(facts)]
    if answered:
        return [fine(_udp_check(facts), 'answers', facts.where), _judge_closed_tcp(facts)]
    if facts.neighbour is False or (
        Reach.UNREACHABLE in (udp.reach, tcp.reach) and not facts.neighbour
    ):
        return [
            finding_there(
                facts,
                'machine',
                Fault.REACH,
                'no machine answers for this address',
                'check that it is switched on and connected, and what its address is: `ip addr` '
                'there',
            )
        ]
    if Reach.REFUSED in (udp.reach, tcp.reach):
        return [_judge_nobody(facts)]
    return [_judge_silence(facts)]


def _judge_udp_alone(facts: NodeFacts, answered: bool) -> Finding:
    """Judge UDP where TCP is open."""
    check = _udp_check(facts)
    if answered:
        return fine(check, 'answers', facts.where)
    if facts.link is not None and facts.link.refusal:  # it says so once a second, to anybody
        return fine(check, 'no answer to our key, which it refuses', facts.where)
    return finding_there(
        facts,
        check,
        Fault.FIREWALL,
        f'no answer, while TCP port {facts.tcp.port} is open: a firewall drops UDP. It is found '
        'where a program names it in `nodes`, by TCP alone, and not by a pattern such as *',
        'name it, or ' + open_port('UDP', facts.port, ' on that machine, and on what is between'),
        Level.WARNING,
    )


def _judge_open(facts: NodeFacts) -> Finding:
    tcp = facts.tcp
    check = f'TCP port {tcp.port}'
    if tcp.is_zeromq or is_tls(tcp):
        return fine(check, 'open', facts.where)
    if tcp.words:
        words = tcp.words[:_WORDS_SHOWN].decode('latin-1').strip()
        return finding_there(
            facts,
            check,
            Fault.PORTS,
            f'another program listens there (it says {words!r})',
            'name the port of dispynode: HOST:PORT here, and node_port in JobCluster',
        )
    return finding_there(
        facts,
        check,
        Fault.REACH,
        'takes connections and says nothing: the program there hangs, or is overloaded',
        'look at its log, start it anew',
    )


def _judge_closed_tcp(facts: NodeFacts) -> Finding:
    """Judge TCP where UDP is answered."""
    tcp = facts.tcp
    refused = tcp.reach is Reach.REFUSED
    words = 'refused' if refused else 'no answer'
    return finding_there(
        facts,
        f'TCP port {tcp.port}',
        Fault.FIREWALL,
        f'{words}, while the node answers by UDP: a firewall {"rejects" if refused else "drops"} '
        'TCP',
        open_port('TCP', tcp.port, ' on that machine, and on what is between')
        + '; or have the node connect to this machine: dispynode --scheduler_node',
    )


def _judge_nobody(facts: NodeFacts) -> Finding:
    is_of_relays = facts.port == RELAY_PORT
    start = _START_RELAY if is_of_relays else _START
    return finding_there(
        facts,
        'dispynetrelay' if is_of_relays else 'dispynode',
        Fault.REACH,
        f'the machine is there, and nobody listens at port {facts.port}',
        f'{start}; if it runs, a firewall rejects what comes to it',
    )


def _judge_silence(facts: NodeFacts) -> Finding:
    if facts.neighbour:
        return finding_there(
            facts,
            f'UDP and TCP port {facts.port}',
            Fault.FIREWALL,
            'the machine is there, and a firewall drops both',
            open_port('UDP', facts.port, ' on that machine, and the same for tcp'),
        )
    return finding_there(
        facts,
        f'UDP and TCP port {facts.port}',
        Fault.REACH,
        'nothing comes back: the machine is off, has another address, or a firewall there or '
        'between drops both',
        f'on that machine run `dispy doctor`, then {_START}; '
        'or have it connect to this one: dispynode --scheduler_node',
    )


# what it says of itself


def _judge_versions(facts: NodeFacts, told: Diagnosis) -> list[Finding]:
    ours = facts.ours
    found = f'dispy-nb {told.version or "(not installed)"} on Python {told.python}'
    if ours is None:
        return [fine('versions', found, facts.where)]
    if _minor(told.python) != _minor(ours.python):
        return [
            finding_there(
                facts,
                'versions',
                Fault.VERSIONS,
                f'{found}, and this machine has Python {ours.python}: functions cannot travel',
                f'start dispynode with Python {_minor(ours.python)}',
            )
        ]
    if told.version != ours.package:
        words = f'{found}, and this machine has {ours.package or "none installed"}'
        advice = 'install the same release on both'
        return [finding_there(facts, 'versions', Fault.VERSIONS, words, advice, Level.WARNING)]
    return [fine('versions', found, facts.where)]


def _minor(version: str) -> str:
    return '.'.join(version.split('.')[:2])


def _judge_clock(facts: NodeFacts, told: Diagnosis) -> list[Finding]:
    difference = facts.link.clock if facts.link else 0.0
    return [judge_difference(difference, facts.where)]


def judge_difference(seconds: float, place: str) -> Finding:
    """Judge how far a node's clock is from ours; no connection depends on it but TLS."""
    if abs(seconds) <= CLOCK_SECONDS:
        return fine('clock', 'as here', place)
    words = f'{span_text(abs(seconds))} {"ahead of" if seconds > 0 else "behind"} this machine'
    advice = 'set both: `timedatectl set-ntp true`'
    if abs(seconds) < CLOCK_MUCH:
        advice += '; jobs run all the same, times in logs and of files do not compare'
    else:
        advice += '; jobs run all the same, but times do not compare and certificates may seem '
        advice += 'expired or not yet valid'
    return Finding('clock', Level.WARNING, Fault.CLOCKS, words, advice, place)


def span_text(seconds: float) -> str:
    """Write a length of time for people."""
    for size, name in ((86400, 'days'), (3600, 'hours'), (60, 'minutes')):
        if seconds >= 2 * size:
            return f'{seconds / size:.3g} {name}'
    return f'{seconds:.3g} seconds'


def _judge_disk(facts: NodeFacts, told: Diagnosis) -> list[Finding]:
    return [judge_disk('disk', told.directory, told.disk_free, told.files_free, facts.where)]


def _judge_standing(facts: NodeFacts, told: Diagnosis) -> list[Finding]:
    lines = told.standing[:-1] or ['says nothing of itself']  # the last one counts us as well
    return [fine('standing', '; '.join(lines[:6]), facts.where)]


def _judge_way_back(facts: NodeFacts, told: Diagnosis) -> list[Finding]:
    place, port = facts.where, facts.client_port
    found = [_judge_address(facts, told)] if told.address else []
    is_nat = bool(told.address) and _plain(told.address) not in facts.own
    if told.tcp_back == Reach.OPEN:
        found.append(fine(f'way back to TCP port {port}', 'open', place))
    elif told.tcp_back != Reach.UNTRIED:
        words = f'the node cannot connect to this machine ({told.tcp_back})'
        advice = (
            'this matters for nodes with --scheduler_node only: forward the port at the gateway'
            if is_nat
            else 'this matters for nodes with --scheduler_node only: '
            + open_port('TCP', port, ' here')
        )
        check = f'way back to TCP port {port}'
        found.append(finding_there(facts, check, Fault.FIREWALL, words, advice, Level.WARNING))
    came = facts.link.token_came if facts.link else None
    if came:
        found.append(fine(f'way back to UDP port {port}', 'open', place))
    elif came is False and told.address:
        words = "what the node sends does not arrive: announcements of new nodes won't either"
        advice = 'clusters find them by their own pings, some seconds later'
        if not is_nat:
            advice += '; ' + open_port('UDP', port, ' here')
        check = f'way back to UDP port {port}'
        found.append(finding_there(facts, check, Fault.FIREWALL, words, advice, Level.WARNING))
    return found


def _judge_address(facts: NodeFacts, told: Diagnosis) -> Finding:
    words = f'it sees this machine at {told.address}'
    if _plain(told.address) in facts.own:
        return fine('address', words, facts.where)
    return fine('address', f'{words}: there is a gateway (NAT) between', facts.where)


def judge_other_address(facts: NodeFacts) -> list[Finding]:
    """Judge whether the node answers where it asks to be called (`--ext_ip_addr`)."""
    other = facts.other_address
    if other is None:
        return []
    place = other.host
    if other.addresses and other.addresses[0] != other.host:
        place += f' ({", ".join(other.addresses)})'
    check = 'ext_ip_addr'
    if other.answers:
        return [fine(check, f'it asks to be called at {place}, and answers there', facts.where)]
    used = f'it is used at {facts.address}, where it answers'
    if not other.addresses:
        words = f'it asks to be called at {other.host}, a name that nobody knows here; {used}'
        advice = f'correct its --ext_ip_addr, or add {other.host} to DNS'
        return [finding_there(facts, check, Fault.NAMES, words, advice, Level.WARNING)]
    words = f'it asks to be called at {place}, where it does not answer this machine; {used}'
    advice = (
        f'from here that does. Programs elsewhere need UDP and TCP port {facts.port} forwarded to '
        'it there; if that is no gateway of its network, correct its --ext_ip_addr'
    )
    return [finding_there(facts, check, Fault.FIREWALL, words, advice, Level.WARNING)]


def _judge_its_key(facts: NodeFacts, told: Diagnosis) -> list[Finding]:
    return [
        finding_there(
            facts,
            'its key',
            Fault.CONFIGURATION,
            text,
            'put that right on that machine before dispynode is started the next time',
            Level.WARNING,
        )
        for text in told.warnings[:10]
    ]


OF_DIAGNOSIS: Final[tuple[Callable[[NodeFacts, Diagnosis], list[Finding]], ...]] = (
    _judge_versions,
    _judge_clock,
    _judge_disk,
    _judge_standing,
    _judge_way_back,
    _judge_its_key,
)


def _udp_check(facts: NodeFacts) -> str:
    return f'UDP port {facts.port}'


def _plain(address: str) -> str:
    """An address without the interface that a link-local one needs."""
    return address.partition('%')[0]
