"""The checks of this machine: each looks in a thread of its own, for a limited time."""

import asyncio
import contextlib
import secrets
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from dispy_nb.doctor import firewall, judgelocal, machine, ports
from dispy_nb.doctor.facts import CertificateState, KeyState, Order, Port
from dispy_nb.doctor.findings import Fault, Finding, Level
from nodeserver.core.errors import DispyError
from nodeserver.io.certificate import Certificate, TlsIdentity
from nodeserver.io.keys import Secret

T = TypeVar('T')

# of what the system, a file or a name server may answer with
FAILURES: Final = (OSError, DispyError, ValueError, LookupError, subprocess.SubprocessError)


@dataclass(frozen=True, slots=True)
class Check:
    """One check of this machine: what looks, and what says what that means."""

    name: str
    fault: Fault  # where the look itself fails
    look: Callable[[], Any]
    judge: Callable[[Any], list[Finding]]


CHECKS: Final = (
    Check('versions', Fault.VERSIONS, machine.look_at_versions, judgelocal.judge_versions),
    Check('host name', Fault.NAMES, machine.look_at_name, judgelocal.judge_name),
    Check('networks', Fault.REACH, machine.look_at_networks, judgelocal.judge_networks),
    Check('disk', Fault.DISK, machine.look_at_directories, judgelocal.judge_directories),
    Check('open files', Fault.LIMITS, machine.look_at_file_limit, judgelocal.judge_file_limit),
    Check('clock', Fault.CLOCKS, machine.look_at_clock, judgelocal.judge_clock),
)


@dataclass(frozen=True, slots=True)
class Basis:
    """What the checks of nodes build on: whom this machine trusts, and which ports are free."""

    key: KeyState
    secret: Secret
    certificate: CertificateState
    tls: TlsIdentity | None
    ports: list[Port]
    own: frozenset[str]
    findings: list[Finding]

    def is_free(self, number: int, kind: str) -> bool:
        """Whether nobody has this port."""
        found = [port for port in self.ports if (port.number, port.kind) == (number, kind)]
        return bool(found) and found[0].owner is None

    def is_served(self, order: Order) -> bool:
        """Whether a node of this machine answers pings at the port of nodes."""
        return judgelocal.is_served(order, order.node_port, self.ports)


async def look_at_basis(order: Order, given: machine.Credentials) -> Basis:
    """Find out what all else builds on."""
    found: list[Port] = []

    def judge(looked: list[Port]) -> list[Finding]:
        found.extend(looked)
        return judgelocal.judge_ports(order, looked)

    check = Check('ports', Fault.PORTS, lambda: ports.look_at_ports(order), judge)
    (key, secret), (state, certificate), findings = await asyncio.gather(
        _look_at_key(order, given),
        _look_at_certificate(order, given),
        run_check(check, order.timeout),
    )
    findings = judgelocal.judge_key(key) + judgelocal.judge_certificate(state) + findings
    tls = TlsIdentity(certificate, secret.proof_key()) if certificate else None
    return Basis(key, secret, state, tls, found, machine.own_addresses(), findings)


async def _look_at_key(order: Order, given: machine.Credentials) -> tuple[KeyState, Secret]:
    try:
        return await in_thread(lambda: machine.look_at_key(given), order.timeout)
    except TimeoutError:  # a home directory that does not answer
        words = 'the key file cannot be read in time: look at the disk that it is on'
        return KeyState('unusable', '', words), Secret(secrets.token_bytes(32))


async def _look_at_certificate(
    order: Order, given: machine.Credentials
) -> tuple[CertificateState, Certificate | None]:
    try:
        return await in_thread(lambda: machine.look_at_certificate(given), order.timeout)
    except TimeoutError:
        words = f'{given.certfile} cannot be read in time: look at the disk that it is on'
    except OSError as error:
        words = f'{error.filename} cannot be looked at: {error.strerror}'
    return CertificateState('unusable', words), None


async def look_at_rest(order: Order, basis: Basis) -> list[Finding]:
    """Run all checks of this machine that nothing builds on, at once."""
    filters = Check(
        'firewall rules',
        Fault.FIREWALL,
        lambda: firewall.look_at_filters(order),
        lambda found: judgelocal.judge_filters(order, found, basis.ports),
    )
    every = await asyncio.gather(*(run_check(check, order.timeout) for check in (*CHECKS, filters)))
    return [finding for found in every for finding in found]


async def run_check(check: Check, timeout: float) -> list[Finding]:
    """Look and judge; a look that fails or takes too long is a finding as well."""
    try:
        return check.judge(await in_thread(check.look, timeout))
    except TimeoutError:
        words = f'no answer within {timeout:g} s'
    except FAILURES as error:
        words = f'it cannot be looked at: {error}'
    advice = 'look into it, as whatever needs this waits or fails as well'
    return [Finding(check.name, Level.WARNING, check.fault, words, advice)]


async def in_thread(look: Callable[[], T], timeout: float) -> T:
    """Call what may block, for so long; a name server that never answers holds up nothing.

    The thread is a daemon, unlike those of the loop's own pool, for which a program waits at its
    end.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def deliver(act: Callable[[Any], None], what: Any) -> None:
        if not done.done():
            act(what)

    def run() -> None:
        try:
            outcome = done.set_result, look()
        except Exception as error:  # noqa: BLE001 - the edge of a thread: it is raised in the loop
            outcome = done.set_exception, error  # type: ignore[assignment]
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(deliver, *outcome)

    threading.Thread(target=run, name='dispy-doctor', daemon=True).start()
    async with asyncio.timeout(timeout):
        return await done
