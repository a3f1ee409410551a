"""`SharedJobCluster` before it has met a scheduler: parameters, names, what all clusters have."""

import inspect
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import dispy_nb as dispy
from dispy_nb.cluster import Cluster
from nodeserver.core.errors import UnknownParameter, UsageError
from nodeserver.io import schedulercall
from tests.support.certificates import needs_openssl, self_signed
from tests.support.programs import eventually, free_port

DOCUMENTED = {
    'computation': inspect.Parameter.empty,
    'nodes': ['*'],
    'depends': [],
    'ip_addr': None,
    'port': 51347,
    'scheduler_node': None,
    'scheduler_port': None,
    'ext_ip_addr': None,
    'dest_path': None,
    'loglevel': dispy.logger.WARNING,
    'cleanup': True,
    'reentrant': False,
    'exclusive': False,
    'secret': '',
    'keyfile': None,
    'certfile': None,
}


def double(number: int) -> int:
    return 2 * number


@contextmanager
def alone(**options: Any) -> Iterator[dispy.SharedJobCluster]:
    """Make a cluster whose scheduler is not there."""
    place = {'ip_addr': '127.0.0.1', 'port': 0, 'scheduler_port': free_port()}
    cluster = dispy.SharedJobCluster(double, **{**place, **options})
    try:
        yield cluster
    finally:
        cluster.close(timeout=0, terminate=True)


@pytest.mark.row('B01', 'B10', 'B15')
def test_the_signature_is_the_documented_one_and_further_names_come_after_it() -> None:
    parameters = inspect.signature(dispy.SharedJobCluster).parameters
    first = list(parameters)[: len(DOCUMENTED)]
    assert {name: parameters[name].default for name in first} == DOCUMENTED
    assert first == list(DOCUMENTED)
    others = list(parameters.values())[len(DOCUMENTED) :]
    assert all(each.kind is each.KEYWORD_ONLY for each in others)
    assert {'callback', 'cluster_status', 'setup'} <= {each.name for each in others}
    assert 'pulse_interval' not in parameters


def test_it_has_every_method_of_the_other_kind() -> None:
    assert issubclass(dispy.SharedJobCluster, Cluster)
    assert issubclass(dispy.JobCluster, Cluster)
    own = {name for name in vars(dispy.SharedJobCluster) if not name.startswith('_')}
    assert own == {'set_node_cpus', 'uses_only'}
    assert not {name for name in vars(dispy.JobCluster) if not name.startswith('_')}


@pytest.mark.parametrize(
    ('options', 'kind', 'words'),
    [
        ({'pulse_interval': 5}, UnknownParameter, 'it is an option of dispyscheduler'),
        ({'ipv4_udp_multicast': True}, UnknownParameter, 'it is an option of dispyscheduler'),
        ({'scheduler': 'x'}, UnknownParameter, 'there is no parameter scheduler'),
        ({'exclusive': 'yes'}, UsageError, "exclusive must be True or False, not 'yes'"),
        ({'scheduler_port': 70000}, UsageError, 'scheduler_port must be a number from 0 to 65535'),
        ({'scheduler_node': ' '}, UsageError, "scheduler_node: host ' ' is unknown"),
        ({'port': -1}, UsageError, 'port must be a number from 0 to 65535, not -1'),
    ],
)
def test_wrong_arguments_raise_at_the_call(
    options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        dispy.SharedJobCluster(double, **options)


def test_the_older_name_of_the_scheduler_is_understood(
    own_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with alone(scheduler_host='127.0.0.1') as cluster:
        assert 'scheduler_host is called scheduler_node here' in caplog.text
        assert cluster._runtime.place.host == '127.0.0.1'  # type: ignore[attr-defined]


def test_without_a_scheduler_there_are_no_nodes_and_it_is_said_why(own_home: Path) -> None:
    with alone() as cluster:
        eventually(lambda: 'connection refused' in cluster.explain())
        listed = cluster._runtime.list_nodes()
        assert (listed.rows, listed.places) == ((), {})
        assert 'connection refused' in listed.words
        assert repr(cluster) == '<SharedJobCluster double: 0 jobs, 0 pending>'


@needs_openssl
@pytest.mark.parametrize(
    ('kind', 'says'),
    [
        ('own key', b''),
        ('own key', b'SSH-2.0-OpenSSH_9.6\r\n'),
        ('insecure', b''),
        ('certificate', b''),
    ],
)
def test_another_program_that_accepts_connections_there_is_soon_told_of(
    own_home: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    says: bytes,
) -> None:
    assert schedulercall.SILENT_AFTER + schedulercall.LOOK_INTERVAL <= 6.0
    monkeypatch.setattr(schedulercall, 'SILENT_AFTER', 0.2)
    monkeypatch.setattr(schedulercall, 'LOOK_INTERVAL', 0.1)
    pair = str(self_signed(own_home / 'pair.pem')) if kind == 'certificate' else None
    options = {'certfile': pair, 'insecure': kind == 'insecure'}
    with socket.create_server(('127.0.0.1', 0)) as server:
        accepted: list[socket.socket] = []

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    accepted.append(connection)
                    connection.sendall(says)

        thread = threading.Thread(target=serve)
        thread.start()
        port = server.getsockname()[1]
        try:
            with alone(scheduler_node='127.0.0.1', scheduler_port=port, **options) as cluster:
                words = f'at 127.0.0.1, port {port}'
                eventually(lambda: words in caplog.text, message=cluster.explain)
                assert 'no dispyscheduler answers' in caplog.text
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in accepted:
                connection.close()


def test_clusters_of_one_scheduler_share_a_way_to_it(own_home: Path) -> None:
    port = free_port()
    with (
        alone(scheduler_port=port) as one,
        alone(scheduler_port=port) as two,
        alone() as other,
    ):
        assert one._runtime is two._runtime
        assert one._runtime is not other._runtime
        with pytest.raises(UsageError, match=r'ip_addr=.*: open clusters of this program use'):
            dispy.SharedJobCluster(double, scheduler_port=port, ip_addr='127.0.0.2')


def test_own_nodes_of_the_program_are_not_the_schedulers(own_home: Path) -> None:
    with dispy.start_nodes(1, cpus=1), alone() as cluster:
        assert [each.host for each in cluster._options.allocations] == ['*']
        assert cluster.uses_only(set()) is False
