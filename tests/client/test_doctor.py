"""What `dispy doctor` makes of what it has measured: tables of facts and findings."""

import asyncio
import secrets
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dispy_nb.doctor import judgelocal
from dispy_nb.doctor.facts import (
    CertificateState,
    Echo,
    Filters,
    KeyState,
    LinkAnswer,
    Networks,
    NodeFacts,
    Order,
    OtherAddress,
    Owner,
    OwnName,
    Port,
    RelayTold,
    TcpAnswer,
    UdpAnswer,
    Versions,
)
from dispy_nb.doctor.findings import Fault, Finding, Level, exit_status, fine, summary
from dispy_nb.doctor.firewall import Ruleset
from dispy_nb.doctor.here import Check, run_check
from dispy_nb.doctor.judgenetwork import Around, judge_network
from dispy_nb.doctor.judgenode import judge_difference, judge_node
from dispy_nb.doctor.ports import program_words
from dispy_nb.doctor.visiting import Manner, Visitor
from dispy_nb.doctorcommand import Printer, status_table, target_of
from nodeserver.core.diagnosis import AskDiagnosis, Diagnosis, Reach
from nodeserver.core.errors import UsageError
from nodeserver.core.events import NodeFound
from nodeserver.io.dialer import Target
from nodeserver.io.keys import own_key
from nodeserver.wire.proof import OTHER_SECRET
from tests.support import pages
from tests.support.programs import free_port, node_program

OURS = Versions('1.0', '3.11.2', (), True)
ANSWERED = UdpAnswer(Reach.OPEN, 51348)
SILENT, REFUSED = UdpAnswer(Reach.SILENT), UdpAnswer(Reach.REFUSED)
OPEN = TcpAnswer(Reach.OPEN, 51348, b'\xff', is_zeromq=True)
TOLD = Diagnosis(
    *('1.0', '3.11.9', 'Linux', 0.0, '/tmp/files', 10**12, 10**12, 10**6),
    *(['bigbox: 16 cpus, 3 in use', 'takes jobs', '1 program connected'], '10.0.0.1', 'open', []),
)


def facts_of(**details: Any) -> NodeFacts:
    link = LinkAnswer(True, '', TOLD, 0.0, True)
    facts = NodeFacts('10.0.0.2', '10.0.0.2', 51348, True, ANSWERED, OPEN, link)
    return replace(facts, **{'own': frozenset({'10.0.0.1'}), 'ours': OURS, **details})


def bad(findings: list[Finding]) -> list[tuple[str, str, str]]:
    """Level, fault and check of what is not fine."""
    return [
        (each.level.name, each.fault.name, each.check)
        for each in findings
        if each.level is not Level.OK
    ]


# the way there


def tcp(reach: Reach) -> TcpAnswer:
    return TcpAnswer(reach, 51348)


@pytest.mark.parametrize(
    ('udp', 'reach', 'neighbour', 'fault', 'said'),
    [
        (ANSWERED, Reach.SILENT, True, 'FIREWALL', 'drops TCP'),
        (ANSWERED, Reach.REFUSED, True, 'FIREWALL', 'rejects TCP'),
        (SILENT, Reach.SILENT, True, 'FIREWALL', 'is there, and a firewall drops both'),
        (SILENT, Reach.SILENT, None, 'REACH', 'the machine is off, has another address, or'),
        (SILENT, Reach.SILENT, False, 'REACH', 'no machine answers for this address'),
        (SILENT, Reach.UNREACHABLE, False, 'REACH', 'no machine answers for this address'),
        (SILENT, Reach.UNREACHABLE, True, 'FIREWALL', 'is there, and a firewall drops both'),
        (REFUSED, Reach.REFUSED, True, 'REACH', 'nobody listens at port 51348'),
        (SILENT, Reach.REFUSED, None, 'REACH', 'nobody listens at port 51348'),
        (UdpAnswer(Reach.PROHIBITED), Reach.SILENT, None, 'FIREWALL', "machine's own firewall"),
        (SILENT, Reach.OPEN, True, 'REACH', 'says nothing'),
    ],
)
def test_each_way_of_not_getting_there_means_something_else(
    udp: UdpAnswer, reach: Reach, neighbour: bool | None, fault: str, said: str
) -> None:
    found = judge_node(facts_of(udp=udp, tcp=tcp(reach), link=None, neighbour=neighbour))
    (problem,) = [each for each in found if each.level is Level.PROBLEM]
    assert problem.fault.name == fault
    assert said in problem.found and problem.advice


