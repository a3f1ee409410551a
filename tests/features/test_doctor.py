"""`dispy doctor`: each broken set-up, really made, has its line, its advice and its exit status."""

import copy
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.support.doctor import Examined, all_examined, examined, share_key
from tests.support.machines import Machine, machines
from tests.support.netns import Lan, TwoLans
from tests.support.programs import all_entered, at_once

pytestmark = [pytest.mark.netns(nat=True), pytest.mark.slow]

FIREWALL = 'table inet t {{ chain i {{ type filter hook input priority 0; {}; }}; }}'
PORT = 51348
STRANGER = """
import socket, sys
server = socket.create_server(('', int(sys.argv[1])))
print('ready', flush=True)
while True:
    peer, _ = server.accept()
    peer.sendall(b'SSH-2.0-OpenSSH_9.2\\r\\n')
    peer.close()
"""


ELSEWHERE = itertools.count(40000)  # ports at which a broadcast finds nobody


def named(machine: Machine, host: str, *words: object) -> Examined:
    """Examine one host, which a broadcast does not find as well."""
    return examined(*alone(machine, host, *words))


def alone(machine: Machine, host: str, *words: object) -> tuple[Machine, str, *tuple[object, ...]]:
    """What examines one host, which a broadcast does not find as well."""
    return (machine, f'{host}:{PORT}', '--node_port', next(ELSEWHERE), *words)


# two machines that work


HOLDER = """
import sys, time
import dispy_nb as dispy

def compute(gate):
    import pathlib, time
    while not pathlib.Path(gate).exists():
        time.sleep(0.02)
    return 'undisturbed'

with dispy.JobCluster(compute, [sys.argv[1]]) as cluster:
    job = cluster.submit(sys.argv[2])
    while job.status != dispy.DispyJob.Running:
        time.sleep(0.01)
    print('holds', flush=True)
    print(job(), job.attempts, flush=True)
"""


@pytest.mark.row('Z07')
def test_a_sound_network_has_no_problem_and_a_busy_node_answers_undisturbed() -> None:
    with Lan(3) as lan, machines(*lan) as (client, free, busy), ExitStack() as stack:
        _, node = all_entered(stack, free.node(), busy.node('-c', 1))
        script, gate = client.home / 'holder.py', client.home / 'gate'
        script.write_text(HOLDER)
        words = (sys.executable, script, busy.ip, gate)
        holder = stack.enter_context(client.program(*words, ready='holds'))
        found, other = all_examined(
            (client, busy.ip, f'[{busy.host.ip6}]:{PORT}'),
            (busy, f'{client.ip}:51347', '--node_port', next(ELSEWHERE)),
        )
        assert (found.status, found.problems()) == (0, []), found.text
        assert found.one(f'[{busy.host.ip6}]', 'way back to TCP')['level'] == 'ok'
        for place in (free, busy):
            checks = [each['check'] for each in found.at(place.ip)]
            assert checks[:6] == [
                f'UDP port {PORT}',
                f'TCP port {PORT}',
                *('key', 'versions', 'clock', 'disk'),
            ]
            assert found.one(place.ip, 'clock')['found'] == 'as here'
            seen = found.one(place.ip, 'address')['found']
            assert seen == f'it sees this machine at {client.ip}'
            assert found.one(place.ip, 'way back to TCP')['level'] == 'ok'
        assert 'held by nobody' in found.one(free.ip, 'standing')['found']
        standing = found.one(busy.ip, 'standing')['found']
        assert '1 cpu, 1 in use' in standing
        assert 'held by ' in standing and 'holder.py' in standing
        assert found.one('the local network', 'broadcast')['found'].startswith('2 nodes')
        assert 'in use by' in found.one('this machine', 'TCP port 51347')['found']
        waits = f'{client.ip} port 51347'  # for nodes with --scheduler_node
        assert (other.status, other.problems()) == (0, []), other.text
        assert 'a program waits there for nodes' in other.one(waits, 'key')['found']
        gate.touch()
        holder.wait_for_log('undisturbed 1')
        assert holder.wait() == 0
        for program in (holder, node):  # nobody was a stranger to them
            assert 'another key' not in program.log() and 'gone' not in program.log()


# the way there


