"""Values of no meaning, as arguments and as options: refused at once by the name they have."""

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import dispy_nb as dispy
from dispy_nb import DispyJob, NodeAllocate
from nodeserver.core.errors import UsageError
from tests.features.conftest import MakeCluster
from tests.support.programs import free_port

LIMIT = 20.0
NAN, INF = float('nan'), float('inf')


def double(number: int) -> int:
    return 2 * number


class Own(NodeAllocate):
    pass


WRONG: dict[str, list[Any]] = {
    'computation': [None, 3, NAN, b'ls', [double], {}, '', '/no/such/file', '/', 'a\0b', ()],
    'nodes': [
        *(5, NAN, '*', b'*', {}, (), [], {'127.0.0.1': 51348}, object(), int, NodeAllocate),
        *([value] for value in (None, 5, NAN, b'*', {}, (), [], '', ' ', 'a\0b', 'a' * 5000)),
        *([value] for value in (NodeAllocate, Own, object(), 'no such host', 'x..y', '256.1.1.1')),
        *([('127.0.0.1', port)] for port in (0, -1, 65536, 10**400, 1.0, NAN, True, '1', b'1', [])),
        *([('127.0.0.1', 1, cpus)] for cpus in (10**400, 1.0, NAN, True, '1', None, [])),
        [('127.0.0.1', 1, 1, 1)],
        *([(host, 51348)] for host in (None, 5, b'127.0.0.1', '', [], {})),
    ],
    'depends': [5, NAN, 'file', {'a': 1}, object(), int, b'x'],
    'callback': [5, NAN, 'print', b'x', [], {}, ()],
    'cluster_status': [5, NAN, 'print', b'x', [], {}, ()],
    'ip_addr': [
        5,
        NAN,
        b'127.0.0.1',
        {},
        [],
        (),
        [5],
        [b'127.0.0.1'],
        '',
        [''],
        'a\0b',
        'a' * 5000,
    ],
    'ext_ip_addr': [5, NAN, b'127.0.0.1', {'a': 1}, [5], object(), 'a\0b'],
    'port': [-1, 65536, 10**400, 1.0, NAN, INF, True, '1', b'1', [], {}, object()],
    'node_port': [-1, 65536, 10**400, 1.0, NAN, INF, True, '1', b'1', [], {}, object()],
    'recover_file': [5, NAN, b'x', ['a'], {'a': 1}, object(), 'a\0b'],
    'dest_path': [
        5,
        NAN,
        b'x',
        ['a'],
        {'a': 1},
        '/etc',
        '..',
        'a/../b',
        'a\0b',
        object(),
        False,
        'a' * 300,
    ],
    'loglevel': [None, NAN, 1.0, 'DEBUG', b'x', True, -1, 10**400, [], object()],
    'setup': [5, NAN, 'name', b'x', [1], {'a': 1}, object()],
    'cleanup': [None, 0, 1, NAN, 'yes', b'', [], {}],
    'pulse_interval': [0, -1, 0.5, 601, NAN, INF, -INF, 10**400, True, '5', b'5', [], object()],
    'ping_interval': [0, -1, 0.5, 86_401, NAN, INF, 10**400, True, '5', b'5', [], object()],
    'reentrant': [None, 0, 1, NAN, 'yes', b'', [], {}],
    'secret': [None, 5, NAN, b'12345678', [], {}, 'short', ' ' * 3, object(), False],
    'keyfile': [5, NAN, b'x', ['a'], {'a': 1}, object(), 'a\0b'],
    'certfile': [5, NAN, b'x', ['a'], {'a': 1}, object(), 'a\0b'],
    'isolation': [None, 5, NAN, '', 'process', b'job', ['job'], {}, object()],
    'insecure': [None, 0, 1, NAN, 'yes', b'', [], {}],
    'ipv4_udp_multicast': [None, 0, 1, NAN, 'yes', b'', [], {}],
    'name': [5, NAN, b'x', [], {}, object(), 'a\0b', 'two\nlines', 'x' * 1000, ' ', '\ud800'],
    'progress': [0, 1, NAN, 'yes', b'', [], {}, object()],
}


def words_of(name: str) -> tuple[str, ...]:
    """What an error may call a parameter: by its name, or the part of it that is wrong."""
    elements = {'nodes': ('nodes', 'host', 'port', 'cpus'), 'ip_addr': ('ip_addr', 'host')}
    return elements.get(name, (name,))


@pytest.mark.parametrize('name', WRONG)
def test_a_value_of_no_meaning_is_refused_by_the_name_of_its_parameter(name: str) -> None:
    threads = threading.active_count()
    wrong = []
    for value in WRONG[name]:
        options = {'computation': double, 'ip_addr': '127.0.0.1', 'port': 0, name: value}
        try:
            dispy.JobCluster(**options).close(timeout=0, terminate=True)
            wrong.append(f'{value!r:.60} was accepted')
        except (UsageError, TypeError) as error:
            text = str(error)
            if not any(word in text for word in words_of(name)) or len(text) > 1000:
                wrong.append(f'{value!r:.60}: {text:.200}')
        except Exception as error:  # noqa: BLE001 - whatever it is, it is listed
            wrong.append(f'{value!r:.60} raised {error!r:.200}')
    assert wrong == []
    assert threading.active_count() == threads


def test_a_keyword_that_there_is_not_is_refused_by_its_name() -> None:
    with pytest.raises(TypeError, match='node_prot'):
        dispy.JobCluster(double, node_prot=51348)  # type: ignore[call-arg]