def test_a_node_in_order_has_nothing_but_fine_lines() -> None:
    assert bad(judge_node(facts_of())) == []


@pytest.mark.parametrize(
    ('refusal', 'fault', 'check'),
    [
        ('it has another key, or none', 'KEYS', 'key'),
        ('it runs insecure, without a key, and this side has a key', 'KEYS', 'key'),
        ('it refused this certificate: it has expired', 'KEYS', 'certificate'),
        (
            'the connecting program speaks protocol version 2, the listening one version 1: '
            'install the same release of dispy-nb for both',
            *('VERSIONS', 'versions'),
        ),
        ('it has another key, or none, or uses SSL', 'KEYS', 'key'),
        (OTHER_SECRET, 'KEYS', 'key'),
        ('it is full', 'REACH', 'greeting'),
    ],
)
def test_each_refusal_is_of_its_kind(refusal: str, fault: str, check: str) -> None:
    found = judge_node(facts_of(link=LinkAnswer(refusal=refusal)))
    assert bad(found) == [('PROBLEM', fault, check)]


@pytest.mark.parametrize(
    'there',
    [
        {'udp': replace(ANSWERED, is_tls=True), 'tcp': TcpAnswer(Reach.OPEN, 51348)},
        {'udp': SILENT, 'tcp': TcpAnswer(Reach.OPEN, 51348, b'\x15\x03\x03\0\2\2\x46')},
        {'udp': SILENT, 'tcp': TcpAnswer(Reach.OPEN, 51348, is_tls=True)},
    ],
)
def test_a_node_that_speaks_tls_is_known_and_asks_for_a_certificate(there: dict[str, Any]) -> None:
    found = judge_node(facts_of(link=None, **there))
    assert ('PROBLEM', 'KEYS', 'certificate') in bad(found)
    assert '--certfile' in found[-1].advice


@pytest.mark.parametrize(
    ('ours', 'theirs', 'said'),
    [
        ('own', 'NULL', 'it runs insecure'),
        ('insecure', 'CURVE', 'it asks for a key'),
        ('own', 'CURVE', 'it has another key, or none'),
    ],
)
def test_what_a_greeting_shows_is_surer_than_a_refusal(ours: str, theirs: str, said: str) -> None:
    link = LinkAnswer(refusal='it has another key, or none')
    there = facts_of(key=KeyState(ours), tcp=replace(OPEN, mechanism=theirs), link=link)
    (problem,) = [each for each in judge_node(there) if each.level is Level.PROBLEM]
    assert said in problem.found


TLS = TcpAnswer(Reach.OPEN, 51348, is_tls=True)


@pytest.mark.parametrize(
    ('kind', 'tcp', 'udp', 'said', 'advice'),
    [
        ('', TLS, SILENT, 'this side was given no certificate', 'the same pair'),
        ('unusable', TLS, SILENT, "this machine's certificate cannot be used", 'above'),
        ('usable', OPEN, ANSWERED, 'it does not use SSL', 'or none to both'),
        ('unusable', OPEN, ANSWERED, 'it does not use SSL', 'or none to both'),
        ('usable', tcp(Reach.SILENT), ANSWERED, 'it does not use SSL', 'or none to both'),
        ('', tcp(Reach.SILENT), replace(ANSWERED, is_tls=True), 'was given no certificate', 'pair'),
        ('usable', TLS, ANSWERED, '', ''),
        ('', OPEN, ANSWERED, '', ''),
    ],
)
def test_tls_on_one_side_only_is_told(
    kind: str, tcp: TcpAnswer, udp: UdpAnswer, said: str, advice: str
) -> None:
    there = facts_of(certificate=CertificateState(kind), tcp=tcp, udp=udp, link=None)
    found = [each for each in judge_node(there) if each.check == 'certificate']
    assert len(found) == bool(said)
    for each in found:
        assert each.fault is Fault.KEYS and each.level is Level.PROBLEM
        assert said in each.found and advice in each.advice


