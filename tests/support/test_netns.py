"""Hosts in network namespaces behave as machines do, and leave this one alone."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.support import netns
from tests.support.netns import Host, Lan, TwoLans
from tests.support.programs import eventually

pytestmark = [pytest.mark.netns, pytest.mark.slow]
PORT = 9700
Udp = Callable[..., socket.socket]


@pytest.fixture
def keep() -> Iterator[ExitStack]:
    """Close at the end whatever was entered."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def udp(keep: ExitStack) -> Udp:
    """Make UDP sockets on a host, closed at the end."""

    def make(host: Host, bind: str = '', port: int = PORT) -> socket.socket:
        def bound() -> socket.socket:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.bind((bind, port))
            return sock

        return keep.enter_context(host.call(bound))

    return make


def heard(sockets: list[socket.socket], wait: float = 0.5) -> dict[int, str]:
    """Answer the indexes of the sockets that hear something, with the sender's address."""
    found: dict[int, str] = {}
    end = time.monotonic() + wait
    while len(found) < len(sockets):
        ready = select.select(sockets, [], [], max(0.0, end - time.monotonic()))[0]
        if not ready:
            break
        found |= {sockets.index(sock): sock.recvfrom(2000)[1][0] for sock in ready}
    return found


def reaches(a: Host, b: Host, ip: str = '', timeout: float = 2) -> str:
    """Connect from a to b, and answer as whom b sees a."""
    with (
        b.call(socket.create_server, ('', PORT)) as server,
        a.call(socket.create_connection, (ip or b.ip, PORT), timeout),
    ):
        connection, (peer, _) = server.accept()
        connection.close()
    return peer


def cannot_reach(a: Host, b: Host) -> bool:
    with pytest.raises(OSError, match=r'timed out|unreachable|No route'):
        reaches(a, b, timeout=0.5)
    return True


def machine() -> list[str]:
    commands = (['-br', 'link'], ['-o', '-br', 'addr'], ['route'], ['-6', 'route'])
    return [
        subprocess.run(['ip', *words], capture_output=True, text=True).stdout for words in commands
    ]


def test_the_machine_itself_is_never_touched():
    before = machine()
    with TwoLans(2, 1) as net:
        assert machine() == before
        net.left[0].cut()
        net.left[0].heal()
    assert machine() == before
    assert not [name for name in netns._present() if f'.{os.getpid()}.' in name]


def test_namespaces_of_others_are_refused():
    with pytest.raises(netns.Refused):
        netns._ip('somebody', ['link set eth0 down'])
    with pytest.raises(netns.Refused):
        netns._add_namespaces(['somebody'])
    with Lan(1) as lan, pytest.raises(netns.Refused):
        lan[0].sysctl('kernel.hostname', 'x')


@pytest.mark.parametrize('target', ['255.255.255.255', '10.77.1.255'])
def test_a_broadcast_reaches_all_of_the_lan(udp, target):
    with Lan(3) as lan:
        listeners = [udp(host) for host in lan[1:]]
        # no default route: the limited broadcast needs a bound source address
        udp(lan[0], lan[0].ip, 0).sendto(b'x', (target, PORT))
        assert heard(listeners) == {0: lan[0].ip, 1: lan[0].ip}


def test_hosts_have_names_and_abstract_sockets_of_their_own(keep):
    with Lan(2) as lan:
        assert [host.run(['hostname']).stdout.strip() for host in lan] == ['h0', 'h1']
        for host in lan:
            keep.enter_context(host.call(socket.socket, socket.AF_UNIX)).bind('\0same-name')


def test_a_router_passes_connections_and_no_broadcast(udp):
    with TwoLans(2, 2) as net:
        listeners = [udp(net.left[1]), udp(net.right[0]), udp(net.right[1])]
        udp(net.left[0], net.left[0].ip, 0).sendto(b'x', ('255.255.255.255', PORT))
        assert set(heard(listeners)) == {0}
        assert reaches(net.left[0], net.right[1]) == net.left[0].ip
        net.router.cut()
        assert cannot_reach(net.left[0], net.right[1])
        net.router.heal()
        assert reaches(net.right[0], net.left[1]) == net.right[0].ip


@pytest.mark.netns(nat=True)
def test_behind_a_nat_one_is_seen_as_the_router_and_reached_by_a_forwarded_port():
    with TwoLans(1, 1, nat=True) as net:
        inner, outer = net.left[0], net.right[0]
        assert reaches(inner, outer) == '10.77.2.1'
        assert cannot_reach(outer, inner)
        net.forward_port('tcp', PORT, inner)
        assert reaches(outer, inner, '10.77.2.1') == outer.ip


@pytest.mark.parametrize('carrier', [True, False])
def test_a_cut_is_silence_and_healing_lets_tcp_go_on(keep, carrier):
    with Lan(2) as lan:
        a, b = lan
        server = keep.enter_context(b.call(socket.create_server, ('', PORT)))
        near = keep.enter_context(a.call(socket.create_connection, (b.ip, PORT), 2))
        far = keep.enter_context(server.accept()[0])
        far.settimeout(5)
        b.cut(carrier=carrier)
        near.send(b'late')
        assert not select.select([far, near], [], [], 0.5)[0]
        b.heal()
        assert far.recv(9) == b'late'


def test_a_partition_separates_groups():
    with Lan(4) as lan:
        a, b, c, d = lan
        lan.partition([a, b], [c, d])
        assert reaches(a, b)
        assert reaches(c, d)
        assert cannot_reach(a, c)
        lan.heal()
        assert reaches(a, c)


def test_a_shaped_host_is_late():
    with Lan(2) as lan:
        a, b = lan
        b.shape(delay=0.05)
        began = time.monotonic()
        assert reaches(a, b)
        assert 0.09 < time.monotonic() - began < 1.5
        b.shape()
        assert reaches(a, b)


def test_a_host_freezes_thaws_and_crashes():
    code = 'import time\nwhile 1: print("x", flush=True); time.sleep(.02)'
    with Lan(1) as lan:
        process = lan[0].popen([sys.executable, '-c', code], stdout=subprocess.PIPE)
        with process.stdout as output:
            assert output.readline() == b'x\n'
            assert 'python' in str(Path(f'/proc/{process.pid}/exe').readlink())  # not a wrapper
            lan[0].freeze()
            eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
            lan[0].thaw()
            eventually(lambda: psutil.Process(process.pid).status() != psutil.STATUS_STOPPED)
            lan[0].crash()
            assert process.returncode == -signal.SIGKILL


def test_a_crash_takes_daemons_along():
    with Lan(1) as lan:
        started = lan[0].run(['sh', '-c', 'setsid sleep 60 >/dev/null 2>&1 & echo $!'])
        daemon = psutil.Process(int(started.stdout))
        lan[0].crash()
        eventually(lambda: not daemon.is_running() or daemon.status() == psutil.STATUS_ZOMBIE)


def test_what_a_killed_run_left_is_swept_away():
    code = (
        'import os; from tests.support import netns\n'
        'netns.Lan(2).__enter__(); print("up", flush=True); os.kill(os.getpid(), 9)'
    )
    root = Path(netns.__file__).parents[2]
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=root)
    assert done.stdout == 'up\n'
    assert len(netns.sweep()) >= 3
