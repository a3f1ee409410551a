"""`dispy doctor` where there are certificates, relays and other addresses."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from nodeserver.core.knocking import RELAY_PORT
from tests.support.certificates import needs_openssl, openssl, self_signed
from tests.support.doctor import Examined, all_examined, examined
from tests.support.machines import Machine, machines
from tests.support.netns import Lan, TwoLans
from tests.support.programs import all_entered, at_once

pytestmark = [pytest.mark.netns(nat=True), pytest.mark.slow]

PORT = 51348
FIREWALL = 'table inet t {{ chain i {{ type filter hook input priority 0; {}; }}; }}'
RELAY = [sys.executable, '-m', 'nodeserver.cli.dispynetrelay']
ELSEWHERE = 40000  # a port at which a broadcast finds nobody


def named(machine: Machine, host: str, *words: object) -> Examined:
    """Examine one host, which a broadcast does not find as well."""
    return examined(machine, f'{host}:{PORT}', '--node_port', ELSEWHERE, *words)


# certificates


@needs_openssl
@pytest.mark.row('Z07')
def test_each_way_in_which_certificates_do_not_fit_is_told(tmp_path: Path) -> None:
    ours, other = (self_signed(tmp_path / f'{name}.pem') for name in ('ours', 'other'))
    with Lan(5) as lan, ExitStack() as stack:
        hosts = stack.enter_context(machines(*lan))
        client, with_ours, with_other, plain, closed = hosts
        foreign = stack.enter_context(machines(lan[1], same_key=False))[0]
        given, wrong = ('--certfile', ours), ('--certfile', other)
        nodes = all_entered(
            stack,
            *(machine.node('-c', 1, *given) for machine in (with_ours, closed)),
            *(with_other.node('-c', 1, *wrong), plain.node('-c', 1)),
            foreign.node('-c', 1, *given, '-p', 7000),
        )
        closed.host.filter_rules(FIREWALL.format(f'udp dport {PORT} drop'))
        no_other = 'give both sides the same pair'
        cases = [
            (with_ours, given, 0, 'the same as here', ''),
            (closed, given, 0, 'the same as here', ''),
            (with_other, given, 77, 'it has another certificate', no_other),
            (plain, given, 77, 'it does not use SSL, and this side was', 'or none to both'),
            (with_ours, (), 77, 'it uses SSL, and this side was given no', no_other),
            (closed, (), 77, 'it uses SSL, and this side was given no', no_other),
        ]

        def check(case: tuple[Machine, tuple[object, ...], int, str, str]) -> None:
            node, words, status, said, advice = case
            found = named(client, node.ip, *words)
            line = found.one(node.ip, 'certificate')
            assert (found.status, said in line['found'], advice in line['advice']) == (
                *(status, True, True),
            ), found.text
            assert found.problems() == ([line] if status else [])
            if not status:
                assert found.one(node.ip, 'versions')['level'] == 'ok'
                assert found.one(node.ip, 'key')['found'] == 'the same as here'
                here = found.one('this machine', 'certificate')['found']
                assert here.startswith('CN=cluster, until ') and str(ours) in here
            assert (found.one(node.ip, 'UDP')['level'] == 'warning') is (node is closed)

        def look_at_foreign() -> None:
            found = examined(client, f'{with_ours.ip}:7000', '--node_port', ELSEWHERE, *given)
            key = found.one(with_ours.ip, 'key')
            assert (found.status, found.problems()) == (77, [key]), found.text
            assert '`dispy key export`' in key['advice']

        at_once(lambda act: act(), look_at_foreign, *(partial(check, case) for case in cases))
        for node in nodes:  # a look does not look like an attack
            assert 'it is another program' not in node.log()


def expired(directory: Path) -> Path:
    path = self_signed(directory / 'expired.pem')
    key = directory / 'key.pem'
    openssl('pkey', '-in', path, '-out', key)
    settings = directory / 'ca.cnf'
    (directory / 'index.txt').touch()
    settings.write_text(
        f'[ca]\ndefault_ca=c\n[c]\ndatabase={directory}/index.txt\nnew_certs_dir={directory}\n'
        'rand_serial=yes\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n'
    )
    request = directory / 'request.pem'
    openssl('req', '-new', '-key', key, '-subj', '/CN=old', '-out', request)
    openssl(
        *('ca', '-batch', '-selfsign', '-config', settings, '-keyfile', key, '-in', request),
        *('-startdate', '20200101000000Z', '-enddate', '20210101000000Z', '-notext'),
        *('-out', directory / 'certificate.pem'),
    )
    path.write_text((directory / 'certificate.pem').read_text() + key.read_text())
    path.chmod(0o600)
    return path


def readable(directory: Path) -> Path:
    path = self_signed(directory / 'open.pem')
    path.chmod(0o644)
    return path


@needs_openssl
@pytest.mark.row('Z07')
def test_what_is_wrong_with_this_machines_certificate_has_its_line_and_status(
    tmp_path: Path,
) -> None:
    damaged = tmp_path / 'damaged.pem'
    damaged.write_text('nothing')
    ours = self_signed(tmp_path / 'ours.pem')
    cases = [
        (tmp_path / 'none.pem', 78, 'none.pem cannot be read: No such file', '`dispy cert new`'),
        (damaged, 78, 'holds no certificate in PEM', 'openssl x509 -inform DER'),
        (expired(tmp_path), 78, 'expired on 2021-01-01', '`dispy cert new --replace`'),
        (readable(tmp_path), 0, 'is open to other users (mode 0644)', 'chmod 600'),
        (
            self_signed(tmp_path / 'soon.pem', days=5),
            *(0, 'expires in 4 days', 'replace it on all machines'),
        ),
    ]
    with Lan(2) as lan, machines(*lan) as (client, node), ExitStack() as stack:
        stack.enter_context(node.node('-c', 1, '--certfile', ours))

        def check(case: tuple[Path, int, str, str]) -> None:
            path, status, said, advice = case
            found = examined(client, node.ip, '--certfile', path)
            line = found.one('this machine', 'certificate')
            assert said in line['found'] and advice in line['advice'], found.text
            assert line['level'] == ('problem' if status else 'warning')
            assert found.status == (status or 77)
            theirs = found.one(node.ip, 'certificate')
            cannot = "it uses SSL, and this machine's certificate cannot be used"
            assert theirs['found'] == (cannot if status else 'it has another certificate')

        at_once(check, *cases)
        for words in (('--certfile', ours, '--insecure'), ('--keyfile', ours)):
            done = client.dispy('doctor', *map(str, words))
            assert done.returncode == 2
            assert 'contradict each other' in done.stderr or 'which is missing' in done.stderr


# relays


@contextmanager
def behind_a_gateway(*options: object) -> Iterator[tuple[TwoLans, Machine, Machine, Machine]]:
    """A client outside, and a relay and a node behind a gateway that forwards the relay's port."""
    with (
        TwoLans(2, 1, nat=True) as net,
        machines(net.right[0], *net.left) as (c, relay, node),
        relay.program(*RELAY, '--name', 'gate', *options, ready='serving'),
        node.node('-c', 1),
    ):
        yield net, c, relay, node