@pytest.mark.row('Z07')
def test_what_a_firewall_drops_is_told_apart_from_nobody_being_there() -> None:
    hosts = ('udp', 'tcp', 'both', 'rejecting', 'silent', 'empty', 'stranger')
    with Lan(len(hosts) + 1) as lan, ExitStack() as stack:
        client, *others = stack.enter_context(machines(*lan, same_key=False))
        share_key(client, *others)
        place = dict(zip(hosts, others, strict=True))
        rules = {
            'udp': f'udp dport {PORT} drop',
            'tcp': f'tcp dport {PORT} drop',
            'both': f'meta l4proto {{ tcp, udp }} th dport {PORT} drop',
            'rejecting': f'tcp dport {PORT} reject with tcp reset',
        }
        for name, rule in rules.items():
            place[name].host.filter_rules(FIREWALL.format(rule))
        all_entered(
            stack,
            place['stranger'].program(sys.executable, '-c', STRANGER, PORT, ready='ready'),
            *(place[name].node('-c', 1) for name in rules),
        )
        place['silent'].host.cut()
        wanted = {
            'tcp': (70, f'TCP port {PORT}', 'a firewall drops TCP', f'ufw allow {PORT}/tcp'),
            'udp': (0, f'UDP port {PORT}', 'a firewall drops UDP. It is found where', 'ufw allow'),
            'both': (70, 'UDP and TCP', 'is there, and a firewall drops both', 'firewall-cmd'),
            'rejecting': (70, f'TCP port {PORT}', 'a firewall rejects TCP', 'nft insert rule'),
            'silent': (69, 'machine', 'no machine answers for this address', 'switched on'),
            'empty': (69, 'dispynode', f'nobody listens at port {PORT}', 'start `dispynode` there'),
            'stranger': (71, f'TCP port {PORT}', "it says 'SSH-2.0-OpenSSH_9.2'", 'HOST:PORT'),
        }

        def check(name: str) -> None:
            status, check, said, advice = wanted[name]
            found = named(client, place[name].ip)
            line = found.one(place[name].ip, check)
            assert line['level'] == ('problem' if status else 'warning'), found.text
            assert said in line['found']
            assert advice in line['advice']
            assert (found.status, found.problems()) == (status, [line] if status else [])
            if not status:  # by TCP alone it is found where it is named
                assert found.one(place[name].ip, 'key')['found'] == 'the same as here'

        at_once(check, *wanted)


@pytest.mark.row('Z07')
def test_a_node_that_hangs_and_a_name_that_nobody_knows() -> None:
    with Lan(2) as lan, machines(*lan) as (client, machine), ExitStack() as stack:
        node = stack.enter_context(machine.node('-c', 1))
        node.signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            found, unknown = all_examined(
                alone(client, machine.ip, '--timeout', 1.5),
                alone(client, 'no-such-host.invalid'),
            )
            seconds = time.monotonic() - began
        finally:
            node.signal(signal.SIGCONT)
        problem = found.one(machine.ip, f'TCP port {PORT}')
        assert (found.status, found.problems()) == (69, [problem])
        assert 'takes connections and says nothing: the program there hangs' in problem['found']
        assert 'look at its log, start it anew' in problem['advice']
        assert (
            seconds < 3 * 1.5 + 0.5 + 5
        )  # the program's own limit, and its start on a busy machine
        problem = unknown.one('no-such-host.invalid', 'name')
        assert (unknown.status, unknown.problems()) == (68, [problem])
        assert problem['found'] == 'no such host is known'
        assert 'add no-such-host.invalid to DNS or /etc/hosts' in problem['advice']


@pytest.mark.row('Z07')
def test_a_gateway_between_is_told_and_so_is_a_way_back_that_is_closed() -> None:
    with TwoLans(1, 1, nat=True) as net, ExitStack() as stack:
        client, node = stack.enter_context(machines(net.left[0], net.right[0]))
        stack.enter_context(node.node('-c', 1))
        found, strict = all_examined(
            alone(client, node.ip), alone(client, node.ip, '--strict', '--port', next(ELSEWHERE))
        )
        assert (found.status, found.problems()) == (0, []), found.text
        address = found.one(node.ip, 'address')['found']
        assert 'there is a gateway (NAT) between' in address and client.ip not in address
        back = found.one(node.ip, 'way back to TCP')
        assert back['level'] == 'warning'
        assert 'the node cannot connect to this machine' in back['found']
        assert 'forward the port at the gateway' in back['advice']
        assert found.one(node.ip, 'way back to UDP')['level'] == 'warning'
        # of the warnings, that of this machine's name is the most severe
        assert strict.status == 68


