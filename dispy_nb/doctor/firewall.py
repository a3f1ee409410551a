"""What this machine's packet filter does to our ports, as far as its rules can be read.

    nft -j list ruleset ──▶ Ruleset.verdict(protocol, port) ──▶ '' | the rule that drops it | '?'

Only what certainly drops every packet to a port is told: a rule that looks at addresses, states
or interfaces may be about others.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from dispy_nb.doctor.facts import Dropped, Filters, Order

UNCLEAR: Final = '?'
_SECONDS: Final = 1.5
_LARGEST: Final = 4 << 20
_MOST_JUMPS: Final = 16
_ENDS: Final = {'accept': '', 'drop': 'drop', 'reject': 'reject'}
# what leaves a rule about all that its conditions are about
_KNOWN: Final = {*_ENDS, 'counter', 'log', 'comment', 'jump', 'goto'}


def look_at_filters(order: Order) -> Filters:
    """Read the rules of nftables, which iptables of today, ufw and firewalld make as well."""
    program = shutil.which('nft') or shutil.which('nft', path='/usr/sbin:/sbin')
    if program is None:
        return Filters('')
    done = subprocess.run(
        [program, '-j', 'list', 'ruleset'],
        capture_output=True,
        timeout=_SECONDS,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode or len(done.stdout) > _LARGEST:
        return Filters('')  # for root only, mostly
    ruleset = Ruleset(json.loads(done.stdout or b'{}').get('nftables', ()))
    ports = [
        Dropped(number, kind, ruleset.verdict(kind.lower(), number))
        for number in dict.fromkeys((order.node_port, order.port))
        for kind in ('TCP', 'UDP')
    ]
    return Filters('nft', tuple(ports))


class Ruleset:
    """The rules of a machine, as `nft -j` writes them."""

    def __init__(self, objects: Sequence[Mapping[str, Any]]) -> None:
        self._rules: dict[tuple[str, str, str], list[list[Any]]] = {}
        self._bases: list[tuple[tuple[str, str, str], str]] = []
        for each in objects:
            if chain := each.get('chain'):
                place = (chain['family'], chain['table'], chain['name'])
                self._rules.setdefault(place, [])
                if chain.get('hook') in ('input', 'prerouting') and chain.get('type') == 'filter':
                    self._bases.append((place, chain.get('policy', 'accept')))
            elif rule := each.get('rule'):
                place = (rule['family'], rule['table'], rule['chain'])
                self._rules.setdefault(place, []).append(rule.get('expr', []))

    def verdict(self, protocol: str, port: int) -> str:
        """Say which chain drops new packets to a port of ours; '' if none, `UNCLEAR` if maybe."""
        unclear = ''
        for place, policy in self._bases:
            if place[0] not in ('ip', 'inet'):
                continue
            ended = self._walk(place, protocol, port, 0)
            if ended is None:
                ended = _ENDS.get(policy, '')
            if ended == UNCLEAR:
                unclear = UNCLEAR
            elif ended:
                return f'{ended} in chain {place[2]} of table {place[0]} {place[1]}'
        return unclear

    def _walk(
        self, place: tuple[str, str, str], protocol: str, port: int, depth: int
    ) -> str | None:
        """Go through a chain: how it ends for such packets; None at its end."""
        if depth > _MOST_JUMPS:
            return UNCLEAR
        maybe_accepted = False
        for expressions in self._rules.get(place, ()):
            matches, is_sure = _matching(expressions, protocol, port)
            if not matches:
                continue
            ended = self._end_of(expressions, place, protocol, port, depth)
            if ended is None:
                continue
            if is_sure:
                return UNCLEAR if maybe_accepted and ended else ended
            maybe_accepted |= ended != 'drop' and ended != 'reject'
        return UNCLEAR if maybe_accepted else None

    def _end_of(
        self, rule: list[Any], place: tuple[str, str, str], protocol: str, port: int, depth: int
    ) -> str | None:
        for name, value in _statements(rule):
            if name in _ENDS:
                return _ENDS[name]
            if name in ('jump', 'goto') and isinstance(value, Mapping):
                target = (place[0], place[1], str(value.get('target')))
                ended = self._walk(target, protocol, port, depth + 1)
                return UNCLEAR if ended is None and name == 'goto' else ended
            if name in ('vmap', 'xt', 'queue'):
                return UNCLEAR
        return None


def _statements(rule: list[Any]) -> Iterator[tuple[str, Any]]:
    for statement in rule:
        if isinstance(statement, Mapping):
            yield from statement.items()


def _matching(rule: list[Any], protocol: str, port: int) -> tuple[bool, bool]:
    """Tell whether a rule may be about a port, and whether it is about every packet to it."""
    is_sure = True
    for name, value in _statements(rule):
        if name == 'match':
            about = _match(value, protocol, port)
            if about is False:
                return False, True
            is_sure = is_sure and about is True
        elif name not in _KNOWN:
            is_sure = False
    return True, is_sure


def _match(match: Mapping[str, Any], protocol: str, port: int) -> bool | None:
    """Judge one condition: True, False, or None where it is about something else."""
    left, right = match.get('left'), match.get('right')
    if not isinstance(left, Mapping):
        return None
    found: bool | None = None
    payload, meta = left.get('payload'), left.get('meta')
    if isinstance(payload, Mapping):
        field = payload.get('field')
        if field == 'dport':
            if payload.get('protocol') not in (protocol, 'th'):
                return False
            found = _contains(right, port)
        elif field == 'protocol' and payload.get('protocol') == 'ip':
            found = _contains(right, protocol)
    elif isinstance(meta, Mapping) and meta.get('key') == 'l4proto':
        found = _contains(right, protocol)
    elif isinstance(meta, Mapping) and meta.get('key') in ('iif', 'iifname'):
        found = False if right == 'lo' and match.get('op') == '==' else None
    elif isinstance(left.get('ct'), Mapping) and left['ct'].get('key') == 'state':
        found = _contains(right, 'new')  # what concerns us is somebody's first packet
    if found is None:
        return None
    return not found if match.get('op') == '!=' else found


def _contains(right: Any, wanted: int | str) -> bool | None:
    """Tell whether a value, set or range has the wanted one; None where it cannot be told."""
    if isinstance(right, Mapping):
        if 'set' in right:
            return _any(_contains(each, wanted) for each in right['set'])
        if 'range' in right and isinstance(wanted, int):
            low, high = right['range']
            return bool(low <= wanted <= high)
        return None
    if isinstance(right, list):
        return _any(_contains(each, wanted) for each in right)
    if isinstance(right, str) and right.startswith('@'):
        return None
    return bool(right == wanted)


def _any(found: Iterator[bool | None]) -> bool | None:
    every = list(found)
    return True if True in every else None if None in every else False
