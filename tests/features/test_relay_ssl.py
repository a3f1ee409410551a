"""dispynetrelay with certificates: nothing of what it carries can be read there (M10, K04, K06)."""

import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

import dispy_nb as dispy
from nodeserver.core.knocking import RELAY_PORT
from tests.features.test_relay import RELAY, client, relay_on, running
from tests.features.test_ssl import ARGUMENT, CONTENT, TRAVELS, WORK
from tests.support.capture import Capture
from tests.support.certificates import needs_openssl, self_signed
from tests.support.machines import machines
from tests.support.netns import TwoLans
from tests.support.programs import eventually, free_port, program

HERE = '127.0.0.1'

pytestmark = [needs_openssl, pytest.mark.slow]


@pytest.mark.netns(nat=True)
@pytest.mark.row('M10', 'K04', 'K06')
def test_nothing_can_be_read_where_a_relay_behind_a_gateway_carries_connections(
    tmp_path: Path,
) -> None:
    """A stand-in for a cluster behind a gateway: a NAT that forwards TCP 51346 to the relay."""
    pair = str(self_signed(tmp_path / 'pair.pem'))
    traffic = carried(f'certfile={pair!r}', '--certfile', pair)
    assert [data for data in TRAVELS if data in traffic] == []
    assert b'\x16\x03\x01' in traffic  # it was TLS
    # the same look finds them where nothing is encrypted, so it looks at the right place
    open_traffic = carried('insecure=True', '--insecure')
    assert [data for data in TRAVELS if data not in open_traffic] == []


def carried(client_options: str, *options: object) -> bytes:
    """Run a job on a node behind a gateway; all that came to the relay's machine, and left it."""
    with (
        TwoLans(2, 1, nat=True) as net,
        machines(net.right[0], *net.left) as (c, a, b),
        ExitStack() as stack,
    ):
        net.forward_port('tcp', RELAY_PORT, a.host)
        seen = stack.enter_context(Capture(a.host))
        stack.enter_context(relay_on(a, '--forward', *options))
        stack.enter_context(b.node('-c', 1, *options))
        nodes = f"'10.77.1.*', ({net.router_ip['right']!r}, {RELAY_PORT})"
        work = WORK.replace('[{address!r}]', f'[{nodes}]')
        done = c.client(work.format(options=client_options, argument=ARGUMENT, content=CONTENT))
        assert done.stdout == f'{len(ARGUMENT)}\n'
        return b''.join(seen.frames())


def with_pair(source: str, pair: Path) -> str:
    """Give the cluster of a script a certificate."""
    return source.replace('reentrant=', f'certfile={str(pair)!r}, reentrant=')


@pytest.mark.netns(nat=True)
@pytest.mark.row('J05', 'M10', 'K04')
def test_a_relay_with_a_certificate_tells_of_nodes_that_have_it_and_connects_to_programs(
    tmp_path: Path,
) -> None:
    pair = self_signed(tmp_path / 'pair.pem')
    with TwoLans(1, 2) as net, machines(net.left[0], *net.right) as (c, a, b), ExitStack() as stack:
        options = ['--certfile', pair]
        relay = stack.enter_context(relay_on(a, *options, '--scheduler_node', c.ip))
        relay.wait_for_log('all connections use SSL; the certificate is of CN=cluster, until')
        for machine in (a, b):
            stack.enter_context(machine.node('-c', 1, *options))
        more = 'print(cluster.explain())'
        named = c.client(with_pair(client([a.ip, '10.77.2.*'], 2, more), pair)).stdout
        assert named.startswith(str([a.ip, b.ip]))
        called = c.client(with_pair(client(['*'], 2, more), pair)).stdout
        assert called.startswith(str([a.ip, b.ip]))
        relay.wait_for_log(f'connected to the program at {c.ip}:51347')
        assert 'told of 2 nodes' in called