@pytest.mark.row('Z07')
def test_this_machines_own_firewall_is_found_by_its_rules_and_by_what_does_not_come_back() -> None:
    with Lan(3) as lan, machines(*lan) as (client, other, closed), ExitStack() as stack:
        all_entered(stack, *(each.node('-c', 1) for each in (client, other, closed)))
        dropped = f'iif != lo udp dport {PORT} drop; tcp dport 51347 drop; udp dport 51347 drop'
        client.host.filter_rules(FIREWALL.format(dropped))
        # all that comes in is dropped but what is listed, and our port of nodes is not
        drop_all = 'table inet t { chain i { type filter hook input priority 0; policy drop; '
        closed.host.filter_rules(drop_all + 'iif lo accept; ct state established accept; }; }')
        found, of_closed = all_examined((client,), (closed,))
        assert found.status == 70
        rules = [each for each in found.bad('this machine') if each['check'] == 'firewall rules']
        assert [each['level'] for each in rules] == ['warning'] * 2
        assert rules[0]['found'] == 'TCP port 51347: drop in chain i of table inet t'
        echo = found.one('this machine', f'broadcast to UDP port {PORT}')
        assert echo['level'] == 'problem'
        assert 'a firewall of this machine drops it' in echo['found']
        assert f'ufw allow {PORT}/udp' in echo['advice']
        for kind in ('TCP', 'UDP'):
            back = found.one(other.ip, f'way back to {kind} port 51347')
            assert back['level'] == 'warning'
            assert f'ufw allow 51347/{kind.lower()}' in back['advice']
        rules = [
            each for each in of_closed.bad('this machine') if each['check'] == 'firewall rules'
        ]
        assert {each['found'] for each in rules if each['level'] == 'problem'} == {
            f'{kind} port {PORT}: drop in chain i of table inet t' for kind in ('TCP', 'UDP')
        }
        assert of_closed.status == 70


# keys


@pytest.mark.row('Z07')
def test_each_way_in_which_keys_do_not_fit_is_told() -> None:
    secret = 'a passphrase of the tests'
    with Lan(6) as lan, ExitStack() as stack:
        hosts = stack.enter_context(machines(*lan, same_key=False))
        client, fresh, other, insecure, shared, onlooker = hosts
        client.dispy('key', 'export')
        all_entered(
            stack,
            other.node('-c', 1),
            insecure.node('-c', 1, '--insecure'),
            shared.node('-c', 1, env={'DISPY_SECRET': secret}),
        )
        file = client.home / 'secret'
        file.write_text(secret + '\n')
        file.chmod(0o600)
        cases = [
            (client, other, (), 77, 'it has another key', '`dispy key export`'),
            (client, insecure, (), 77, 'it runs insecure, without a key', 'leave --insecure'),
            (client, other, ('--insecure',), 77, 'it asks for a key', 'leave --insecure'),
            (fresh, other, (), 77, 'and this machine has none yet', '`dispy key import ...`'),
            (client, shared, (), 77, 'it has another key', 'use the same secret on both'),
            (client, shared, ('--secret_file', file), 0, 'the same as here', ''),
            (client, insecure, ('--insecure',), 0, 'insecure on both sides', ''),
        ]

        def check(case: tuple[Machine, Machine, tuple[object, ...], int, str, str]) -> None:
            machine, node, words, status, said, advice = case
            found = named(machine, node.ip, *words)
            key = found.one(node.ip, 'key')
            assert (found.status, said in key['found'], advice in key['advice']) == (
                *(status, True, True),
            ), found.text
            assert found.problems() == ([key] if status else [])
            assert not [each for each in found.at(node.ip) if each['check'] == 'disk' and status]
            assert secret not in found.text and 'dnk1-' not in found.text

        def look_around() -> None:  # "other key" is said to each address once a second
            found = examined(onlooker)  # somebody else's, perhaps, but there is no other
            key = found.one('the local network', 'key')
            assert (found.status, key['level']) == (77, 'problem')
            assert all(node.ip in key['found'] for node in (other, insecure, shared))

        at_once(lambda act: act(), look_around, *(partial(check, case) for case in cases))
        assert not (fresh.home / '.config' / 'dispy-nb' / 'key').exists()


