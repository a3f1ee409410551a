"""Several network hosts inside one machine, for tests.  Standard library only.

Every host is a network namespace.  Hosts hang on a bridge that lives in a
'switch' namespace of its own, so no interface, address, route or firewall
rule of the machine itself is ever made or changed.  Each veth pair is born
inside namespaces of this module (``ip -n SWITCH link add … peer … netns HOST``).

    @pytest.mark.netns                           # or netns(nat=True); skips where it must
    def test_this():
        with Lan(3) as lan: ...

    with Lan(3) as lan:                         # 10.77.1.10-12, fd77:1::10-12
        a, b, c = lan
        p = a.popen([sys.executable, 'server.py'])
        out = b.run([sys.executable, 'client.py', a.ip]).stdout
        sock = c.call(make_socket)              # made in c, usable from here
        a.cut(); a.heal()                       # silent loss of the network
        lan.partition([a], [b, c]); lan.heal()

    with TwoLans(2, 2, nat=True) as net:        # left is behind the NAT
        net.forward_port('tcp', 9700, net.left[0])

Needs root and iproute2's ``ip``; ``nat=True`` and ``filter_rules`` also need
``nft``; delay and loss need neither netem nor any other kernel module.
"""

import array
import atexit
import ctypes
import fcntl
import os
import random
import re
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

PREFIX = 'dnbt'  # names: dnbt.<pid>.<serial>.<host>
_MOUNT_NAMES = 'for f in *; do mount --bind "$f" "/etc/$f" || exit; done;'
_CLONE_NEWNET = 0x40000000
_NETNS_DIR = '/run/netns'
_libc = ctypes.CDLL(None, use_errno=True)
_made = {}  # name -> inode of a namespace made here
_home = None  # inode of the machine's own namespace
_serial = 0
_lock = threading.Lock()
_owner = os.getpid()


class Refused(RuntimeError):  # noqa: N818 - reads as a sentence where it is raised
    """The helper would have left the namespaces that it made itself."""


def available(nat=False):
    """Why hosts cannot be made here, or '' when they can."""
    if not sys.platform.startswith('linux'):
        return 'network namespaces need Linux'
    if os.geteuid() != 0:
        return 'network namespaces need root'
    for tool in ('ip', 'unshare') + (('nft',) if nat else ()):
        if shutil.which(tool) is None:
            return f'no {tool!r} command (iproute2, util-linux, nftables)'
    with _lock:
        key = bool(nat)
        if key not in _verdicts:
            _verdicts[key] = _probe(nat)
        return _verdicts[key]


_verdicts = {}


def _probe(nat):
    """Try it once: containers often have root but not CAP_NET_ADMIN."""
    name = f'{PREFIX}.{os.getpid()}.probe'
    try:
        _add_namespaces([name])
    except (OSError, RuntimeError) as exc:
        return f'cannot make a network namespace: {exc}'
    try:
        _ip(
            name,
            [
                'link add p0 type veth peer name p1',
                'link add br0 type bridge',
                'link set p0 master br0',
            ],
        )
        if nat:
            _nft(
                name,
                'table ip t { chain c { type nat hook postrouting priority 100; '
                'oifname "p0" masquerade; }; }',
            )
    except RuntimeError as exc:
        return f'kernel lacks veth, bridge or nat: {exc}'
    finally:
        _del_namespaces([name])
    return ''


# -- the only four doors to the system ---------------------------------------


def _add_namespaces(names):
    global _home
    if _home is None:
        _home = Path('/proc/self/ns/net').stat().st_ino
        atexit.register(_sweep_own)
    for name in names:
        if not name.startswith(PREFIX + '.') or Path(_NETNS_DIR, name).exists():
            raise Refused(f'not a fresh name: {name}')
    try:
        _exec(['ip', '-batch', '-'], ''.join(f'netns add {name}\n' for name in names))
    except RuntimeError:
        for name in names:  # those that came before the failure
            if Path(_NETNS_DIR, name).exists():
                subprocess.run(['ip', 'netns', 'del', name], capture_output=True)
        raise
    for name in names:
        inode = Path(_NETNS_DIR, name).stat().st_ino
        if inode == _home:
            raise Refused(f'{name} is the namespace of the machine itself')
        _made[name] = inode
    for name in names:
        devices = _inside(name, socket.if_nameindex)
        if any(dev not in _KERNEL_MADE for _, dev in devices):
            raise Refused(f'{name} is not empty: {devices}')


