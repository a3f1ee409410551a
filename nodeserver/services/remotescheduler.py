"""The way of a program's clusters to a scheduler in another program.

    ClusterCore ── Send ──▶ RemoteScheduler ── ZmqLink ──▶ dispyscheduler
    ClusterCore ◀── what is of its computation ──┘ ◀── dials, or is dialled by one that moved

One for each scheduler and pair of secret and certificate.  To the cores the scheduler has one and
the same name, whichever program it is at the moment.
"""

import contextlib
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nodeserver.core.askmessages import AskExplanation, AskNodeList, Explanation, NodeListing
from nodeserver.core.cluster import ClusterCore
from nodeserver.core.effects import Send
from nodeserver.core.errors import PortBusy
from nodeserver.core.events import (
    CertificateExpiring,
    Event,
    LinkMended,
    MessageArrived,
    PeerConnected,
    PeerLost,
    PeerRefusedUs,
    SchedulerMissed,
)
from nodeserver.core.messages import DeclareComputation, Message, SchedulerPulse
from nodeserver.core.missing import refused_in_words
from nodeserver.core.noderows import NodeList
from nodeserver.core.recoveryeffects import StoreEpoch
from nodeserver.core.values import CLIENT_ROLE
from nodeserver.io.certificate import Certificate, TlsIdentity
from nodeserver.io.driver import Driver, Performers, Seat
from nodeserver.io.expirywatch import ExpiryWatch
from nodeserver.io.keys import Secret
from nodeserver.io.linkoptions import LinkOptions
from nodeserver.io.schedulercall import Caller, SchedulerCall, SchedulerPlace
from nodeserver.io.sealedfile import FileExchange, for_this_process
from nodeserver.io.zmqlink import ZmqLink
from nodeserver.services.kept import NOTHING_KEPT, Kept
from nodeserver.services.scheduler import SCHEDULER

_log = logging.getLogger(__name__)

ANSWER_LIMIT = 5.0  # seconds that people wait for words of the scheduler
QUIET_SECONDS = 5.0  # without a word of the scheduler, after which it is asked for one
MOST_SPARE = 16  # schedulers that are connected beside the one in use


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """Where the scheduler is, and where this program waits for one that looks for it."""

    peer_id: str
    secret: Secret
    place: SchedulerPlace
    ip_addr: Sequence[str] | None
    port: int
    is_port_given: bool  # else a free one will do where it is taken
    certificate: Certificate | None = None  # all connections are made over TLS
    ext_ip_addr: tuple[str, ...] = ()  # where the scheduler finds this program (N05)


