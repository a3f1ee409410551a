"""What a new cluster's journal is to say of it, and where it is to lie."""

import logging
import os
import time
from dataclasses import replace
from pathlib import Path

import msgspec

from dispy_nb.nodes import NodeAllocate
from dispy_nb.options import ClusterOptions
from dispy_nb.prepared import Prepared
from dispy_nb.recovery.fileformat import Setting, encode
from dispy_nb.recovery.journalfile import JournalPlan
from dispy_nb.recovery.places import state_directory
from dispy_nb.recovery.tidying import tidy
from dispy_nb.sharedoptions import SharedOptions
from dispy_nb.surroundings import in_kernel, running_shell
from nodeserver.core.errors import PicklingFailed, UsageError
from nodeserver.core.recoveryeffects import Keeping
from nodeserver.io.keys import SECRET_VARIABLE, Secret, choose_secret, kept_secret
from nodeserver.payload import dump_value, load_value
from nodeserver.worker.anyfunction import AnyFunction

_log = logging.getLogger('dispy_nb')


def keeping_of(options: ClusterOptions) -> Keeping:
    """Say what is kept: all where somebody types, and with a name, if it can be attached to."""
    # the futures of an executor cannot be given back
    is_executor = isinstance(options.computation, AnyFunction)
    if not is_executor and (running_shell() is not None or options.name is not None):
        return Keeping.ALL
    return Keeping.JOBS if isinstance(options, SharedOptions) else Keeping.ENDS


def plan_of(prepared: Prepared) -> JournalPlan:
    """Plan the journal of a new cluster."""
    options, declared = prepared.options, prepared.declared
    keeping = keeping_of(options)
    setting = _setting(prepared, keeping)
    facts = {}
    if keeping == Keeping.ALL:
        own = [each for each in options.allocations if each.decides_itself]
        facts['allocations'] = _dumped(options.allocations) if own else b''
    else:
        declared = replace(declared, package=b'', manifest=b'')
    facts['declared'] = encode(declared)
    facts['setting'] = encode(setting)
    given = Path.cwd() / options.recover_file if options.recover_file else None
    # what is kept beyond the life of a kernel does not lie among the user's files
    directories = (state_directory(),) if in_kernel() else (Path.cwd(), state_directory())
    if given is None:
        tidy(directories[0], time.time())
    return JournalPlan(declared.name, keeping, facts, given, directories)


def _setting(prepared: Prepared, keeping: Keeping) -> Setting:
    options = prepared.options
    secret, kept = _secret(options)
    certfile, keyfile = (
        os.path.abspath(path) if path else None  # noqa: PTH100 - as it was given, but for the start
        for path in (options.certfile, options.keyfile)
    )
    setting = Setting(
        secret,
        kept,
        certfile,
        keyfile,
        [options.ip_addr] if isinstance(options.ip_addr, str) else options.ip_addr,
        [*options.ext_ip_addr] if options.ext_ip_addr else None,
        options.port or 0,
        options.ipv4_udp_multicast,
        keeping == Keeping.ALL,
        time.time(),
        scheduler=_scheduler(options),
    )
    if keeping != Keeping.ALL:
        return setting
    always, sent = prepared.travels.names()
    computation = options.computation
    return msgspec.structs.replace(
        setting,
        program=computation if isinstance(computation, str) else '',
        by_value=always,
        sent=sent,
        files=prepared.files.sources(),
    )


def _scheduler(options: ClusterOptions) -> tuple[str, int] | None:
    if not isinstance(options, SharedOptions):
        return None
    return options.place.host, options.place.port


def _secret(options: ClusterOptions) -> tuple[str, bytes]:
    """Refer to the secret; one that only this program has is kept, as a key made of it (I09)."""
    if options.insecure:
        return 'insecure', b''
    if options.trusted is not None:
        return 'kept', options.trusted.to_keep()
    if options.secret:
        secret = choose_secret(options.secret)
        return ('own', b'') if secret.is_own else ('kept', secret.to_keep())
    return ('variable' if SECRET_VARIABLE in os.environ else 'own'), b''


def secret_of(setting: Setting) -> Secret:
    """Have the secret again.

    Raises
    ------
    UsageError
        It was that of a variable which is not set.
    """
    if setting.secret == 'kept':
        return kept_secret(setting.kept)
    if setting.secret == 'variable' and SECRET_VARIABLE not in os.environ:
        raise UsageError(
            f'the cluster had its secret from {SECRET_VARIABLE}, which is not set here: set it'
        )
    environ = os.environ if setting.secret == 'variable' else {}
    return choose_secret('', None, setting.secret == 'insecure', environ)


def _dumped(allocations: list[NodeAllocate]) -> bytes:
    try:
        return dump_value(allocations).join()
    except PicklingFailed as error:
        _log.info('elements of nodes cannot be kept for attach(): %s', error)
        return b''


def allocations_of(content: bytes) -> list[NodeAllocate] | None:
    """Have the elements of `nodes` again, if they decide themselves."""
    if not content:
        return None
    try:
        found = load_value(bytearray(content))
    except Exception as error:  # noqa: BLE001 - user code runs in unpickling
        _log.warning('elements of nodes of before cannot be used here: %r', error)
        return None
    is_sound = isinstance(found, list) and all(isinstance(each, NodeAllocate) for each in found)
    return found if is_sound else None