@pytest.mark.parametrize(
    ('refusal', 'advice'),
    [
        ('it has another certificate', 'give both sides the same pair'),
        ('its certificate has expired', '`dispy cert new --replace`'),
        ('it finds that our certificate has expired', '`dispy cert new --replace`'),
        ('its certificate is not valid yet: are the clocks of both machines right?', 'clocks'),
    ],
)
def test_a_certificate_that_is_refused_has_its_advice(refusal: str, advice: str) -> None:
    usable = CertificateState('usable')
    there = facts_of(certificate=usable, tcp=TLS, link=LinkAnswer(refusal=refusal))
    (problem,) = [each for each in judge_node(there) if each.level is Level.PROBLEM]
    assert (problem.check, problem.fault) == ('certificate', Fault.KEYS)
    assert problem.found == refusal and advice in problem.advice


# relays, and other addresses


def relay_facts(told: RelayTold | None, **details: Any) -> NodeFacts:
    udp = replace(ANSWERED, port=51346, is_relay=True)
    there = replace(OPEN, port=51346)
    link = LinkAnswer(True, relay=told) if told else None
    return facts_of(port=51346, udp=udp, tcp=there, link=link, **details)


@pytest.mark.parametrize(
    ('nodes', 'elements'),
    [
        ([('10.1.2.3', 51348), ('10.1.2.4', 51348)], "'10.0.0.2', '10.1.2.*'"),
        ([('10.1.2.3', 51348), ('10.1.3.4', 600)], "'10.0.0.2', '10.1.2.*', ('10.1.3.*', 600)"),
        ([('fd00::7', 51348)], "'10.0.0.2', 'fd00::7'"),
        ([(f'10.1.{n}.3', 51348) for n in range(9)], "'10.0.0.2', '*'"),
    ],
)
def test_what_to_write_for_the_nodes_of_a_relay(
    nodes: list[tuple[str, int]], elements: str
) -> None:
    found = judge_node(relay_facts(RelayTold('gate', True, tuple(nodes))))
    assert bad(found) == []
    assert found[-1].advice == f'in a program: JobCluster(f, nodes=[{elements}])'


def test_a_relay_that_cannot_be_asked_is_known_and_one_without_nodes_a_warning() -> None:
    found = judge_node(relay_facts(None, certificate=CertificateState('usable')))
    assert bad(found) == [('PROBLEM', 'KEYS', 'certificate')]
    assert found[-1].found == 'it is a relay (dispynetrelay), and no node'
    found = judge_node(relay_facts(RelayTold('gate', False)))
    assert bad(found) == [('WARNING', 'REACH', 'relay')]
    astray = RelayTold('gate', True, (), ('gate.example.org', 51346), Reach.SILENT)
    found = judge_node(relay_facts(astray))
    assert bad(found) == [('PROBLEM', 'FIREWALL', 'relay')]
    assert 'at gate.example.org port 51346, where this machine cannot connect' in found[-1].found
    assert 'correct its --ext_ip_addr' in found[-1].advice
    names = RelayTold('gate\x1b[2J', False, tuple((f'10.{n}.0.1', 51348) for n in range(999)))
    found = judge_node(relay_facts(names))
    assert max(len(each.line()) for each in found) < 1100


@pytest.mark.parametrize(
    ('other', 'level', 'fault'),
    [
        (OtherAddress('gate.example.org', ('10.9.9.9',), answers=True), 'OK', 'REACH'),
        (OtherAddress('gate.example.org', ('10.9.9.9',)), 'WARNING', 'FIREWALL'),
        (OtherAddress('gate.example.org'), 'WARNING', 'NAMES'),
    ],
)
def test_a_node_with_another_address_is_judged_by_whether_it_answers_there(
    other: OtherAddress, level: str, fault: str
) -> None:
    found = judge_node(facts_of(other_address=other))[-1]
    assert (found.check, found.level.name, found.fault.name) == ('ext_ip_addr', level, fault)
    assert 'gate.example.org' in found.found and bool(found.advice) is (level != 'OK')


def test_another_key_where_a_broadcast_found_it_is_no_problem_of_ours() -> None:
    stranger = facts_of(udp=UdpAnswer(Reach.OPEN, other_key=True), link=None, was_named=False)
    assert bad(judge_node(stranger)) == [('WARNING', 'KEYS', 'key')]
    found = judge_node(replace(stranger, key=KeyState('unusable')))
    assert "this machine's cannot be used" in found[-1].found


# a place where a program should wait for nodes


