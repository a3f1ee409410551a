"""Parameters under the names that they have in other versions of dispy.

    JobCluster(f, host='10.0.0.1') ──▶ JobCluster(f, ip_addr='10.0.0.1'), and a warning

The documented signature stays as it is: whoever asks for it sees no other name.
"""

import difflib
import functools
import inspect
import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from dispy_nb import config
from dispy_nb.recovery.places import OLDER_PREFIX, free_name
from nodeserver.core.errors import UnknownParameter, UsageError

_log = logging.getLogger('dispy_nb')

Self = TypeVar('Self')
Parameters = ParamSpec('Parameters')

# what one of the other names comes to: parameters, and what to say where these say it not
Meaning = tuple[dict[str, Any], str]

_NEW_NAMES = {
    'host': 'ip_addr',
    'ext_host': 'ext_ip_addr',
    'job_status': 'callback',
    'client_port': 'port',
    'scheduler_host': 'scheduler_node',
}
_OF_OTHER_PROGRAMS = ('pulse_interval', 'ipv4_udp_multicast')
_OF_SHARED_CLUSTERS = ('scheduler_host', 'scheduler_node', 'scheduler_port', 'exclusive')
LAST_DISPY_PORT = 65534  # the node's is the next one


def takes_other_names(
    init: Callable[Concatenate[Self, Parameters], None],
) -> Callable[Concatenate[Self, Parameters], None]:
    """Have a cluster's `__init__` take other names too, and the ports of `dispy_nb.config`."""
    names = tuple(inspect.signature(init).parameters)[1:]  # without `self`

    @functools.wraps(init)
    def init_by_any_name(
        self: Self, /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> None:
        known, notes = translated(kwargs, names[: len(args)], names)
        try:
            init(self, *args, **known)
        finally:  # after it, since it sets the level of the log
            for note in notes:
                _log.warning('%s: %s', type(self).__name__, note)

    return init_by_any_name


def translated(
    given: dict[str, Any], by_position: Collection[str], names: Collection[str]
) -> tuple[dict[str, Any], list[str]]:
    """Return parameters under their names here, and what to tell the user.

    Raises
    ------
    UsageError
        A parameter is given twice, under two names, or is another class's.
    UnknownParameter
        There is none of that name.
    """
    known = {name: value for name, value in given.items() if name in names}
    givers = dict.fromkeys((*by_position, *known), '')  # '' where it was given under its own name
    notes = []
    for name, value in given.items():
        if name in known:
            continue
        meaning, note = _meaning(name, value, names)
        for new in meaning:
            if new in givers:
                raise UsageError(f'{name} and {givers[new] or new} both give {new}: give one')
            givers[new] = name
        known.update(meaning)
        notes.append(note)
    for name, port in config.chosen_ports().items():
        if name in names and name not in givers:
            known[name] = port
    notes += [
        f'dispy.config.{name} has no effect in a program: it is an option of dispynode'
        for name in config.unheeded()
    ]
    return known, notes


def _meaning(name: str, value: Any, names: Collection[str]) -> Meaning:
    if name in _NEW_NAMES and _NEW_NAMES[name] in names:
        new = _NEW_NAMES[name]
        return {new: value}, f'{name} is called {new} here'
    if name in _OF_OTHER_PROGRAMS and 'scheduler_node' in names:
        raise UnknownParameter(
            f'{name} is no parameter of SharedJobCluster: it is an option of dispyscheduler, '
            f'`--{name}`, for all programs'
        )
    if name in _MEANINGS:
        return _MEANINGS[name](value)
    if name in _OF_SHARED_CLUSTERS:
        raise UsageError(f'{name} is of SharedJobCluster: a JobCluster does its own scheduling')
    others = (*names, *_NEW_NAMES, *_MEANINGS)
    nearest = difflib.get_close_matches(name, others, 1, 0)
    raise UnknownParameter(f'there is no parameter {name}: did you mean {nearest[0]}?')


def _dispy_port(value: Any) -> Meaning:
    """All ports of dispy 4.15 follow from one: the client's, and the next for nodes."""
    if value is None:
        return {}, 'dispy_port has no effect as None: leave it out'
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= LAST_DISPY_PORT:
        raise UsageError(
            f'dispy_port must be a number from 1 to {LAST_DISPY_PORT} or None, not {value!r}'
        )
    note = f'dispy_port={value} is written port={value}, node_port={value + 1} here'
    return {'port': value, 'node_port': value + 1}, note


def _fault_recover(value: Any) -> Meaning:
    if isinstance(value, str):
        return {'recover_file': value}, 'fault_recover is called recover_file here'
    if value is True:
        path = free_name(Path.cwd(), OLDER_PREFIX)
        return {'recover_file': path}, f'fault_recover=True is written recover_file={path!r} here'
    if value is not None and value is not False:
        raise UsageError(f'fault_recover must be a path, True or False, not {value!r}')
    return {}, f'fault_recover has no effect as {value}: leave it out'


def _poll_interval(value: Any) -> Meaning:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not is_number:
        raise UsageError(f'poll_interval must be a number of seconds or None, not {value!r}')
    return {}, 'poll_interval has no effect: results come even where nodes cannot reach the client'


_MEANINGS: dict[str, Callable[[Any], Meaning]] = {
    'dispy_port': _dispy_port,
    'fault_recover': _fault_recover,
    'poll_interval': _poll_interval,
}
