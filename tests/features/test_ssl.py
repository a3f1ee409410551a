"""SSL as the documents describe it: certfile and keyfile at client and nodes (section 1.12)."""

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

import dispy_nb as dispy
from tests.support.capture import Capture
from tests.support.certificates import in_two_files, needs_openssl, self_signed
from tests.support.machines import machines
from tests.support.netns import Lan
from tests.support.programs import Program, eventually, free_port, node_program

HERE = '127.0.0.2'

pytestmark = [needs_openssl]


def double(number: int) -> int:
    return number * 2


def cluster_of(port: int, **options: str | None) -> dispy.JobCluster:
    place = {'ip_addr': '127.0.0.1', 'port': 0, 'node_port': port}
    return dispy.JobCluster(double, [HERE], **place, **options)  # type: ignore[arg-type]


def start_node(stack: ExitStack, port: int, *options: object) -> Program:
    return stack.enter_context(node_program('-i', HERE, '-p', port, *options))


@pytest.mark.row('K04', 'L19')
def test_one_file_with_certificate_and_key_at_both_sides_runs_jobs_over_tls(
    tmp_path: Path,
) -> None:
    port, pair = free_port(), str(self_signed(tmp_path / 'pair.pem'))
    with ExitStack() as stack:
        node = start_node(stack, port, '--certfile', pair)
        node.wait_for_log('all connections use SSL; the certificate is of CN=cluster, until')
        with cluster_of(port, certfile=pair) as cluster:
            assert cluster.map([1, 2, 3]) == [2, 4, 6]


@pytest.mark.row('K05', 'L19')
def test_certificate_and_key_in_files_of_their_own_do_the_same(tmp_path: Path) -> None:
    certfile, keyfile = in_two_files(self_signed(tmp_path / 'pair.pem'))
    port = free_port()
    with ExitStack() as stack:
        start_node(stack, port, '--certfile', certfile, '--keyfile', keyfile)
        with cluster_of(port, certfile=certfile, keyfile=keyfile) as cluster:
            assert cluster.map([1, 2, 3]) == [2, 4, 6]


@pytest.mark.row('K04')
def test_a_node_that_connects_by_itself_does_so_over_tls(tmp_path: Path) -> None:
    pair, port = str(self_signed(tmp_path / 'pair.pem')), free_port()
    other = str(self_signed(tmp_path / 'other.pem'))
    with (
        dispy.JobCluster(double, ['*'], ip_addr='127.0.0.1', port=port, certfile=pair) as cluster,
        ExitStack() as stack,
    ):
        dials = ('--scheduler_node', '127.0.0.1', '--scheduler_port', port)
        start_node(stack, free_port(), '--certfile', other, *dials)
        eventually(lambda: '127.0.0.1: it has another certificate' in cluster.explain())
        start_node(stack, free_port(), '--certfile', pair, *dials)
        assert cluster.map([1, 2, 3]) == [2, 4, 6]


@pytest.mark.row('K07')
@pytest.mark.slow
def test_who_lacks_the_certificate_or_has_another_exchanges_nothing_and_nobody_stops(
    tmp_path: Path,
) -> None:
    right, wrong = (str(self_signed(tmp_path / f'{name}.pem')) for name in ('right', 'wrong'))
    cases = (
        ((), right, 'it does not use SSL, and this side was given a certificate'),
        (('--certfile', wrong), right, 'it has another certificate'),
        (('--certfile', right), None, 'it uses SSL, and this side was given no certificate'),
    )

    def exchanges_nothing(case: tuple[tuple[str, ...], str | None, str]) -> None:
        given, certfile, words = case
        port = free_port()
        with ExitStack() as stack:
            node = start_node(stack, port, *given)
            cluster = stack.enter_context(cluster_of(port, certfile=certfile))
            job = cluster.submit(1)
            eventually(lambda: words in cluster.explain())
            assert not job.wait(1)
            assert node.process.poll() is None
            cluster.close(timeout=0, terminate=True)
            certificate = given[1] if given else None
            with cluster_of(port, certfile=certificate) as good:  # both go on
                assert good.submit(4)() == 8

    for case in cases:
        exchanges_nothing(case)


@pytest.mark.row('K07')
def test_the_certificate_alone_does_not_do_without_the_secret(tmp_path: Path) -> None:
    pair, port = str(self_signed(tmp_path / 'pair.pem')), free_port()
    with ExitStack() as stack:
        start_node(stack, port, '--certfile', pair)
        cluster = stack.enter_context(
            cluster_of(port, certfile=pair, secret='another passphrase of the tests')
        )
        job = cluster.submit(1)
        eventually(lambda: 'uses another key' in cluster.explain())
        assert not job.wait(0.5)
        cluster.close(timeout=0, terminate=True)


def test_clusters_with_different_certificates_live_side_by_side(tmp_path: Path) -> None:
    pair, port, other_port = str(self_signed(tmp_path / 'pair.pem')), free_port(), free_port()
    with ExitStack() as stack:
        start_node(stack, port, '--certfile', pair)
        start_node(stack, other_port)
        one = stack.enter_context(cluster_of(port, certfile=pair))
        other = stack.enter_context(cluster_of(other_port))
        assert one.submit(1)() == 2
        assert other.submit(2)() == 4