@pytest.mark.parametrize(
    ('reach', 'neighbour', 'fault', 'said'),
    [
        (Reach.REFUSED, True, 'REACH', 'no program listens there now'),
        (Reach.SILENT, True, 'FIREWALL', 'nothing comes back: a firewall there drops it'),
        (Reach.SILENT, None, 'REACH', 'or the machine is off'),
        (Reach.SILENT, False, 'REACH', 'no machine answers for this address'),
        (Reach.UNREACHABLE, None, 'REACH', 'no machine answers for this address'),
    ],
)
def test_the_port_of_programs_is_judged_by_tcp_alone(
    reach: Reach, neighbour: bool | None, fault: str, said: str
) -> None:
    there = facts_of(port=51347, udp=SILENT, tcp=tcp(reach), link=None, neighbour=neighbour)
    (problem,) = judge_node(there)
    assert problem.fault.name == fault
    assert said in problem.found and problem.advice


# what a node says of itself


def test_versions_that_do_not_fit_are_a_problem_and_releases_that_differ_a_warning() -> None:
    other = LinkAnswer(True, '', replace(TOLD, python='3.12.1'), 0.0, True)
    found = judge_node(facts_of(link=other))
    assert bad(found) == [('PROBLEM', 'VERSIONS', 'versions')]
    assert 'start dispynode with Python 3.11' in str(found)
    other = LinkAnswer(True, '', replace(TOLD, version='0.9'), 0.0, True)
    assert bad(judge_node(facts_of(link=other))) == [('WARNING', 'VERSIONS', 'versions')]
    assert bad(judge_node(facts_of(link=LinkAnswer(True)))) == [('WARNING', 'VERSIONS', 'versions')]


@pytest.mark.parametrize(
    ('seconds', 'words'),
    [
        (4.0, 'as here'),
        (-4.0, 'as here'),
        (7.0, '7 seconds ahead of this machine'),
        (-300.0, '5 minutes behind this machine'),
        (3600.0, '60 minutes ahead of this machine'),
        (-86400.0 * 3, '3 days behind this machine'),
    ],
)
def test_a_clock_that_differs_is_told_in_words_and_stops_nothing(
    seconds: float, words: str
) -> None:
    found = judge_difference(seconds, 'bigbox')
    assert found.found == words
    assert exit_status([found]) == 0
    if words != 'as here':
        assert exit_status([found], strict=True) == 74
        assert 'jobs run all the same' in found.advice
    assert ('certificates' in found.advice) is (abs(seconds) >= 600)


def test_the_clock_of_a_node_that_only_answers_pings_is_compared_as_well() -> None:
    udp = UdpAnswer(Reach.OPEN, 51348, clock=-3600.0)
    found = judge_node(facts_of(udp=udp, tcp=tcp(Reach.SILENT), link=None))
    assert bad(found)[1:] == [('WARNING', 'CLOCKS', 'clock')]


def test_what_a_node_says_cannot_write_to_the_terminal() -> None:
    told = replace(TOLD, standing=['bigbox\x1b[2J\nok: all is well', 'last'])
    found = judge_node(facts_of(link=LinkAnswer(True, '', told, 0.0, True)))
    (line,) = [each.line() for each in found if each.check == 'standing']
    assert '\x1b' not in line and '\n' not in line
    told = replace(TOLD, warnings=['x' * 10**6] * 10**4, clock=float('nan'), tcp_back='\0' * 10**6)
    found = judge_node(facts_of(link=LinkAnswer(True, '', told, float('nan'), True)))
    assert len(found) < 30
    assert max(len(each.line()) for each in found) < 1100


# the local network


def test_nobody_on_the_network_matters_only_where_no_host_was_named() -> None:
    nobody = Around(False, 51348)
    assert bad(judge_network(nobody, ())) == [('PROBLEM', 'REACH', 'broadcast to UDP port 51348')]
    assert bad(judge_network(Around(True, 51348), ())) == []
    nobody.strangers.add('10.0.0.7')
    assert bad(judge_network(nobody, ())) == [('PROBLEM', 'KEYS', 'key')]
    nobody.nodes['n'] = NodeFound('n', '10.0.0.2', 51348, '')
    assert bad(judge_network(nobody, ())) == [('WARNING', 'KEYS', 'key')]
    assert bad(judge_network(nobody, ['10.0.0.7'])) == []