class RemoteScheduler:
    """A scheduler elsewhere, for the clusters of this process; all on the loop's thread."""

    def __init__(
        self,
        driver: Driver,
        options: RemoteOptions,
        greeted: Callable[[], None],  # it is there, is missed, or turns us away
    ) -> None:
        self._driver, self._options, self._greeted = driver, options, greeted
        self._seats: dict[int, Seat] = {}
        self._current = ''  # the scheduler's peer id; '' while there is none
        self._addresses: dict[str, str] = {}  # of schedulers that are connected
        self._trouble: SchedulerMissed | None = None
        self._heard_at = 0.0
        self._is_asked_for_a_word = self._is_silent = False
        self._numbers = itertools.count(1)
        self._answers: dict[int, Callable[[Any], None]] = {}
        self._closing = contextlib.ExitStack()
        self._events: dict[type[Any], Callable[[Any], None]] = {
            MessageArrived: self._said,
            PeerConnected: self._came,
            PeerLost: self._gone,
            PeerRefusedUs: lambda event: self._call.refused(event.reason),
            LinkMended: lambda event: self._post_all(event),
        }
        self._link = ZmqLink(
            driver.loop,
            self._happened,
            (options.peer_id, CLIENT_ROLE),
            options.secret.link_keys(),
            LinkOptions(files=FileExchange(for_this_process), tls=self._tls_identity()),
            driver.turn_if_idle,
        )
        self._closing.callback(self._link.close)
        try:
            self._port = self._listen()
        except BaseException:
            self._closing.close()
            raise
        uses_local = options.secret.is_own and options.certificate is None
        caller = Caller(self._is_linked, self._missed, self._given_up, self._expect_a_word)
        self._call = SchedulerCall(driver.loop, self._link, options.place, caller, uses_local)
        self._closing.callback(self._call.close)

    # what the runtime calls

    def attach(
        self, declared: DeclareComputation, performers: Performers, kept: Kept = NOTHING_KEPT
    ) -> Seat:
        """Seat a cluster; it is told of the scheduler that is there, or that is missed."""
        hosts = [*self._options.ext_ip_addr]
        declared = replace(declared, port=self._port, hosts=hosts)
        core = ClusterCore(SCHEDULER, declared, kept.before, True, kept.keeping)
        table: dict[type[Any], Callable[[Any], None]] = {
            StoreEpoch: lambda effect: None,  # where nobody keeps a record
            **performers,
            Send: kept.send_after(lambda effect: self._send(effect.message)),
        }
        seat = self._seats[declared.computation] = self._driver.add(core, table)
        if self._current:
            seat.post(PeerConnected(SCHEDULER, self._addresses[self._current]))
        elif self._trouble is not None:
            seat.post(self._trouble)
        return seat

    def detach(self, computation: int) -> None:
        """Forget a cluster that is closed."""
        self._seats.pop(computation, None)

    def explain(self, computation: int, tell: Callable[[list[str]], None]) -> None:
        """Have the scheduler say where a computation stands; without it, say why not."""
        seat = self._seats.get(computation)
        absent = seat.core.explain_absence if seat and isinstance(seat.core, ClusterCore) else list
        self._ask(
            lambda number: AskExplanation(computation, number),
            lambda answer: tell(answer.lines),
            lambda reason: tell([*absent(), reason] if reason else absent()),
        )

    def refusal(self) -> str:
        """Why the scheduler turns us away; '' if it does not."""
        trouble = self._trouble
        return '\n'.join(refused_in_words(trouble)) if trouble and trouble.is_refusal else ''

    def list_nodes(self, tell: Callable[[NodeList], None]) -> None:
        """Have the scheduler list the nodes that it has found."""
        computation = next(iter(self._seats), 0)
        self._ask(
            lambda number: AskNodeList(computation, number),
            lambda answer: tell(NodeList(tuple(answer.rows), answer.places)),
            lambda reason: tell(NodeList((), {}, reason or self._absence())),
        )

    def close(self, reason: str, comes_back: bool = False) -> None:
        """Close every socket."""
        self._driver.turn()
        self._closing.close()

    # questions

    def _ask(
        self,
        question: Callable[[int], Message],
        answered: Callable[[Any], None],
        failed: Callable[[str], None],
    ) -> None:
        """Ask the scheduler, and take no answer for one after a while."""
        if not self._is_linked():
            failed('')
            return
        number = next(self._numbers)

        def late() -> None:
            del self._answers[number]
            failed(f'the scheduler has not answered within {ANSWER_LIMIT:g} s')

        timer = self._driver.loop.call_later(ANSWER_LIMIT, late)

        def take(answer: Any) -> None:
            timer.cancel()
            answered(answer)

        self._answers[number] = take
        self._send(question(number))

    def _expect_a_word(self) -> None:
        """Ask a scheduler that is connected and says nothing: it may hang, as nobody else sees."""
        computation = next(iter(self._seats), 0)
        if self._is_asked_for_a_word or not self._is_quiet() or not computation:
            return
        self._is_asked_for_a_word = True

        def over(reason: str = '') -> None:
            self._is_asked_for_a_word = False
            if reason and self._is_quiet() and self._is_linked():
                self._is_silent = True
                self._missed('it is connected, and does not answer', False)

        self._ask(lambda number: AskExplanation(computation, number), lambda answer: over(), over)

    def _is_quiet(self) -> bool:
        return self._driver.loop.time() - self._heard_at >= QUIET_SECONDS

    def _heard(self) -> None:
        """The scheduler has said something."""
        self._heard_at = self._driver.loop.time()
        if self._is_silent:
            self._is_silent, self._trouble = False, None
            self._post_all(LinkMended(SCHEDULER))

    def _absence(self) -> str:
        if self._trouble is None:
            return 'the scheduler has not answered yet'
        return f'no scheduler answers at {self._trouble.place}: {self._trouble.reason}'

    # what happens on the link

    def _happened(self, event: Event) -> None:
        handler = self._events.get(type(event))
        if handler is not None:
            handler(event)

    def _said(self, event: MessageArrived) -> None:
        """Hand the scheduler's words to the cluster that they are for."""
        if event.peer != self._current:
            return
        self._heard()
        message = event.message
        if isinstance(message, SchedulerPulse):
            self._send(message)  # so each end learns what the other has sent last
            return
        if isinstance(message, Explanation | NodeListing):
            take = self._answers.pop(message.request, None)
            if take is not None:
                take(message)
            return
        seat = self._seats.get(getattr(message, 'computation', 0))
        if seat is not None:
            seat.post(event)

    def _came(self, event: PeerConnected) -> None:
        if len(self._addresses) > MOST_SPARE:
            self._link.disconnect(event.peer)
            return
        self._addresses[event.peer] = event.address
        if not self._current:
            self._use(event.peer)
        elif event.peer != self._current and not self._is_linked():
            self._leave('another scheduler has taken its place')
            self._use(event.peer)

    def _use(self, peer: str) -> None:
        self._current, self._trouble = peer, None
        self._heard_at, self._is_silent = self._driver.loop.time(), False
        self._post_all(PeerConnected(SCHEDULER, self._addresses[peer]))
        self._call.linked()
        self._greeted()

    def _gone(self, event: PeerLost) -> None:
        self._addresses.pop(event.peer, None)
        if event.peer == self._current:
            self._current = ''
            self._post_all(PeerLost(SCHEDULER, event.reason))
            spare = next((peer for peer in self._addresses if self._link.is_up(peer)), '')
            if spare:
                self._use(spare)
            else:
                self._call.lost()

    def _leave(self, reason: str) -> None:
        """Give up the scheduler that is in use."""
        peer, self._current = self._current, ''
        self._addresses.pop(peer, None)
        self._link.disconnect(peer)
        self._post_all(PeerLost(SCHEDULER, reason))

    def _is_linked(self) -> bool:
        return bool(self._current) and self._link.reaches(self._current)

    def _given_up(self, reason: str) -> None:
        if self._current:
            self._leave(reason)
            self._call.lost()

    def _missed(self, reason: str, is_refusal: bool) -> None:
        self._trouble = SchedulerMissed(str(self._options.place), reason, is_refusal)
        self._post_all(self._trouble)
        self._greeted()

    def _post_all(self, event: Event) -> None:
        for seat in list(self._seats.values()):
            seat.post(event)

    def _send(self, message: Message) -> None:
        if self._current:  # else its core will be told, and says it again when there is one
            self._link.send(self._current, message)

    # beginnings

    def _tls_identity(self) -> TlsIdentity | None:
        options = self._options
        if options.certificate is None:
            return None

        def warn(text: str) -> None:
            self._post_all(CertificateExpiring(text))

        watch = ExpiryWatch(self._driver.loop, options.certificate, warn)
        self._closing.callback(watch.close)
        return TlsIdentity(options.certificate, options.secret.proof_key())

    def _listen(self) -> int:
        """Wait for a scheduler that looks for this program (B05); answers with the port."""
        port = self._options.port
        for address in self._options.ip_addr or ['']:
            try:
                port = self._link.listen(address, port, 'port')
            except PortBusy:
                if self._options.is_port_given:
                    raise
                other = self._link.listen(address, 0, 'port')
                _log.info('TCP port %d is in use: port %d was taken instead', port, other)
                port = other
        return port