@pytest.mark.row('Z07')
def test_a_relay_is_told_from_a_node_with_what_to_write_in_a_program() -> None:
    with behind_a_gateway('--forward') as (net, client, relay, node):
        gateway = net.router_ip['right']
        net.forward_port('tcp', RELAY_PORT, relay.host)
        found = examined(client, gateway)  # no UDP passes
        line = found.one(gateway, 'relay')
        assert (found.status, found.problems(), line['level']) == (0, [], 'ok'), found.text
        assert 'gate is a relay (dispynetrelay), which carries connections' in line['found']
        assert f'it tells of 1 node: {node.ip}' in line['found']
        assert f"JobCluster(f, nodes=['{gateway}', '10.77.1.*'])" in line['advice']
        beside = found.one(gateway, 'dispynode')
        assert beside['level'] == 'ok' and 'beside a relay none has to' in beside['found']
        assert found.one(gateway, f'UDP port {RELAY_PORT}')['level'] == 'warning'
        net.forward_port('udp', RELAY_PORT, relay.host)
        found = examined(client, f'{gateway}:{RELAY_PORT}')
        assert (found.status, found.problems()) == (0, []), found.text
        assert found.one(gateway, f'UDP port {RELAY_PORT}')['found'] == 'answers'
        assert found.one(gateway, 'relay') == line