# this machine


@pytest.mark.parametrize(
    ('addresses', 'words'),
    [
        ((), "'laptop' is unknown to this machine"),
        (('127.0.1.1',), 'laptop is 127.0.1.1, which other machines cannot reach'),
        (('10.9.9.9',), 'this machine has none of these addresses'),
        (('127.0.1.1', '10.0.0.1'), ''),
        (('10.0.0.1',), ''),
    ],
)
def test_the_machines_own_name_is_judged(addresses: tuple[str, ...], words: str) -> None:
    name = OwnName('laptop', addresses, frozenset({'10.0.0.1', '127.0.0.1'}))
    (found,) = judgelocal.judge_name(name)
    assert (found.level is Level.WARNING) is bool(words)
    assert words in found.found


@pytest.mark.parametrize(
    ('findings', 'level', 'fault'),
    [
        (judgelocal.judge_networks(Networks(())), 'WARNING', 'REACH'),
        (judgelocal.judge_networks(Networks((('wg0', '10.1.1.1', ''),))), 'WARNING', 'REACH'),
        (judgelocal.judge_versions(replace(OURS, has_curve=False)), 'PROBLEM', 'VERSIONS'),
        (judgelocal.judge_versions(replace(OURS, missing=('msgspec',))), 'PROBLEM', 'VERSIONS'),
        (judgelocal.judge_versions(replace(OURS, missing=('psutil',))), 'WARNING', 'VERSIONS'),
        (judgelocal.judge_clock((0.0, 1.7e9)), 'WARNING', 'CLOCKS'),
        (judgelocal.judge_clock((4e9, 1.7e9)), 'WARNING', 'CLOCKS'),
        (judgelocal.judge_file_limit(100), 'PROBLEM', 'LIMITS'),
        (judgelocal.judge_file_limit(512), 'WARNING', 'LIMITS'),
        (judgelocal.judge_key(KeyState('none yet', '/k', '/x: no')), 'PROBLEM', 'CONFIGURATION'),
        ([judgelocal.judge_disk('disk', '/tmp', 1 << 20, -1)], 'PROBLEM', 'DISK'),
        ([judgelocal.judge_disk('disk', '/tmp', 1 << 40, 10)], 'PROBLEM', 'DISK'),
        ([judgelocal.judge_disk('disk', '/tmp', 500 << 20, -1)], 'WARNING', 'DISK'),
    ],
)
def test_each_fault_of_this_machine_has_its_kind_and_an_advice(
    findings: list[Finding], level: str, fault: str
) -> None:
    (found,) = findings
    assert (found.level.name, found.fault.name) == (level, fault)
    assert found.advice


NODE = Owner(True, True, 'dispynode')
NOTEBOOK = Owner(True, False, 'python -m ipykernel_launcher')
WEB = Owner(False, False, 'nginx')


@pytest.mark.parametrize(
    ('command', 'words'),
    [
        (['/usr/sbin/nginx', '-g', 'daemon off;'], 'nginx'),
        (['/opt/bin/server', 'hunter22', '--token', 'hunter22'], 'server'),
        (['/usr/bin/python3', '/home/ann/study.py', 'hunter22'], 'python3 study.py'),
        (['python3', '-m', 'ipykernel_launcher', '-f', 'hunter22'], 'python3 ipykernel_launcher'),
        (['python3', '-c', 'print("hunter22")'], 'python3'),
        (['python3', '-W', 'error', 'hunter22'], 'python3'),
        ([], 'another program'),
    ],
)
def test_a_program_that_has_a_port_is_named_without_its_arguments(
    command: list[str], words: str
) -> None:
    assert program_words(command) == words


@pytest.mark.parametrize(
    ('number', 'owner', 'level'),
    [
        (51348, None, 'OK'),
        (51348, NODE, 'OK'),
        (51348, NOTEBOOK, 'WARNING'),
        (51348, WEB, 'PROBLEM'),
        (51348, Owner(True, False, 'dispy', is_doctor=True), 'OK'),
        (51347, NOTEBOOK, 'OK'),
        (51347, WEB, 'WARNING'),
    ],
)
def test_a_port_of_ours_is_fine_with_us_alone(number: int, owner: Owner | None, level: str) -> None:
    (found,) = judgelocal.judge_ports(Order(), [Port(number, 'TCP', owner)])
    assert found.level.name == level