# this machine, and the node's own half


def with_key(machine: Machine) -> Path:
    machine.dispy('key', 'export')
    return machine.home / '.config' / 'dispy-nb' / 'key'


def loosen_key(machine: Machine) -> None:
    with_key(machine).chmod(0o644)


def garble_key(machine: Machine) -> None:
    with_key(machine).write_text('dnk1-abc\n')


def give_key_away(machine: Machine) -> None:
    os.chown(with_key(machine), 12345, -1)


def open_directory(machine: Machine) -> None:
    with_key(machine).parent.chmod(0o777)


def open_runtime_directory(machine: Machine) -> None:
    (machine.home / 'run' / 'dispy-nb-0').mkdir()
    (machine.home / 'run' / 'dispy-nb-0').chmod(0o755)


def shorten_secret(machine: Machine) -> None:
    machine.env['DISPY_SECRET'] = 'short'


def fill_disk(machine: Machine) -> None:
    mount(machine.home / 'tmp', 'size=4m')


def use_up_files(machine: Machine) -> None:
    mount(machine.home / 'tmp', 'nr_inodes=20,size=80m')


def lower_limit(machine: Machine) -> None:
    machine.wrapper += ['sh', '-c', 'ulimit -n 200 && exec "$@"', 'sh']


def mount(place: Path, options: str) -> None:
    subprocess.run(['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', place], check=True)


BROKEN = [
    (loosen_key, '', 78, 'key', 'is open to other users (mode 0644)', 'chmod 600'),
    (garble_key, '', 78, 'key', 'malformed: 3 characters after', 'rm /'),
    (give_key_away, '', 78, 'key', 'belongs to user 12345', 'chown 0'),
    (open_directory, '', 78, 'key', 'can be written by other users (mode 0777)', 'chmod 700'),
    (shorten_secret, '', 78, 'key', 'DISPY_SECRET has 5 characters', 'give 8 or more'),
    (open_runtime_directory, '', 78, 'local sockets', 'is open to other users', 'chmod 700'),
    (fill_disk, '--insecure', 73, 'disk for files', '4.19 MB free in', 'TMPDIR'),
    (use_up_files, '--insecure', 73, 'disk for files', 'more files can be made there', 'df -i'),
    (lower_limit, '--insecure', 72, 'open files', 'at most 200 for a process', 'LimitNOFILE'),
]


@pytest.mark.row('Z07')
def test_what_is_wrong_with_this_machine_has_its_line_and_status() -> None:
    with Lan(2) as lan, ExitStack() as stack:
        host, other = lan
        (sound,) = stack.enter_context(machines(other))
        stack.enter_context(sound.node('-c', 1, '--insecure'))
        root = stack.enter_context(tempfile.TemporaryDirectory(dir='/tmp', prefix='dnb'))
        stack.callback(unmount_all, Path(root))

        def check(number: int) -> None:
            act, option, status, check, said, advice = BROKEN[number]
            machine = Machine(host, Path(root, str(number)))
            act(machine)
            ports = ('--port', next(ELSEWHERE), '--node_port', next(ELSEWHERE))
            found = examined(machine, f'{sound.ip}:{PORT}', *ports, *filter(None, [option]))
            problem = found.one('this machine', check)
            assert said in problem['found'] and advice in problem['advice'], found.text
            assert problem['level'] == 'problem'
            assert (found.status, found.problems('this machine')) == (status, [problem])

        at_once(check, *range(len(BROKEN)))


def unmount_all(root: Path) -> None:
    for place in root.glob('*/tmp'):
        if place.is_mount():
            subprocess.run(['umount', '-l', place], check=True)


