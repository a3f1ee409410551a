"""What the facts of this machine mean: pure, one function for each check."""

import ipaddress
from collections.abc import Sequence
from typing import Final

from dispy_nb.doctor.facts import (
    CertificateState,
    Directory,
    Echo,
    Filters,
    KeyState,
    Networks,
    Order,
    OwnName,
    Port,
    Versions,
)
from dispy_nb.doctor.findings import Fault, Finding, Level, fine
from nodeserver.io.limits import LEAST_FILES

LEAST_FREE: Final = 64 << 20  # bytes; with less not even a small package is unpacked
LITTLE_FREE: Final = 1 << 30
LEAST_INODES: Final = 1000
MANY_FILES: Final = 1024
_NEWEST_YEARS: Final = 20 * 365 * 86400  # an installation is not older than that


def judge_versions(versions: Versions) -> list[Finding]:
    """Judge what is installed here."""
    found = f'dispy-nb {versions.package or "(not installed)"} on Python {versions.python}'
    if not versions.has_curve:
        return [
            Finding(
                'versions',
                Level.PROBLEM,
                Fault.VERSIONS,
                f'{found}; its pyzmq has no CURVE encryption',
                'install the wheel: pip install --force-reinstall pyzmq',
            )
        ]
    if versions.missing:
        is_vital = versions.missing != ('psutil',)
        return [
            Finding(
                'versions',
                Level.PROBLEM if is_vital else Level.WARNING,
                Fault.VERSIONS,
                f'{found}; missing: {", ".join(versions.missing)}',
                f'pip install {" ".join(versions.missing)}',
            )
        ]
    return [fine('versions', found)]


def judge_name(name: OwnName) -> list[Finding]:
    """Judge what this machine's own name leads to; 127.0.1.1 is what some systems write."""
    own = name.addresses
    if not own:
        return [
            Finding(
                'host name',
                Level.WARNING,
                Fault.NAMES,
                f'{name.name!r} is unknown to this machine',
                f'add it to /etc/hosts or DNS, or use addresses: `-i {name.name}` would fail',
            )
        ]
    found = f'{name.name} is {", ".join(own)}'
    if all(_is_loopback(address) for address in own):
        return [
            Finding(
                'host name',
                Level.WARNING,
                Fault.NAMES,
                f'{found}, which other machines cannot reach',
                'give addresses, not this name, to -i, ip_addr and ext_ip_addr (or put its '
                'address into /etc/hosts)',
            )
        ]
    if not any(address.partition('%')[0] in name.own for address in own):
        return [
            Finding(
                'host name',
                Level.WARNING,
                Fault.NAMES,
                f'{found}, and this machine has none of these addresses',
                'correct /etc/hosts or DNS, or use addresses in place of this name',
            )
        ]
    return [fine('host name', found)]


def judge_networks(networks: Networks) -> list[Finding]:
    """Judge whether anybody else can be heard at all."""
    if not networks.rows:
        return [
            Finding(
                'networks',
                Level.WARNING,
                Fault.REACH,
                'no interface but loopback is up: only nodes on this machine can be used',
                'connect this machine to the network; in a container: --net=host',
            )
        ]
    rows = [
        f'{name} {address}' + (f' (broadcast {broadcast})' if broadcast else '')
        for name, address, broadcast in networks.rows
    ]
    if not any(broadcast for _, _, broadcast in networks.rows):
        return [
            Finding(
                'networks',
                Level.WARNING,
                Fault.REACH,
                f'{", ".join(rows)}: none has broadcast, by which nodes are found',
                'name the nodes: JobCluster(f, nodes=[ADDRESS, ...])',
            )
        ]
    return [fine('networks', ', '.join(rows))]


def judge_key(key: KeyState) -> list[Finding]:
    """Judge whom this machine trusts."""
    if key.kind == 'unusable' or (key.kind == 'none yet' and key.error):
        found, advice = _split(key.error)
        return [Finding('key', Level.PROBLEM, Fault.CONFIGURATION, found, advice)]
    if key.kind == 'none yet':
        found = f'there is none yet at {key.path}; it is made on first use'
        return [fine('key', found)]
    if key.kind == 'insecure':
        return [
            Finding(
                'key',
                Level.WARNING,
                Fault.KEYS,
                'insecure: nothing is encrypted, and whoever reaches a port can run programs',
                'leave --insecure out on all machines, and give them one key (`dispy key export`)',
            )
        ]
    what = f"this user's own, in {key.path}" if key.kind == 'own' else 'a shared secret'
    return [fine('key', what)]


