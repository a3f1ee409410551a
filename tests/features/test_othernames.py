"""Programs written for other versions of dispy: their names for parameters, methods and modules."""

import inspect
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

import dispy_nb as dispy
from dispy_nb import config, othernames
from nodeserver.core.errors import UnknownParameter, UsageError
from tests.features.conftest import MakeCluster, Pair
from tests.support.programs import client_program, eventually, free_port, node_program

LIMIT = 15.0
PLACE = {'nodes': ['127.0.0.2'], 'ip_addr': '127.0.0.1', 'port': 0}


def double(number):
    return 2 * number


def tell(number):
    return dispy_provisional_result(number, relay=True, timeout=5)  # noqa: F821


def where():
    return dispy_node_name  # noqa: F821 - every job finds it


def hold(gate):
    from pathlib import Path

    deadline = time.monotonic() + 30  # noqa: F821 - every job finds it
    while not Path(gate).exists() and time.monotonic() < deadline:  # noqa: F821
        time.sleep(0.005)  # noqa: F821
    return gate


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


# names of parameters


def test_the_other_names_mean_the_documented_ones_and_are_told_once_each(
    make_cluster: MakeCluster, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[Any] = []
    told: list[Any] = []
    with dispy.JobCluster(
        double,
        nodes=list(pair.addresses),
        job_status=lambda job: ended.append((job.id, job.status, job.result)),
        cluster_status=lambda *change: told.append(change),
        host='127.0.0.1',
        ext_host=None,
        client_port=0,
        node_port=pair.port,
        poll_interval=5,
        fault_recover=False,
    ) as cluster:
        assert cluster.submit(4)() == 8
        assert cluster.wait(LIMIT)
    assert ended == [(1, dispy.DispyJob.Finished, 8)]
    assert told
    assert warnings_of(caplog) == [
        'JobCluster: job_status is called callback here',
        'JobCluster: host is called ip_addr here',
        'JobCluster: ext_host is called ext_ip_addr here',
        'JobCluster: client_port is called port here',
        'JobCluster: poll_interval has no effect: results come even where nodes cannot reach the '
        'client',
        'JobCluster: fault_recover has no effect as False: leave it out',
    ]


def test_one_dispy_port_gives_the_client_that_port_and_nodes_the_next(
    own_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    with (
        node_program('-i', '127.0.0.4', '-p', port + 1, '-c', 1, '--name', 'next'),
        dispy.JobCluster(
            where, nodes=['127.0.0.4'], ip_addr='127.0.0.1', dispy_port=port
        ) as cluster,
    ):
        assert cluster.submit()() == 'next'
        with pytest.raises(UsageError, match=f'open clusters of this program use port={port}'):
            dispy.JobCluster(where, nodes=['127.0.0.4'], ip_addr='127.0.0.1', port=port + 2)
    words = f'dispy_port={port} is written port={port}, node_port={port + 1} here'
    assert f'JobCluster: {words}' in warnings_of(caplog)


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({'calback': print}, UnknownParameter, 'no parameter calback: did you mean callback'),
    ({'hosts': '127.0.0.1'}, TypeError, 'no parameter hosts: did you mean host'),
    ({'host': '127.0.0.1', 'ip_addr': '127.0.0.1'}, UsageError, 'host and ip_addr both give'),
    ({'client_port': 0, 'port': 0}, UsageError, 'client_port and port both give port'),
    ({'client_port': 0, 'dispy_port': 9700}, UsageError, 'dispy_port and client_port both give'),
    ({'dispy_port': 9700, 'node_port': 9}, UsageError, 'dispy_port and node_port both give'),
    ({'job_status': print, 'callback': print}, UsageError, 'job_status and callback both'),
    ({'dispy_port': 65535}, UsageError, 'dispy_port must be a number from 1 to 65534 or None'),
    ({'dispy_port': 0}, UsageError, 'dispy_port must be a number from 1 to 65534 or None'),
    ({'dispy_port': '9700'}, UsageError, "dispy_port must be .*, not '9700'"),
    ({'host': 4}, UsageError, 'ip_addr must be a string or a list of strings, not 4'),
    ({'poll_interval': 'often'}, UsageError, "poll_interval must be .*, not 'often'"),
    ({'fault_recover': 3}, UsageError, 'fault_recover must be a path, True or False, not 3'),
    ({'ipv4_udp_multicast': 1}, UsageError, 'ipv4_udp_multicast must be True or False, not 1'),
    ({'scheduler_host': 'x'}, UsageError, 'scheduler_host is of SharedJobCluster'),
    ({'scheduler_node': 'x'}, UsageError, 'scheduler_node is of SharedJobCluster'),
    ({'exclusive': True}, UsageError, 'exclusive is of SharedJobCluster'),
    ({'ext_host': 4}, UsageError, 'ext_ip_addr must be a string or a list of strings, not 4'),
    (
        {'fault_recover': 'a', 'recover_file': 'b'},
        UsageError,
        'fault_recover and recover_file both',
    ),
]


@pytest.mark.parametrize(('given', 'kind', 'words'), REFUSED)
def test_what_other_names_cannot_mean_is_refused_at_once(
    given: dict[str, Any], kind: type[Exception], words: str
) -> None:
    threads = threading.active_count()
    with pytest.raises(UsageError, match=words) as caught:
        dispy.JobCluster(double, ['127.0.0.2'], **given)
    assert isinstance(caught.value, kind)
    assert threading.active_count() == threads


def test_a_parameter_given_by_position_is_not_given_again_under_another_name() -> None:
    position = list(inspect.signature(dispy.JobCluster).parameters).index('callback')
    assert position == 3
    with pytest.raises(UsageError, match='job_status and callback both give callback'):
        dispy.JobCluster(double, ['127.0.0.2'], [], print, job_status=print)


def test_every_other_name_is_among_those_tried() -> None:
    tried = {name for given, _, _ in REFUSED for name in given}
    known = {*othernames._NEW_NAMES, *othernames._MEANINGS}
    assert known <= tried
    assert not known & set(inspect.signature(dispy.JobCluster).parameters)


def test_every_other_name_and_what_it_comes_to_stands_in_the_manual() -> None:
    manual = Path(__file__).resolve().parents[2].joinpath('docs', 'from-dispy.md').read_text()
    for name in (*othernames._MEANINGS, *othernames._OF_SHARED_CLUSTERS):
        assert f'`{name}' in manual, name
    for name, new in othernames._NEW_NAMES.items():
        assert f'| `{name}` | `{new}` |' in manual


async def later(job):
    """Would never run."""


CALLBACKS: list[tuple[str, Any, str]] = [
    ('callback', later, 'must be an ordinary function, not a coroutine'),
    ('callback', lambda: 0, r'callback is called as callback\(job\), which .*too many'),
    ('callback', lambda job, more: 0, r"does not take: missing a required argument: 'more'"),
    ('callback', lambda job, *, more: 0, r"does not take: missing a required argument: 'more'"),
    ('cluster_status', type, ''),
    ('cluster_status', lambda status: 0, r'called as cluster_status\(status, node, job\), which'),
    ('cluster_status', lambda a, b, c, d: 0, r"missing a required argument: 'd'"),
]


@pytest.mark.parametrize(('name', 'function', 'words'), CALLBACKS)
def test_a_callback_that_cannot_take_its_arguments_is_refused_at_once(
    name: str, function: Any, words: str
) -> None:
    if words:
        with pytest.raises(UsageError, match=words) as caught:
            dispy.JobCluster(double, **PLACE, **{name: function})
        assert str(caught.value).startswith(name)
    else:  # written in C, and says nothing of its parameters
        dispy.JobCluster(double, **PLACE, **{name: function}).close()


class Listener:
    """Has methods that are callbacks."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def job(self, job: Any, more: int = 0) -> None:
        self.heard.append(job.result)

    def any(self, *changes: Any) -> None:
        self.heard.append(len(changes))


def test_methods_and_further_parameters_with_defaults_are_fine(make_cluster: MakeCluster) -> None:
    listener = Listener()
    cluster = make_cluster(double, callback=listener.job, cluster_status=listener.any)
    cluster.submit(2)
    assert cluster.wait(LIMIT)
    assert 4 in listener.heard
    assert set(listener.heard) == {3, 4}


def test_an_element_of_nodes_may_be_a_dictionary_a_list_or_another_clusters_node(
    make_cluster: MakeCluster, pair: Pair
) -> None:
    first = make_cluster(where, nodes=[{'host': '127.0.0.2', 'port': pair.port, 'cpus': 1}])
    job = first.submit()
    assert job() == 'alpha'
    assert make_cluster(where, nodes=[job.node]).submit()() == 'alpha'
    assert make_cluster(where, nodes=[['127.0.0.3', pair.port]]).submit()() == 'beta'


@pytest.mark.parametrize(
    ('element', 'words'),
    [
        ({'port': 51348}, 'that is a dict has the keys host, port, cpus.*: host is missing'),
        ({'host': 'alpha', 'cpu': 1}, "has the keys host, port, cpus.*: 'cpu' is none"),
        ({'host': 'alpha', 'cpus': '1'}, 'cpus must be'),
    ],
)
def test_a_dictionary_that_is_no_node_is_refused(element: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        dispy.JobCluster(double, nodes=[element])


# methods


def test_an_id_is_set_before_anybody_is_told_of_the_job(make_cluster: MakeCluster) -> None:
    told: list[tuple[Any, str]] = []

    def note(status: int, node: Any, job: Any) -> None:
        if job is not None:
            told.append((job.id, status))

    cluster = make_cluster(where, cluster_status=note)
    chosen = cluster.submit_job_id(('mine', 1))
    assert cluster.wait(LIMIT)
    assert {told_id for told_id, _ in told} == {('mine', 1)}
    assert told[0] == (('mine', 1), dispy.DispyJob.Created)
    assert chosen.id == ('mine', 1)
    pinned = [cluster.submit_job_id_node(name, '127.0.0.3') for name in 'abc']
    assert [job() for job in pinned] == ['beta'] * 3
    assert [job.id for job in pinned] == ['a', 'b', 'c']
    assert cluster.submit().id == 5  # as many as were submitted


def test_an_id_may_be_none_and_arguments_reach_the_function(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(double)
    job = cluster.submit_job_id(None, number=4)
    assert (job(), job.id) == (8, None)
    assert cluster.submit_job_id_node('x', 'alpha', 5)() == 10
    with pytest.raises(UsageError, match='node must be'):
        cluster.submit_job_id_node('x', 5, 5)


def test_status_tells_the_nodes_and_how_many_jobs_are_pending(
    make_cluster: MakeCluster, own_home: Path
) -> None:
    gate = own_home / 'gate'
    cluster = make_cluster(hold)
    cluster.wait_for_nodes(2, LIMIT)
    jobs = [cluster.submit(str(gate)) for _ in range(5)]
    status = cluster.status()
    assert isinstance(status, dispy.ClusterStatus)
    nodes, pending = status
    assert (status.nodes, status.jobs_pending) == (nodes, pending)
    assert pending == 5
    assert sorted(node.name for node in nodes) == ['alpha', 'beta']
    assert all(isinstance(node, dispy.DispyNode) for node in nodes)
    gate.touch()
    assert [job() for job in jobs] == [str(gate)] * 5
    assert cluster.status().jobs_pending == 0


def test_shutdown_closes_the_cluster_and_another_can_be_made(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(double)
    job = cluster.submit(3)
    cluster.shutdown()
    assert job.status == dispy.DispyJob.Finished
    with pytest.raises(dispy.ClusterClosed):
        cluster.submit(3)
    cluster.shutdown()  # twice is fine
    assert make_cluster(double).submit(3)() == 6


def test_finish_is_an_event_that_is_set_at_the_end(
    make_cluster: MakeCluster, own_home: Path
) -> None:
    gate = own_home / 'gate'
    job = make_cluster(hold).submit(str(gate))
    event = job.finish
    assert not event.is_set()
    assert not event.wait(0.01)
    gate.touch()
    assert event.wait(LIMIT)
    assert event.is_set()
    assert event.isSet()
    assert job(clear=True) == str(gate)
    event.clear()
    assert job() == str(gate)  # nobody waits for an end that has been


def test_the_numbers_of_statuses_are_those_of_dispy() -> None:
    job = dispy.DispyJob
    names = ['Created', 'Running', 'ProvisionalResult', 'Cancelled', 'Terminated', 'Abandoned']
    assert [getattr(job, name) for name in names] == [5, 6, 7, 8, 9, 10]
    assert job.Finished == 11
    node = dispy.DispyNode
    assert (node.Initialized, node.Closed, node.AvailInfo) == (4, 16, 17)


def test_further_parameters_of_dispy_are_accepted(make_cluster: MakeCluster) -> None:
    results: list[Any] = []
    cluster = make_cluster(tell, job_status=lambda job: results.append(job.result))
    job = cluster.submit(5)
    assert cluster.wait(LIMIT)
    assert results == [5, 0]
    assert cluster.node_jobs(job.node, from_node=True) == []


def test_a_node_counts_the_bytes_of_arguments_and_outcomes(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(double, nodes=['127.0.0.2'])
    (node,) = cluster.wait_for_nodes(1, LIMIT)
    assert (node.tx, node.rx) == (0, 0)
    cluster.submit('x' * 10_000)()
    eventually(lambda: node.rx)
    assert 10_000 < node.tx < 11_000
    assert 20_000 < node.rx < 21_000


# modules

UNDER_DISPY = """
import sys
import dispy_nb
sys.modules['dispy'] = dispy_nb

import dispy
import dispy.config
import dispy.httpd
from dispy import ClusterStatus, DispyJob, JobCluster, NodeAllocate, logger
from dispy.config import MsgTimeout
from dispy.httpd import DispyHTTPServer

assert dispy is dispy_nb
assert dispy.config is dispy_nb.config is sys.modules['dispy_nb.config']
assert dispy.config.__spec__.name == 'dispy_nb.config'
assert DispyHTTPServer is sys.modules['dispy_nb.httpd'].DispyHTTPServer
assert dispy.__version__ == dispy._dispy_version and dispy.__version__[0].isdigit()
config = dispy.config
assert (config.DispyPort, config.ClientPort, config.NodePort) == (51347, 51347, 51348)
assert (config.SharedSchedulerPort, config.HTTPServerPort) == (51349, 8181)
assert (MsgTimeout, config.MaxFileSize) == (5, 10485760)
logger.setLevel(logger.ERROR)
try:
    DispyHTTPServer(None)
except dispy.NotYetSupported as error:
    assert 'DispyHTTPServer' in str(error)
else:
    raise AssertionError('it said nothing')
try:
    import dispy.dispynode
except ModuleNotFoundError as error:
    assert 'dispy.dispynode' in str(error)

def compute(n):
    return n * n

config.NodePort = {port}
with JobCluster(compute, nodes=['127.0.0.5'], ip_addr='127.0.0.1', port=0) as cluster:
    print(cluster.submit(7)())
"""


def test_the_package_answers_to_the_name_of_dispy() -> None:
    port = free_port()
    with node_program('-i', '127.0.0.5', '-p', port, '-c', 1):
        done = client_program(UNDER_DISPY.replace('{port}', str(port)))
    assert done.stdout == '49\n'
    assert done.stderr == ''


def test_another_package_called_dispy_is_left_alone() -> None:
    source = """
        import pathlib, sys
        package = pathlib.Path('dispy')
        package.mkdir()
        (package / '__init__.py').write_text('')
        (package / 'config.py').write_text('whose = "theirs"')
        import dispy_nb
        import dispy.config
        assert dispy.config.whose == 'theirs'
        assert not hasattr(dispy_nb.config, 'whose')
    """
    client_program('\n'.join(line.strip() for line in source.splitlines()))


def test_ports_set_in_config_are_those_of_later_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    def ports(**given: Any) -> dict[str, Any]:
        known, _ = othernames.translated(given, (), ('computation', 'port', 'node_port'))
        return known

    assert ports() == {}
    monkeypatch.setattr(config, 'DispyPort', 9700)
    assert ports() == {'port': 9700, 'node_port': 9701}
    assert ports(port=0) == {'port': 0, 'node_port': 9701}
    assert ports(dispy_port=5) == {'port': 5, 'node_port': 6}
    monkeypatch.setattr(config, 'NodePort', 4)
    assert ports() == {'port': 9700, 'node_port': 4}
    monkeypatch.setattr(config, 'ClientPort', 3)
    assert ports() == {'port': 3, 'node_port': 4}
    monkeypatch.setattr(config, 'ClientPort', '3')
    with pytest.raises(UsageError, match=r"dispy.config.ClientPort must be a port .*, not '3'"):
        dispy.JobCluster(double)


def test_what_is_set_in_config_without_effect_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(config, 'MsgTimeout', 20)
    dispy.JobCluster(double, **PLACE).close()
    assert warnings_of(caplog) == [
        'JobCluster: dispy.config.MsgTimeout has no effect in a program: '
        'it is an option of dispynode'
    ]


# names in jobs


def log_and_look(text):
    dispynode_logger.debug('not shown')  # noqa: F821
    dispynode_logger.info('%s at %s', text, dispy_node_name)  # noqa: F821
    dispynode_logger.error('wrong')  # noqa: F821
    return os.getpid(), sys.version_info[:2], time.time() > 0  # noqa: F821


@pytest.mark.parametrize('isolation', ['job', 'worker'])
def test_jobs_find_a_logger_and_three_modules_without_importing_them(
    make_cluster: MakeCluster, isolation: str
) -> None:
    import re
    import sys

    cluster = make_cluster(log_and_look, isolation=isolation, nodes=['127.0.0.2'])
    jobs = [cluster.submit(f'job {number}') for number in range(3)]
    for number, job in enumerate(jobs):
        assert job()[1:] == (sys.version_info[:2], True)
        lines = [line.partition(' ')[2].partition(' ')[2] for line in job.stderr.splitlines()]
        assert lines == [
            f'INFO dispynode job {number} at alpha',
            'ERROR dispynode wrong',
        ]
        assert re.match(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d', job.stderr)


dispy_job_path = 'a global of the program'


def use_own_names():
    import math as os

    return dispy_job_path, os.__name__


def test_a_users_own_name_goes_before_those_that_jobs_find(make_cluster: MakeCluster) -> None:
    assert make_cluster(use_own_names).submit()() == ('a global of the program', 'math')