def test_what_a_firewall_does_to_the_port_of_nodes_matters_where_one_runs() -> None:
    order, echo = Order(), Echo('eth0', '10.0.0.1', False)
    served = [Port(51348, 'UDP', NODE)]
    assert bad(judgelocal.judge_echoes(order, [echo], served))[0][0] == 'PROBLEM'
    assert bad(judgelocal.judge_echoes(order, [echo], []))[0][0] == 'WARNING'
    assert bad(judgelocal.judge_filters(order, Filters(''), served)) == []


# rules of nftables, as `nft -j list ruleset` writes them


def ruleset(policy: str, *rules: list[Any]) -> Ruleset:
    place = {'family': 'inet', 'table': 'filter'}
    chain = {**place, 'name': 'input', 'type': 'filter', 'hook': 'input', 'policy': policy}
    other = {**place, 'name': 'ours'}
    objects: list[dict[str, Any]] = [{'metainfo': {}}, {'chain': chain}, {'chain': other}]
    for number, rule in enumerate(rules):
        name = 'ours' if rule and rule[0] == 'ours' else 'input'
        expressions = [each for each in rule if each != 'ours']
        objects.append({'rule': {**place, 'chain': name, 'handle': number, 'expr': expressions}})
    return Ruleset(objects)


def match(field: str, right: Any, protocol: str = 'tcp', op: str = '==') -> dict[str, Any]:
    left = {'payload': {'protocol': protocol, 'field': field}}
    return {'match': {'op': op, 'left': left, 'right': right}}


DROP, ACCEPT = {'drop': None}, {'accept': None}
DROPPED = 'drop in chain input of table inet filter'
ESTABLISHED = {
    'match': {'op': 'in', 'left': {'ct': {'key': 'state'}}, 'right': ['established', 'related']}
}
LOOPBACK = {'match': {'op': '==', 'left': {'meta': {'key': 'iifname'}}, 'right': 'lo'}}


@pytest.mark.parametrize(
    ('rules', 'policy', 'verdict'),
    [
        ([], 'accept', ''),
        ([], 'drop', DROPPED),
        ([[match('dport', 51348), DROP]], 'accept', DROPPED),
        ([[match('dport', 51348, 'udp'), DROP]], 'accept', ''),
        ([[match('dport', 51348, 'th'), DROP]], 'accept', DROPPED),
        ([[match('dport', {'set': [22, {'range': [51000, 52000]}]}), DROP]], 'accept', DROPPED),
        ([[match('dport', 22), ACCEPT]], 'drop', DROPPED),
        ([[match('dport', 51348), ACCEPT]], 'drop', ''),
        ([[match('dport', 22, op='!='), DROP]], 'accept', DROPPED),
        ([[ESTABLISHED, ACCEPT], [LOOPBACK, ACCEPT]], 'drop', DROPPED),
        ([[match('saddr', '10.0.0.0', 'ip'), match('dport', 51348), ACCEPT]], 'drop', '?'),
        ([[match('saddr', '10.0.0.9', 'ip'), DROP]], 'accept', ''),
        ([[{'counter': {}}, {'reject': {'type': 'tcp reset'}}]], 'accept', 'reject' + DROPPED[4:]),
        ([[{'jump': {'target': 'ours'}}], ['ours', match('dport', 51348), ACCEPT]], 'drop', ''),
        ([[{'jump': {'target': 'ours'}}], ['ours', DROP]], 'accept', DROPPED),
        ([[{'goto': {'target': 'ours'}}]], 'drop', '?'),
        ([[{'jump': {'target': 'input'}}]], 'accept', '?'),  # in a circle
        ([[{'xt': None}, DROP]], 'drop', '?'),
        ([[match('dport', '@open'), ACCEPT]], 'drop', '?'),
    ],
)
def test_only_what_certainly_drops_a_port_is_told(
    rules: list[Any], policy: str, verdict: str
) -> None:
    assert ruleset(policy, *rules).verdict('tcp', 51348) == verdict


# statuses, and how it is asked