def judge_certificate(state: CertificateState) -> list[Finding]:
    """Judge the certificate that was given."""
    if not state.kind:
        return []
    if state.kind == 'unusable':
        head, is_missing, tail = state.found.partition('. A pair is made by ')
        found, advice = (head, f'make one by {tail}') if is_missing else _split(state.found)
        return [Finding('certificate', Level.PROBLEM, Fault.CONFIGURATION, found, advice)]
    if not state.warnings:
        return [fine('certificate', state.found)]
    parts = [_split(text.replace('; ', ': ')) for text in state.warnings]
    return [
        Finding('certificate', Level.WARNING, Fault.CONFIGURATION, found, advice)
        for found, advice in parts
    ]


def _split(error: str) -> tuple[str, str]:
    """Part an error of ours into what is wrong and what to do, which stands behind a colon."""
    found, colon, advice = error.rpartition(': ')
    return (found, advice) if colon else (error, 'see what that file or variable holds')


def judge_directories(directories: Sequence[Directory]) -> list[Finding]:
    """Judge the places where files go."""
    return [_judge_directory(each) for each in directories]


def _judge_directory(each: Directory) -> Finding:
    check = f'disk for {each.purpose}'
    if each.error:
        found, advice = _split(each.error)
        if not each.path:  # of local sockets: its owner or its mode
            return Finding(each.purpose, Level.PROBLEM, Fault.CONFIGURATION, found, advice)
        return Finding(check, Level.PROBLEM, Fault.DISK, each.error, 'set TMPDIR to another place')
    return judge_disk(check, each.path, each.free, each.files_free)


def judge_disk(check: str, path: str, free: int, files: int, where: str = '') -> Finding:
    """Judge the room in a directory, here or on a node."""
    found = f'{size_text(free)} free in {path}'
    place = {'where': where} if where else {}
    if free < LEAST_FREE:
        advice = f'remove files there, or use another directory ({_elsewhere(where)})'
        return Finding(check, Level.PROBLEM, Fault.DISK, found, advice, **place)
    if 0 <= files < LEAST_INODES:
        found += f', but only {files} more files can be made there'
        advice = f'remove files there (`df -i`), or use another directory ({_elsewhere(where)})'
        return Finding(check, Level.PROBLEM, Fault.DISK, found, advice, **place)
    if free < LITTLE_FREE:
        advice = 'large arguments, results and files may not fit'
        return Finding(check, Level.WARNING, Fault.DISK, found, advice, **place)
    return fine(check, found, **place)


def _elsewhere(where: str) -> str:
    return 'dispynode --dest_path_prefix' if where else 'TMPDIR, or dispynode --dest_path_prefix'


def judge_file_limit(limit: int) -> list[Finding]:
    """Judge how many files a process may open."""
    if limit < 0:
        return [fine('open files', 'no limit')]
    found = f'at most {limit} for a process'
    if limit >= MANY_FILES:
        return [fine('open files', found)]
    level = Level.PROBLEM if limit < LEAST_FILES else Level.WARNING
    advice = (
        f'a node needs {LEAST_FILES}, and 5 more for each job: raise it in '
        '/etc/security/limits.conf, or LimitNOFILE= of its unit'
    )
    return [Finding('open files', level, Fault.LIMITS, found, advice)]


def judge_clock(clock: tuple[float, float]) -> list[Finding]:
    """Judge this machine's clock by what can be known without asking anybody."""
    now, installed = clock
    if installed - 86400 <= now <= installed + _NEWEST_YEARS:
        return [fine('clock', 'plausible')]
    words = 'before' if now < installed else f'{_NEWEST_YEARS // 86400 // 365} years after'
    return [
        Finding(
            'clock',
            Level.WARNING,
            Fault.CLOCKS,
            f'it shows a time {words} the installation of dispy-nb',
            'set it, or start its synchronisation: timedatectl set-ntp true',
        )
    ]