@needs_openssl
@pytest.mark.row('Z07')
def test_a_relay_beside_a_node_one_without_nodes_and_one_of_another_key(tmp_path: Path) -> None:
    with Lan(3) as lan, ExitStack() as stack:
        client, both, lone = stack.enter_context(machines(*lan))
        stranger = stack.enter_context(machines(lan[2], same_key=False))[0]
        ports = ('--relay_port', 7000, '-p', ELSEWHERE)
        astray = ('--relay_port', 7001, '--forward', '--ext_ip_addr', client.ip)
        all_entered(
            stack,
            lone.program(*RELAY, *ports, ready='serving'),
            stranger.program(*RELAY, ready='serving'),
            lone.program(*RELAY, *astray, ready='serving'),
        )
        found = examined(client, f'{lone.ip}:7000', '--node_port', ELSEWHERE)
        relay = found.one(lone.ip, 'relay')
        assert (found.status, relay['level']) == (0, 'warning'), found.text
        assert 'no node answers it' in relay['found']
        all_entered(stack, both.node('-c', 1), both.program(*RELAY, ready='serving'))
        pair = self_signed(tmp_path / 'pair.pem')
        found, foreign, nobody, lost, plain = all_examined(
            (client, both.ip),
            (client, lone.ip),  # the stranger's, and no node
            (client, f'{client.ip}:{RELAY_PORT}', '--node_port', ELSEWHERE),
            (client, f'{lone.ip}:7001', '--node_port', ELSEWHERE),
            (client, f'{lone.ip}:7000', '--node_port', ELSEWHERE, '--certfile', pair),
        )
        line = plain.one(lone.ip, 'certificate')  # it says nothing before it is greeted
        assert (plain.status, plain.problems()) == (77, [line]), plain.text
        assert line['found'].startswith('it does not use SSL')
        relay = lost.one(lone.ip, 'relay')
        assert (lost.status, lost.problems()) == (70, [relay]), lost.text
        assert f'at {client.ip} port 7001, where this machine cannot connect' in relay['found']
        assert 'correct its --ext_ip_addr' in relay['advice']
        assert (found.status, found.problems()) == (0, []), found.text
        relay = found.one(both.ip, 'relay')
        assert relay['where'].endswith(f'port {RELAY_PORT}')
        assert 'tells of its nodes, to which programs connect themselves' in relay['found']
        assert f'`dispy doctor {both.ip}`' in relay['advice']
        assert found.one(both.ip, 'standing')['where'].endswith(f'port {PORT}')
        key = foreign.one(lone.ip, 'key')
        assert (foreign.status, foreign.problems()) == (77, [key]), foreign.text
        assert key['where'].endswith(f'port {RELAY_PORT}')
        assert foreign.one(lone.ip, 'dispynode')['level'] == 'ok'
        (problem,) = nobody.problems()
        assert (nobody.status, problem['check']) == (69, 'dispynetrelay')
        assert 'start `dispynetrelay` there' in problem['advice']


# other addresses


@pytest.mark.row('Z07')
def test_a_node_that_asks_to_be_called_elsewhere_is_looked_for_there() -> None:
    with Lan(4) as lan, machines(*lan) as (client, *others), ExitStack() as stack:
        client.knows(right=others[0].ip)
        for machine in others:
            machine.knows(right=others[0].ip, unknown='10.77.1.77')
        wanted = ('right', '10.77.1.99', 'unknown')
        pairs = zip(others, wanted, strict=True)
        all_entered(stack, *(each.node('-c', 1, '--ext_ip_addr', host) for each, host in pairs))
        found = examined(client, *(machine.ip for machine in others))
        assert (found.status, found.problems()) == (0, []), found.text
        right, nowhere, unknown = (machine.ip for machine in others)
        assert not [each for each in found.at(right) if each['check'] == 'ext_ip_addr']
        line = found.one(nowhere, 'ext_ip_addr')
        assert line['level'] == 'warning'
        assert 'to be called at 10.77.1.99, where it does not answer this' in line['found']
        assert f'it is used at {nowhere}' in line['found']
        assert f'UDP and TCP port {PORT} forwarded' in line['advice']
        line = found.one(unknown, 'ext_ip_addr')
        assert line['level'] == 'warning'
        assert 'called at unknown, a name that nobody knows here' in line['found']
        assert 'correct its --ext_ip_addr, or add unknown to DNS' in line['advice']