def test_the_most_severe_problem_decides_the_status_and_warnings_none() -> None:
    key = Finding('key', Level.PROBLEM, Fault.KEYS, 'x')
    disk = Finding('disk', Level.PROBLEM, Fault.DISK, 'x')
    warning = Finding('key', Level.WARNING, Fault.CONFIGURATION, 'x')
    assert exit_status([fine('a', 'b'), warning]) == 0
    assert exit_status([disk, warning, key]) == 77
    assert exit_status([disk, warning, key], strict=True) == 78
    assert summary([disk, warning]) == f'2 checks: 1 problem, 1 warning; {STATUS_OF_DISK}'
    statuses = [fault.status for fault in Fault]
    assert len(set(statuses)) == len(statuses)
    assert not {0, 1, 2} & set(statuses) and max(statuses) < 126


STATUS_OF_DISK = 'exit status 73: no room on a disk'


def test_the_page_and_the_help_have_every_status_with_its_words_in_order() -> None:
    page = (pages.ROOT / 'docs' / 'doctor.md').read_text(encoding='utf-8')
    _, *rows = pages.rows(pages.section(page, 'Exit status'))
    told = [(row[0], row[1].replace('`', '')) for row in rows if row[0][0].isdigit()]
    _, *lines = status_table().splitlines()
    assert [tuple(line.split(None, 1)) for line in lines] == told
    assert told[:-4] == [(str(fault.status), fault.words) for fault in Fault]


def test_each_place_has_its_heading_also_where_one_host_has_two(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printer = Printer()
    printer('one', [fine('a', 'x', 'one'), fine('b', 'x', 'two')])
    printer('two', [fine('c', 'x', 'two')])
    written = [line.split(':')[0].split()[-1] for line in capsys.readouterr().out.splitlines()]
    assert written == ['one', 'a', 'two', 'b', 'c']


@pytest.mark.parametrize(
    ('text', 'target'),
    [
        ('bigbox', ('bigbox', 51348)),
        ('10.1.2.3:600', ('10.1.2.3', 600)),
        ('fd00::1', ('fd00::1', 51348)),
        ('[fd00::1]', ('fd00::1', 51348)),
        ('[fe80::1%eth0]:600', ('fe80::1%eth0', 600)),
    ],
)
def test_hosts_are_named_with_and_without_a_port(text: str, target: tuple[str, int]) -> None:
    assert target_of(text, 51348) == target


@pytest.mark.parametrize('text', ['', ' ', 'bigbox:', 'bigbox:x', 'bigbox:0', 'a:70000', ':600'])
def test_a_host_that_is_none_is_refused_with_what_was_given(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        target_of(text, 51348)
    assert repr(text) in str(raised.value)


def test_a_look_that_hangs_or_fails_is_a_finding_and_holds_up_nothing() -> None:
    gate = threading.Event()

    def hang() -> bool:
        return gate.wait(20)

    def fail() -> None:
        raise OSError('no such device')

    async def run() -> list[Finding]:
        checks = [
            Check(name, Fault.NAMES, look, lambda found: [fine('x', 'y')])
            for name, look in (('hangs', hang), ('fails', fail))
        ]
        return [finding for check in checks for finding in await run_check(check, 0.05)]

    try:
        hung, failed = asyncio.run(run())
    finally:
        gate.set()
    assert (hung.check, hung.found) == ('hangs', 'no answer within 0.05 s')
    assert failed.found == 'it cannot be looked at: no such device'
    assert {hung.level, failed.level} == {Level.WARNING}
    for thread in threading.enumerate():
        if thread.name == 'dispy-doctor':
            thread.join(5)


def test_absurd_questions_are_answered_and_go_nowhere(own_home: Path) -> None:
    port = free_port()
    with node_program('-i', '127.0.0.2', '-p', port) as node:

        async def ask(question: AskDiagnosis) -> LinkAnswer:
            manner = Manner(own_key(), None, 10, port)
            visitor = Visitor(asyncio.get_running_loop(), manner, question)
            try:
                return await visitor.visit(Target('127.0.0.2', port), lambda token: None)
            finally:
                visitor.close()

        for absurd in (
            AskDiagnosis(70000, -5, secrets.token_bytes(100_000)),
            AskDiagnosis(-1, 2**60, b''),
            AskDiagnosis(0, 65536, b'x'),
        ):
            answer = asyncio.run(ask(absurd))
            assert answer.diagnosis is not None
            assert answer.diagnosis.tcp_back == Reach.UNTRIED
            assert answer.diagnosis.address == '127.0.0.1'
        assert 'failed' not in node.log()