NO_NODES: list[Any] = [None, 5, NAN, b'127.0.0.1', '', ' ', [], ['127.0.0.1'], {}, object(), int]
NO_TIMES: list[Any] = ['soon', b'1', NAN, [], {}, object(), True]
NO_JOBS: list[Any] = [None, 5, 'job', [], DispyJob]


def test_values_of_no_meaning_are_refused_by_every_method(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(double)
    calls: list[tuple[Callable[[Any], Any], list[Any], str]] = [
        (lambda value: cluster.submit_node(value, 1), NO_NODES, 'node must be'),
        (cluster.node_jobs, NO_NODES, 'node must be'),
        (cluster.cancel, NO_JOBS, 'is not a job of cluster double'),
        (cluster.explain, NO_JOBS[1:], 'is not a job of cluster double'),
        (cluster.wait, NO_TIMES, 'timeout'),
        (cluster.close, NO_TIMES, 'timeout'),
        (lambda value: cluster.close(1, value), [None, 0, 'yes', []], 'terminate must be'),
        (lambda value: cluster.submit(1).wait(value), NO_TIMES, 'timeout'),
        (cluster.print_status, NO_TIMES, 'wall_time'),
    ]
    accepted = []
    for call, values, words in calls:
        for value in values:
            try:
                call(value)
                accepted.append(f'{words}: {value!r} was accepted')
            except (UsageError, TypeError) as error:
                if words not in str(error):
                    accepted.append(f'{words}: {value!r} raised {error!r}')
            except Exception as error:  # noqa: BLE001 - whatever it is, it is listed
                accepted.append(f'{words}: {value!r} raised {error!r}')
    assert accepted == []
    assert cluster.submit(4)() == 8


@pytest.mark.parametrize('value', [INF, 10**400, 1e300], ids=['inf', 'int', 'float'])
def test_a_very_long_time_is_one(make_cluster: MakeCluster, value: float) -> None:
    cluster = make_cluster(double)
    job = cluster.submit(4)
    assert job.wait(value)
    assert cluster.wait(value)
    assert cluster.close(value)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'n': value}, 'n must be')
        for value in (None, 0, -1, 1.0, NAN, True, '1', b'1', [], {}, 10**9)
    ]
    + [
        ({'cpus': value}, 'cpus must be')
        for value in (0, -1, 1.0, NAN, True, '1', b'1', [], {}, 10**9)
    ]
    + [
        ({'secret': value}, 'secret')
        for value in (
            None,
            5,
            b'12345678',
            'short',
            'with\0nul-in-it',
            '\ud800' * 8,
            [],
            'x' * 200_000,
        )
    ],
)
def test_nodes_of_a_program_are_refused_what_has_no_meaning(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises((UsageError, TypeError), match=words) as caught:
        dispy.LocalNodes(**options)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ('options', 'words'),
    [({'host': value}, 'host must be') for value in (None, 5, NAN, b'a', '', ' ', [], {}, 'a\0b')]
    + [
        ({'port': value}, 'port must be')
        for value in (0, -1, 65536, 1.0, NAN, True, '1', b'1', [], 10**400)
    ]
    + [
        ({'cpus': value}, 'cpus must be')
        for value in (None, 1.0, NAN, True, '1', b'1', [], 10**400, -(10**400))
    ],
)
def test_an_allocation_is_refused_what_has_no_meaning(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        NodeAllocate(**{'host': '127.0.0.1', **options})


# options of dispynode


def run_node(*options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, '-m', 'nodeserver.cli.dispynode', *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)


OPTIONS: list[tuple[tuple[str, ...], str, int]] = [
    (('-c', 'many'), 'many', 2),
    (('-c', '1.5'), '1.5', 2),
    (('-c', '100000'), '--cpus 100000', 2),
    (('-c', '-100000'), '--cpus -100000', 2),
    (('-c', '9' * 5000), '--cpus', 2),
    (('-p', '65536'), '65536', 2),
    (('-p', '-1'), '-1', 2),
    (('-p', 'http'), 'http', 2),
    (('-p', ''), "''", 2),
    (('-i', 'no such host'), 'no such host', 2),
    (('-i', '192.0.2.1'), '192.0.2.1', 2),
    (('-i', 'x' * 5000), 'host of 5000 characters', 2),
    (('--dest_path_prefix', '/dev/null'), '/dev/null', 2),
    (('--dest_path_prefix', '/proc/nowhere'), '/proc/nowhere', 2),
    (('--dest_path_prefix', 'x' * 5000), '--dest_path_prefix', 2),
    (('-s', 'short'), '5 characters', 2),
    (('--secret_file', '/no/such/file'), '/no/such/file', 78),
    (('--secret_file', '/etc/passwd'), '/etc/passwd', 78),
    (('--secret_file', '/'), '/ cannot be read', 78),
    (('--secret', 'a secret of mine', '--insecure'), 'insecure', 2),
    (('--log_level', 'loud'), 'loud', 2),
    (('--log_format', 'xml'), 'xml', 2),
    (('--owner_fd', 'x'), 'x', 2),
    (('--owner_fd', '999'), '--owner_fd', 2),
    (('--ready_fd', '999'), '--ready_fd', 2),
    (('--no_such_option',), '--no_such_option', 2),
    (('stray',), 'stray', 2),
    (('--cpu', '1'), '--cpu', 2),
]


@pytest.mark.parametrize(('options', 'words', 'status'), OPTIONS)
def test_dispynode_says_in_one_line_what_is_wrong_with_an_option(
    options: tuple[str, ...], words: str, status: int
) -> None:
    ended = run_node('-i', '127.0.0.1', '-p', free_port(), *options)
    lines = [line for line in ended.stderr.splitlines() if 'WARNING' not in line]
    assert ended.returncode == status, ended.stderr
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith('dispynode')
    assert words in lines[0]