def test_a_certificate_that_ends_soon_is_warned_of_on_both_sides(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair, port = str(self_signed(tmp_path / 'pair.pem', days=12)), free_port()
    words = f'the certificate in {pair} expires in 11 days, on '
    with ExitStack() as stack:
        node = start_node(stack, port, '--certfile', pair)
        node.wait_for_log(f'WARNING {words}')
        for _ in range(2):  # also of a cluster that is made later
            caplog.clear()
            cluster = stack.enter_context(cluster_of(port, certfile=pair))
            eventually(lambda: words in caplog.text)
            assert cluster.submit(1)() == 2


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'certfile': 'no such file'}, 'no such file cannot be read'),
        ({'keyfile': 'key.pem'}, 'is the key of a certfile, which is missing'),
        ({'certfile': 'x', 'insecure': True}, 'certfile and insecure contradict each other'),
    ],
)
def test_both_sides_refuse_what_cannot_work_at_the_start(
    options: dict[str, object], words: str
) -> None:
    with pytest.raises(dispy.DispyError, match=words):
        dispy.JobCluster(double, ip_addr='127.0.0.1', port=0, **options)  # type: ignore[arg-type]
    given = [
        f'--{name}' if value is True else f'--{name}={value}' for name, value in options.items()
    ]
    with Program(
        [sys.executable, '-m', 'nodeserver.cli.dispynode', '-i', HERE, '-p', '0', *given]
    ) as node:
        assert node.wait() in (2, 78)
        assert words in node.errors()
        assert len(node.log().splitlines()) == 1


# on machines of their own

WORK = """
import dispy_nb as dispy

def compute(data):
    import pathlib
    pathlib.Path('back').write_bytes(pathlib.Path('sent').read_bytes()[::-1])
    dispy_send_file('back')
    return data[::-1]

with open('sent', 'wb') as file:
    file.write({content!r})
with dispy.JobCluster(compute, [{address!r}], depends=['sent'], {options}) as cluster:
    print(len(cluster.submit({argument!r})()))
"""
ARGUMENT = b'plain bytes of an argument 0123456789'
CONTENT = b'plain bytes of a file 0123456789'
TRAVELS = (ARGUMENT, ARGUMENT[::-1], CONTENT, CONTENT[::-1], b'read_bytes')


@pytest.mark.row('K06')
@pytest.mark.netns
@pytest.mark.slow
def test_neither_arguments_results_files_nor_code_can_be_read_in_captured_traffic(
    tmp_path: Path,
) -> None:
    pair = str(self_signed(tmp_path / 'pair.pem'))
    traffic = captured(f'certfile={pair!r}', '--certfile', pair)
    assert [data for data in TRAVELS if data in traffic] == []
    assert b'\x16\x03\x01' in traffic  # it was TLS
    # the same look finds them where nothing is encrypted, so it looks at the right place
    open_traffic = captured('insecure=True', '--insecure')
    assert [data for data in TRAVELS if data not in open_traffic] == []


def captured(client_options: str, *node_options: str) -> bytes:
    """Run a job on another host, and answer all that came and went there."""
    with Lan(2) as lan, machines(*lan) as (a, b), ExitStack() as stack:
        seen = stack.enter_context(Capture(lan[1]))
        stack.enter_context(b.node(*node_options))
        done = a.client(
            WORK.format(address=b.ip, options=client_options, argument=ARGUMENT, content=CONTENT)
        )
        assert done.stdout == f'{len(ARGUMENT)}\n'
        return b''.join(seen.frames())


OPENSSL = (  # as the documents have it, and for the variant that they mention
    'openssl req -x509 -newkey rsa:2048 -keyout {key} -nodes -out {cert} -sha256 -days 1000'
)
CLIENT = """
import os
import dispy_nb as dispy

def compute(n):
    return n + 1

os.chdir({directory!r})
with dispy.JobCluster(compute, {options}) as cluster:
    print(cluster.submit(41)())
"""


@pytest.mark.row('U10')
@pytest.mark.netns
@pytest.mark.slow
@pytest.mark.parametrize(
    ('key', 'cert', 'at_node', 'at_client'),
    [
        (
            *('sskeycert.pem', 'sskeycert.pem'),
            *('dispynode.py --certfile sskeycert.pem', "certfile='sskeycert.pem'"),
        ),
        (
            *('sskey', 'sscert'),
            *(
                'dispynode.py --certfile sscert --keyfile sskey',
                "certfile='sscert', keyfile='sskey'",
            ),
        ),
    ],
    ids=['one file', 'two files'],
)
def test_the_commands_of_the_documents_complete_a_job(
    tmp_path: Path, key: str, cert: str, at_node: str, at_client: str
) -> None:
    with Lan(2) as lan, machines(*lan) as (a, b), ExitStack() as stack:
        questions = '\n' * 7  # country, state, ...: their defaults will do
        made = a.host.run(
            ['sh', '-c', OPENSSL.format(key=key, cert=cert)], cwd=tmp_path, input=questions
        )
        assert made.returncode == 0
        stack.enter_context(b.program('sh', '-c', _in(tmp_path, at_node), ready='serving'))
        done = a.client(CLIENT.format(directory=str(tmp_path), options=at_client))
    assert done.stdout == '42\n'
    assert done.stderr == ''


def _in(directory: Path, command: str) -> str:
    """Have a shell run a command as if the package's programs were installed, in a directory."""
    return f'cd {directory} && PATH={Path(sys.executable).parent}:$PATH exec {command}'