# The kernel itself puts these (down) in each new namespace on some builds.
_KERNEL_MADE = frozenset(
    [
        'lo',
        'tunl0',
        'gre0',
        'gretap0',
        'erspan0',
        'sit0',
        'ip6tnl0',
        'ip6gre0',
        'ip_vti0',
        'ip6_vti0',
        'ifb0',
        'ifb1',
        'dummy0',
        'teql0',
    ]
)


def _ip(name, lines):
    """Run lines of `ip` inside a namespace of ours, never anywhere else."""
    _check(name)
    _exec(['ip', '-n', name, '-batch', '-'], '\n'.join(lines) + '\n')


def _nft(name, text):
    _check(name)
    _exec(['ip', 'netns', 'exec', name, 'nft', '-f', '-'], text)


def _inside(name, func, *args, **kwargs):
    """Call func in a fresh thread that has entered the namespace."""
    _check(name)
    box = []

    def body():
        try:
            fd = os.open(Path(_NETNS_DIR, name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(fd, _CLONE_NEWNET):
                    err = ctypes.get_errno()
                    raise OSError(err, 'setns: ' + os.strerror(err))
            finally:
                os.close(fd)
            box.append((True, func(*args, **kwargs)))
        except BaseException as exc:  # noqa: BLE001 - raised again in the calling thread
            box.append((False, exc))

    thread = threading.Thread(target=body, name='in-' + name, daemon=True)
    thread.start()
    thread.join()
    good, value = box[0]
    if not good:
        raise value
    return value


def _check(name):
    inode = _made.get(name)
    if inode is None:
        raise Refused(f'{name!r} was not made here')
    if Path(_NETNS_DIR, name).stat().st_ino != inode or inode == _home:
        raise Refused(f'{name!r} is no longer the namespace that was made here')


def _exec(cmd, text=None):
    done = subprocess.run(cmd, input=text, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError('{}: {}'.format(' '.join(cmd), (done.stderr or done.stdout).strip()))
    return done.stdout


def _del_namespaces(names):
    names = [name for name in names if name in _made]
    for name in names:
        _kill_inside(name)
        del _made[name]
    if names:
        subprocess.run(
            ['ip', '-force', '-batch', '-'],
            capture_output=True,
            text=True,
            input=''.join(f'netns del {name}\n' for name in names),
        )


def _kill_inside(name):
    """Kill every process there, grandchildren that lost their parent too."""
    _check(name)
    for pid in subprocess.run(
        ['ip', 'netns', 'pids', name], capture_output=True, text=True
    ).stdout.split():
        try:
            if int(pid) != os.getpid():  # a thread of ours may be inside
                os.kill(int(pid), signal.SIGKILL)
        except (OSError, ValueError):
            pass


def _sweep_own():
    if os.getpid() == _owner:  # not in a forked child
        _del_namespaces(list(_made))


def _present():
    directory = Path(_NETNS_DIR)
    return [entry.name for entry in directory.iterdir()] if directory.is_dir() else []


def sweep():
    """Remove what test runs that were killed have left behind."""
    gone = []
    for name in _present():
        part = name.split('.')
        if part[0] == PREFIX and len(part) > 2 and not Path('/proc', part[1]).exists():
            _made[name] = Path(_NETNS_DIR, name).stat().st_ino
            gone.append(name)
    _del_namespaces(gone)
    return gone


def _names(*labels):
    global _serial
    with _lock:
        _serial += 1
        base = f'{PREFIX}.{os.getpid()}.{_serial}.'
    return [base + label for label in labels]


# -- hosts --------------------------------------------------------------------


class Host:
    """A machine of its own: interfaces, addresses, ports, host name.

    It shares the file system, the process ids, the users and the clock with
    the other hosts.  `ipc://@name` (abstract) sockets are its own.
    """

    ifname = 'eth0'

    def __init__(self, name, label):
        self.name, self.label = name, label
        self.ip = self.ip6 = None
        self.procs = []
        self.plugs = []  # (switch, port): one for each interface
        self._wire = None
        self.names = ''  # a directory whose files programs here see in /etc, if it is given

    def __repr__(self):
        return f'<Host {self.label} {self.ip}>'

    @property
    def ifindex(self):
        return self.call(socket.if_nametoindex, self.ifname)

    @property
    def ll6(self):
        """Link-local IPv6 address, without the %scope."""
        text = _exec(
            ['ip', '-n', self.name, '-6', '-o', 'addr', 'show', 'dev', self.ifname, 'scope', 'link']
        )
        found = re.search(r'inet6 (fe80:[0-9a-f:]+)/', text)
        return found.group(1) if found else None

    def command(self, cmd, own_sys=True):
        """cmd, with what is needed to run it on this host.

        own_sys=False keeps the machine's /sys: its interfaces are then listed
        there, but so are the cgroups, without which slurmd does not start.
        """
        _check(self.name)
        enter = (
            ['ip', 'netns', 'exec', self.name]
            if own_sys
            else ['nsenter', f'--net={_NETNS_DIR}/{self.name}']
        )
        return [
            *enter,
            'unshare',
            '--uts',
            'sh',
            '-c',
            f'{self._mounts()}echo "$0" >/proc/sys/kernel/hostname && exec "$@"',
            self.label,
            *list(cmd),
        ]

    def _mounts(self):
        if not self.names:
            return ''
        # seen by this command alone: `ip netns exec` has made a mount namespace for it
        return f'cd {shlex.quote(self.names)} && {{ {_MOUNT_NAMES} cd "$OLDPWD"; }} && '

    def move(self, address):
        """Give the host another IPv4 address of its network, and take away the one it has."""
        self.sysctl(f'net.ipv4.conf.{self.ifname}.promote_secondaries', 1)  # else both go
        _ip(
            self.name,
            [
                f'addr add {address}/24 broadcast + dev {self.ifname}',
                f'addr del {self.ip}/24 dev {self.ifname}',
            ],
        )
        self.ip = address

    def popen(self, cmd, own_sys=True, **kwargs):
        """A process on this host; .pid is that of cmd itself."""
        proc = subprocess.Popen(self.command(cmd, own_sys), **kwargs)
        self.procs.append(proc)
        return proc

    def run(self, cmd, own_sys=True, timeout=60, check=True, **kwargs):
        kwargs.setdefault('capture_output', True)
        kwargs.setdefault('text', True)
        return subprocess.run(self.command(cmd, own_sys), timeout=timeout, check=check, **kwargs)

    def call(self, func, *args, **kwargs):
        """Call func here; sockets that it makes stay on this host.

        ZeroMQ: make the Context and a first socket inside such a call (its I/O
        thread, which connects, stays where it started), and bind inside one
        too (the calling thread opens the listener).  Sending and receiving
        may then happen anywhere.
        """
        return _inside(self.name, func, *args, **kwargs)

    def sysctl(self, key, value):
        def write():
            with Path('/proc/sys', key.replace('.', '/')).open('w') as f:
                f.write(str(value))

        if not key.startswith('net.'):
            raise Refused(f'only net.* belongs to a namespace: {key}')
        self.call(write)

    def filter_rules(self, text):
        """Load nft rules on this host alone; '' removes them all."""
        _nft(self.name, text or 'flush ruleset')

    # faults

    def cut(self, carrier=True):
        """Take the host off the network; nothing is told to anybody.

        carrier=False also drops the link state, which the host can see.
        """
        for switch, port in self.plugs:
            _ip(
                switch,
                [f'link set {self._edge(port)} nomaster' if carrier else f'link set {port} down'],
            )

    def heal(self):
        for switch, port in self.plugs:
            _ip(switch, [f'link set {port} up', f'link set {self._edge(port)} master br0'])
            _settle([(switch, [self._edge(port)])])

    def _edge(self, port):
        """What hangs on the bridge: the port, or the wire's end before it."""
        return port if self._wire is None else 'w' + port

    def signal(self, sig):
        for proc in self.procs:
            if proc.poll() is None:
                proc.send_signal(sig)

    def freeze(self):
        self.signal(signal.SIGSTOP)

    def thaw(self):
        self.signal(signal.SIGCONT)

    def crash(self):
        """Power off: no FIN, no RST, no last words."""
        self.cut()
        self.kill()

    def kill(self):
        """SIGKILL for every process on this host, daemons too."""
        for proc in self.procs:
            if proc.poll() is None:
                proc.kill()
        if self.name in _made:
            _kill_inside(self.name)
        for proc in self.procs:
            proc.wait()
        self.procs.clear()

    def shape(self, delay=0.0, loss=0.0, jitter=0.0, rate=0):
        """Delay (s, each way), lose (0-1) and throttle (bytes/s) both ways.

        A user-space wire does it (no netem needed): good for delays of 1 ms
        and more and for some ten MB/s.  shape() without values ends it.
        """
        if len(self.plugs) != 1:
            raise ValueError('shape() is for hosts with one interface')
        switch, port = self.plugs[0]
        tail, far = 'w' + port, 'x' + port
        if self._wire is not None:
            self._wire.kill()
            self._wire.wait()
            self._wire.stdout.close()
            self._wire = None
            _ip(switch, ['link del ' + tail, f'link set {port} master br0'])
        if not (delay or loss or jitter or rate):
            return
        _ip(
            switch,
            [
                f'link add {tail} mtu 1500 type veth peer name {far}',
                f'link set {tail} up',
                f'link set {far} up',
                f'link set {port} nomaster',
                f'link set {tail} master br0',
            ],
        )
        # software checksums: a raw socket would carry unfinished ones along
        _inside(switch, _no_offload, tail)
        self.call(_no_offload, self.ifname)
        self._wire = subprocess.Popen(
            [
                'ip',
                'netns',
                'exec',
                switch,
                sys.executable,
                '-S',
                '-E',
                str(Path(__file__).resolve()),
                'wire',
                port,
                far,
                repr(delay),
                repr(jitter),
                repr(loss),
                repr(rate),
            ],
            stdout=subprocess.PIPE,
        )
        if self._wire.stdout.readline() != b'ready\n':
            raise RuntimeError(f'the wire of {self.label} did not start')


def _carrying(ifnames):
    """Whether the interfaces of this namespace carry frames by now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for name in ifnames:
            request = struct.pack('16sH22x', name.encode(), 0)
            flags = struct.unpack_from('H', fcntl.ioctl(s, 0x8913, request), 16)[0]
            if not flags & 0x40:  # SIOCGIFFLAGS, IFF_RUNNING
                return False
    return True


def _settle(checks, limit=5.0):
    """The kernel takes up to a second to act on a new carrier; wait for it.

    checks: (namespace, interfaces) that must carry; ports of a bridge must
    forward as well.
    """
    end = time.monotonic() + limit
    for name, ifnames in checks:
        while not _inside(name, _carrying, ifnames):
            if time.monotonic() > end:
                raise RuntimeError(f'no carrier on {ifnames} of {name}')
            time.sleep(0.005)
        ports = [dev for dev in ifnames if dev[0] in 'pw']
        while ports:
            text = _exec(['ip', '-n', name, '-d', '-o', 'link', 'show'])
            ports = [
                dev
                for dev in ports
                if not re.search(rf'^\d+: {dev}[@:].* bridge_slave state forwarding ', text, re.M)
            ]
            if ports and time.monotonic() > end:
                raise RuntimeError(f'{ports} of {name} do not forward')
            if ports:
                time.sleep(0.005)


def _no_offload(ifname):
    stxcsum, stso, sgso = 0x17, 0x1F, 0x24  # ETHTOOL_STXCSUM and so on
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for cmd in (stso, sgso, stxcsum):
            value = array.array('B', struct.pack('II', cmd, 0))
            request = struct.pack('16sP', ifname.encode(), value.buffer_info()[0])
            try:
                fcntl.ioctl(s, 0x8946, request.ljust(40, b'\0'))  # SIOCETHTOOL
            except OSError:
                if cmd == stxcsum:
                    raise


def _wire_main(port, far, delay, jitter, loss, rate):
    """Carry frames between two interfaces of the switch namespace."""
    import heapq

    delay, jitter, loss, rate = float(delay), float(jitter), float(loss), float(rate)
    ends = []
    for dev in (port, far):
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        s.bind((dev, 0))
        s.setsockopt(263, 1, struct.pack('iHH8s', socket.if_nametoindex(dev), 1, 0, b''))
        s.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE
        s.setblocking(False)
        ends.append(s)
    out = {ends[0]: ends[1], ends[1]: ends[0]}
    free_at = dict.fromkeys(ends, 0.0)
    queue, count = [], 0
    sys.stdout.write('ready\n')
    sys.stdout.flush()
    while True:
        wait = max(0.0, queue[0][0] - time.monotonic()) if queue else None
        for s in select.select(ends, [], [], wait)[0]:
            for _ in range(64):
                try:
                    frame, address = s.recvfrom(65600)
                except BlockingIOError:
                    break
                if address[2] == 4 or random.random() < loss:  # 4: our own sending
                    continue
                now = time.monotonic()
                if rate:
                    now = free_at[s] = max(now, free_at[s]) + len(frame) / rate
                    if now - time.monotonic() > 1.0:  # a full queue drops
                        free_at[s] -= len(frame) / rate
                        continue
                count += 1
                heapq.heappush(
                    queue, (now + delay + jitter * random.random(), count, out[s], frame)
                )
        now = time.monotonic()
        while queue and queue[0][0] <= now:
            _, _, s, frame = heapq.heappop(queue)
            try:
                s.send(frame)
            except OSError:
                pass


# -- networks -----------------------------------------------------------------


class Lan:
    """n hosts on one switch.  A context manager, a sequence of hosts."""

    def __init__(self, n, subnet=1, prefix='h', _net=None):
        if not 0 <= n <= 200 or not 0 < subnet < 255:
            raise ValueError('0-200 hosts, subnet 1-254')
        self.subnet = subnet
        self.network = f'10.77.{subnet}.0/24'
        self.broadcast = f'10.77.{subnet}.255'
        labels = [f'{prefix}{i}' for i in range(n)]
        names = _names('switch', *labels)
        self.switch = names[0]
        self.hosts = [Host(name, label) for name, label in zip(names[1:], labels, strict=False)]
        self._count = 0

    def __iter__(self):
        return iter(self.hosts)

    def __len__(self):
        return len(self.hosts)

    def __getitem__(self, i):
        return self.hosts[i]

    def __enter__(self):
        reason = available()
        if reason:
            raise Refused(reason)
        try:
            _add_namespaces([self.switch] + [h.name for h in self.hosts])
            _ip(
                self.switch,
                ['link add br0 type bridge forward_delay 0 mcast_snooping 0', 'link set br0 up'],
            )
            self._attach([(h, 'eth0', 10 + i) for i, h in enumerate(self.hosts)])
        except BaseException:
            self.__exit__()
            raise
        return self

    def _attach(self, plugs):
        lines, first = [], self._count
        for host, ifname, last in plugs:
            port = f'p{self._count}'
            self._count += 1
            host.plugs.append((self.switch, port))
            if host.ip is None:
                host.ip = f'10.77.{self.subnet}.{last}'
                host.ip6 = f'fd77:{self.subnet:x}::{last}'
            lines += [
                f'link add {port} mtu 1500 type veth peer name {ifname} netns {host.name}',
                f'link set {port} master br0',
                f'link set {port} up',
            ]
        _ip(self.switch, lines)
        for host, ifname, last in plugs:
            for key in (
                'net.ipv6.conf.all.accept_dad',
                'net.ipv6.conf.default.accept_dad',
                f'net.ipv6.conf.{ifname}.accept_dad',
            ):
                host.sysctl(key, 0)  # else addresses are unusable for 1-2 s
            host.sysctl('net.ipv4.ping_group_range', '0 2147483647')
            _ip(
                host.name,
                [
                    'link set lo up',
                    f'addr add 10.77.{self.subnet}.{last}/24 broadcast + dev {ifname}',
                    f'link set {ifname} up',
                    f'addr add fd77:{self.subnet:x}::{last}/64 dev {ifname} nodad',
                ],
            )
        _settle(
            [(self.switch, [f'p{i}' for i in range(first, self._count)])]
            + [(host.name, [ifname]) for host, ifname, _ in plugs]
        )

    def __exit__(self, *exc):
        for host in self.hosts:
            if host._wire is not None:
                host._wire.kill()
                host._wire.wait()
                host._wire.stdout.close()
                host._wire = None
            host.kill()
        _del_namespaces([h.name for h in self.hosts] + [self.switch])

    def partition(self, *groups):
        """Hosts reach only those of their own group; others stay on br0."""
        lines = []
        for i, group in enumerate(groups, 1):
            if f'br{i}' not in _exec(['ip', '-n', self.switch, '-o', 'link']):
                lines += [
                    f'link add br{i} type bridge forward_delay 0 mcast_snooping 0',
                    f'link set br{i} up',
                ]
            lines += [
                f'link set {h._edge(port)} master br{i}'
                for h in group
                for switch, port in h.plugs
                if switch == self.switch
            ]
        _ip(self.switch, lines)

    def heal(self):
        for host in self.hosts:
            host.heal()


class TwoLans:
    """Two subnets and a router; broadcast and multicast do not cross.

    nat=True: `left` hides behind the router's address in `right`, and nothing
    enters from `right` unless forward_port() lets it.
    """

    def __init__(self, n, m, nat=False):
        self.nat = nat
        self.left, self.right = Lan(n, 1, 'l'), Lan(m, 2, 'r')
        self.router = Host(_names('router')[0], 'router')
        self._forwards = []

    def __enter__(self):
        reason = available(self.nat)
        if reason:
            raise Refused(reason)
        try:
            self.left.__enter__()
            self.right.__enter__()
            _add_namespaces([self.router.name])
            self.left._attach([(self.router, 'eth0', 1)])
            self.right._attach([(self.router, 'eth1', 1)])
            self.router_ip = {'left': '10.77.1.1', 'right': '10.77.2.1'}
            self.router.sysctl('net.ipv4.ip_forward', 1)
            self.router.sysctl('net.ipv6.conf.all.forwarding', 1)
            for lan in (self.left, self.right):
                for host in lan:
                    if self.nat and lan is self.right:
                        continue  # outside knows no way to the inside
                    _ip(
                        host.name,
                        [
                            f'route add default via 10.77.{lan.subnet}.1',
                            f'route add default via fd77:{lan.subnet:x}::1',
                        ],
                    )
            if self.nat:
                self._load_nat()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc):
        self.router.kill()
        for lan in (self.left, self.right):
            lan.__exit__(*exc)
        _del_namespaces([self.router.name])

    def forward_port(self, proto, port, host, to_port=None):
        """Port of the router's right side -> host of the left side."""
        self._forwards.append(
            f'iifname "eth1" {proto} dport {port} dnat to {host.ip}:{to_port or port}'
        )
        self._load_nat()

    def forget_connections(self, established=1, udp=1):
        """Let the NAT forget idle flows after so many seconds, and be strict."""
        r = self.router
        r.sysctl('net.netfilter.nf_conntrack_tcp_timeout_established', established)
        r.sysctl('net.netfilter.nf_conntrack_udp_timeout', udp)
        r.sysctl('net.netfilter.nf_conntrack_udp_timeout_stream', udp)
        r.sysctl('net.netfilter.nf_conntrack_tcp_loose', 0)

    def _load_nat(self):
        _nft(
            self.router.name,
            """
            flush ruleset
            table ip nat {
              chain pre  { type nat hook prerouting priority -100; %s; }
              chain post { type nat hook postrouting priority 100; oifname "eth1" masquerade; }
            }
            table inet wall {
              chain through {
                type filter hook forward priority 0; policy drop;
                ct state invalid drop
                ct state established,related accept
                ct status dnat accept
                iifname "eth0" meta nfproto ipv4 accept
              }
            }"""
            % ('\n'.join(self._forwards) or 'counter'),
        )


if __name__ == '__main__' and sys.argv[1:2] == ['wire']:
    _wire_main(*sys.argv[2:])