@pytest.mark.row('Z07')
def test_who_has_a_port_of_this_machine_and_what_a_node_says_of_its_own() -> None:
    with Lan(2) as lan, machines(*lan) as (client, other), ExitStack() as stack:
        small = other.home / 'small'
        small.mkdir()
        mount(small, 'size=4m')
        stack.callback(subprocess.run, ['umount', '-l', small], check=True)
        stack.enter_context(other.node('-c', 1, '--dest_path_prefix', small / 'files'))
        taker = (sys.executable, '-c', STRANGER)
        stack.enter_context(client.program(*taker, PORT, ready='ready'))
        stack.enter_context(client.program(*taker, 51347, ready='ready'))
        key = other.home / '.config' / 'dispy-nb' / 'key'
        key.chmod(0o604)
        found = examined(client)
        port = found.one('this machine', f'TCP port {PORT} of nodes')
        disk = found.one(other.ip, 'disk')
        assert found.problems() == [port, disk], found.text
        assert found.status == 71
        assert 'in use by' in port['found'] and 'of root)' in port['found']
        assert 'dispynode --node_port PORT' in port['advice']
        clusters = found.one('this machine', 'TCP port 51347 of clusters')
        assert clusters['level'] == 'warning' and 'JobCluster(f, port=PORT)' in clusters['advice']
        assert '4.19 MB free in' in disk['found'] and str(small / 'files') in disk['found']
        assert '--dest_path_prefix' in disk['advice']
        own = found.one(other.ip, 'its key')
        assert own['level'] == 'warning'
        assert f'{key} is open to other users (mode 0604)' in own['found']
        key.chmod(0o600)
        other.trust(Machine(other.host, other.home / 'another'))
        own = named(client, other.ip).one(other.ip, 'its key')
        assert 'has been replaced since it was started: start it anew' in own['found']


@pytest.mark.row('Z07')
def test_a_node_whose_tcp_port_was_taken_is_found_and_one_of_another_user_is_known() -> None:
    with Lan(2) as lan, machines(*lan) as (client, other), ExitStack() as stack:
        taker = (sys.executable, '-c', STRANGER, PORT)
        stack.enter_context(other.program(*taker, ready='ready'))
        node = stack.enter_context(other.node('-c', 1))
        port = re.search(r'serving at \*:(\d+)', node.log())
        assert port is not None
        stack.enter_context(client.node('-c', 1))
        # as to a user who may not see the processes of others
        blind = copy.copy(client)
        blind.wrapper = ['unshare', '--pid', '--fork', '--mount-proc']
        found, blinded = all_examined(
            alone(client, other.ip), alone(blind, other.ip, '--node_port', PORT)
        )
        assert (found.status, found.problems()) == (0, []), found.text
        assert found.one(other.ip, f'TCP port {port[1]}')['found'] == 'open'
        for kind in ('TCP', 'UDP'):
            owner = blinded.one('this machine', f'{kind} port {PORT}')
            assert owner['level'] == 'ok'
            assert 'in use by dispynode of another user' in owner['found']
        second = stack.enter_context(other.node('-c', 1, '--name', 'second'))
        assert 'serving' in second.log()
        found = examined(client, other.ip)  # it shares the UDP port, and only one is named by it
        standings = [each['found'] for each in found.at(other.ip) if each['check'] == 'standing']
        assert (found.status, found.problems()) == (0, []), found.text
        assert sorted(text.partition(':')[0] for text in standings) == ['h1', 'second']


# how it is told


@pytest.mark.row('Z07')
def test_people_read_a_line_for_each_check_and_can_end_it_at_any_time() -> None:
    with Lan(2) as lan, machines(*lan) as (client, other), ExitStack() as stack:
        stack.enter_context(other.node('-c', 1))
        done = client.dispy('doctor', other.ip)
        lines = done.stdout.splitlines()
        assert (done.returncode, done.stderr) == (0, '')
        assert lines[0] == 'this machine'
        assert f'{other.ip} port {PORT}' in lines
        assert f'  ok       UDP port {PORT}: answers' in lines
        assert [line for line in lines if line.startswith('  warning  host name: ')]
        assert lines[-1].endswith(' checks: 0 problems, 1 warning')
        for machine in (client, other):
            key = (machine.home / '.config' / 'dispy-nb' / 'key').read_text().strip()
            assert key not in done.stdout and key.removeprefix('dnk1-')[:8] not in done.stdout
        words = (*(sys.executable, '-m', 'dispy_nb', 'doctor'), '10.77.1.99', '--timeout', 20)
        running = stack.enter_context(client.program(*words, ready='this machine'))
        running.signal(signal.SIGINT)
        assert running.wait(10) == 130
        assert 'Traceback' not in running.log()