def judge_ports(order: Order, ports: Sequence[Port]) -> list[Finding]:
    """Judge who has the ports of nodes and clusters on this machine."""
    return [_judge_port(order, port) for port in ports]


def _judge_port(order: Order, port: Port) -> Finding:
    is_nodes = port.number == order.node_port
    purpose = 'nodes' if is_nodes else 'clusters'
    check = f'{port.kind} port {port.number} of {purpose}'
    owner = port.owner
    if owner is None:
        return fine(check, 'free')
    if owner.is_node or owner.is_doctor or (owner.is_ours and not is_nodes):
        return fine(check, f'in use by {owner.words}')
    found = f'in use by {owner.words}'
    if not is_nodes:
        advice = (
            'clusters take a free port; one that nodes connect to needs a port of its own: '
            'JobCluster(f, port=PORT), dispynode --scheduler_port PORT'
        )
        return Finding(check, Level.WARNING, Fault.PORTS, found, advice)
    advice = (
        'if that is no dispynode, end it, or use another port everywhere: dispynode '
        '--node_port PORT, JobCluster(f, node_port=PORT)'
    )
    level = Level.WARNING if owner.is_ours else Level.PROBLEM
    return Finding(check, level, Fault.PORTS, found, advice)


def judge_filters(order: Order, filters: Filters, ports: Sequence[Port]) -> list[Finding]:
    """Judge the rules of this machine's packet filter."""
    check = 'firewall rules'
    if not filters.source:
        return [fine(check, 'not readable for this user; see what comes through below')]
    dropped = [each for each in filters.ports if each.rule not in ('', '?')]
    if not dropped:
        unclear = any(each.rule for each in filters.ports)
        words = 'some look at more than ports and cannot be judged' if unclear else 'none drops'
        return [fine(check, f'{words} what comes to our ports' if not unclear else words)]
    return [
        Finding(
            check,
            Level.PROBLEM if is_served(order, each.number, ports) else Level.WARNING,
            Fault.FIREWALL,
            f'{each.kind} port {each.number}: {each.rule}',
            open_port(each.kind, each.number),
        )
        for each in dropped
    ]


def is_served(order: Order, number: int, ports: Sequence[Port]) -> bool:
    """Whether a node runs here that others would reach at that port."""
    return number == order.node_port and any(
        port.owner is not None and port.owner.is_node and port.number == number for port in ports
    )


def judge_echoes(order: Order, echoes: Sequence[Echo], ports: Sequence[Port]) -> list[Finding]:
    """Judge whether this machine hears its own pings, as other machines' would come in."""
    check = f'broadcast to UDP port {order.node_port}'
    deaf = [each for each in echoes if not each.came_back]
    if not deaf:
        heard = ', '.join(each.interface for each in echoes)
        return [fine(check, f'comes back to this machine on {heard}')] if echoes else []
    return [
        Finding(
            check,
            Level.PROBLEM if is_served(order, order.node_port, ports) else Level.WARNING,
            Fault.FIREWALL,
            f'does not come back on {each.interface} ({each.address}): a firewall of this '
            'machine drops it, so that a node here would not be found',
            open_port('UDP', order.node_port),
        )
        for each in deaf
    ]


def open_port(kind: str, number: int, where: str = '') -> str:
    """Say how a port is opened, with the firewalls that people have."""
    proto = kind.lower()
    return (
        f'open it{where}: `sudo ufw allow {number}/{proto}`, or `sudo firewall-cmd --permanent '
        f'--add-port={number}/{proto} && sudo firewall-cmd --reload`, or `sudo nft insert rule '
        f'inet filter input {proto} dport {number} accept`'
    )


def size_text(size: int) -> str:
    """Write bytes for people."""
    number, units = float(size), ['bytes', 'kB', 'MB', 'GB', 'TB']
    while number >= 1000 and len(units) > 1:
        number /= 1000
        units.pop(0)
    return f'{number:.3g} {units[0]}'


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition('%')[0]).is_loopback
    except ValueError:
        return False