@pytest.mark.netns(nat=True)
@pytest.mark.row('M10')
def test_a_relay_with_a_certificate_that_is_killed_and_started_anew_costs_no_job(
    tmp_path: Path,
) -> None:
    pair = self_signed(tmp_path / 'pair.pem')
    more = "jobs = [cluster.submit(2) for _ in range(6)]; print('submitted', flush=True)\n"
    more += "    print('done', len([job() for job in jobs]), {job.status.name for job in jobs})"
    with TwoLans(1, 2) as net, machines(net.left[0], *net.right) as (c, a, b), ExitStack() as stack:
        options = ['--certfile', pair]
        relay = stack.enter_context(relay_on(a, '--forward', *options))
        for machine in (a, b):
            stack.enter_context(machine.node('-c', 2, *options))
        source = with_pair(client([a.ip, '10.77.2.*'], 2, more), pair)
        ran = stack.enter_context(running(c, source, tmp_path))
        ran.wait_for_log('submitted')
        relay.kill()
        ran.wait_for_log('was lost')
        again = stack.enter_context(relay_on(a, '--forward', *options))
        again.wait_for_log(f'the program at {c.ip} is told of nodes')
        assert "done 6 {'FINISHED'}" in ran.wait_for_log('done', 30)
        assert ran.wait() == 0
        again.signal(signal.SIGTERM)
        assert again.wait() == 128 + signal.SIGTERM


@pytest.mark.row('M10', 'K07')
@pytest.mark.parametrize('forward', [(), ('--forward',)], ids=['tells', 'carries'])
def test_a_relay_and_a_program_of_which_one_has_a_certificate_both_say_so(
    forward: tuple[str, ...], own_home: Path, tmp_path: Path
) -> None:
    pair, other = (str(self_signed(tmp_path / f'{name}.pem')) for name in ('pair', 'other'))
    no_ssl = 'it does not use SSL, and this side was given a certificate'
    at_door = 'a program that uses SSL tried to connect, and this relay was given no certificate'
    cases: list[tuple[tuple[str, ...], str | None, str, str]] = [
        ((), pair, no_ssl, at_door),
        (('--certfile', pair), None, 'it uses SSL, and this side was given no certificate', no_ssl),
        (('--certfile', other), pair, 'it has another certificate', 'it has another certificate'),
    ]
    for given, certfile, told, logged in cases:
        port = free_port()
        with program(*RELAY, *forward, '--relay_port', port, *given, ready='serving') as relay:
            place = {'ip_addr': HERE, 'port': 0}
            with dispy.JobCluster(abs, [(HERE, port)], certfile=certfile, **place) as cluster:  # type: ignore[arg-type]
                eventually(lambda: f'relay {HERE}: {told}' in cluster.explain())  # noqa: B023
                relay.wait_for_log(logged)


@pytest.mark.row('M10')
def test_a_relay_that_connects_to_a_program_unlike_it_is_refused_in_words(
    own_home: Path, tmp_path: Path
) -> None:
    pair = str(self_signed(tmp_path / 'pair.pem'))
    for given, certfile, told in (
        (['--certfile', pair], None, 'it does not use SSL, and this side was given a certificate'),
        ([], pair, 'it has another key, or none, or uses SSL'),
    ):
        port = free_port()
        with dispy.JobCluster(abs, ['*'], ip_addr=HERE, port=port, certfile=certfile) as cluster:
            call = ('--scheduler_node', HERE, '--scheduler_port', port, '--relay_port', free_port())
            with program(*RELAY, *call, *given, ready='serving') as relay:
                relay.wait_for_log(f'the program at {HERE}:{port} cannot be told of nodes: {told}')
                if certfile:
                    eventually(lambda: f'{HERE}: it does not use SSL' in cluster.explain())


@pytest.mark.parametrize('options', [('--keyfile', 'x'), ('--certfile', 'x', '--insecure')])
def test_a_relay_refuses_certificates_that_cannot_work_at_the_start(
    options: tuple[str, ...], own_home: Path
) -> None:
    with program(*RELAY, *options) as wrong:
        assert wrong.wait() == 2
        assert 'certfile' in wrong.errors()
        assert len(wrong.log().splitlines()) <= 1


def test_a_relay_wipes_out_the_variable_that_its_secret_was_given_in(own_home: Path) -> None:
    secret, port = 'a passphrase that nobody repeats', free_port()
    env = {'DISPY_SECRET': secret}
    with program(*RELAY, '--relay_port', port, '-d', env=env, ready='serving') as relay:
        assert secret.encode() not in Path(f'/proc/{relay.pid}/environ').read_bytes()
        place = {'ip_addr': HERE, 'port': 0, 'secret': secret}
        with dispy.JobCluster(abs, [(HERE, port)], **place) as cluster:  # type: ignore[arg-type]
            eventually(lambda: 'has found no node on its network yet' in cluster.explain())
        assert secret not in relay.log()
