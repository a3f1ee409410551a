"""The link between processes: DEALERs to the peers we connect to, ROUTERs for those that do.

    ZmqLink ┬─ Dialer (DEALER, one peer, its session)   ─┐
            ├─ Listener (ROUTER, many peers)            ─┼─▶ post(event)
            └─ Doorkeeper (who may connect)             ─┘

With a certificate, and over local sockets, streams take the place of DEALER and ROUTER.

A peer id is 16 random bytes written as 32 hex characters; this text is also its routing id.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import zmq

from nodeserver.core.events import Event, PeerLost
from nodeserver.core.messages import Message
from nodeserver.core.values import CLIENT_ROLE, NODE_ROLE, RELAY_ROLE, SCHEDULER_ROLE
from nodeserver.io.carried import CarriedDialer, CarriedTlsDialer, CarriedZmqDialer, Carriers
from nodeserver.io.dialer import OTHER_WAY_ROUND, Dialer, Target, log
from nodeserver.io.knocks import TlsKnock, ZmqKnock
from nodeserver.io.linkoptions import LinkOptions, Surroundings
from nodeserver.io.listener import Listener
from nodeserver.io.tlsdial import TlsDialer
from nodeserver.io.tlslisten import TlsListener
from nodeserver.io.tlsthread import TlsThread
from nodeserver.io.unixdial import UnixDialer
from nodeserver.io.unixlisten import UnixListener
from nodeserver.io.zap import Doorkeeper
from nodeserver.io.zmqdial import ZmqDialer
from nodeserver.io.zmqlisten import ZmqListener
from nodeserver.wire.envelope import Introduction
from nodeserver.wire.linkkeys import LinkKeys

_MAX_SOCKETS = 65535
_DISCONNECT_LINGER = 1.0
# whom each takes connections of (D2); a role that is not here takes any
_TAKES = {
    NODE_ROLE: (SCHEDULER_ROLE,),
    RELAY_ROLE: (SCHEDULER_ROLE,),
    SCHEDULER_ROLE: (NODE_ROLE, RELAY_ROLE),
    CLIENT_ROLE: (SCHEDULER_ROLE,),
}
_CLOSED = 'it closed the connection'
_TAKEN_UP_ANEW = 'its connection was lost and taken up anew'


def _nothing() -> None:
    pass


class ZmqLink:
    """Carries messages over ZeroMQ; made, called and closed on the loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        post: Callable[[Event], None],
        us: tuple[str, str],  # peer id and role
        keys: LinkKeys | None,
        options: LinkOptions | None = None,
        posted: Callable[[], None] = _nothing,
    ) -> None:
        # The library's own limit of 1023 sockets would end at 500 peers.
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        context.set(zmq.MAX_SOCKETS, _MAX_SOCKETS)
        options = options or LinkOptions()
        self._tls = TlsThread(loop, options.tls) if options.tls else None
        self._around = Surroundings(loop, context, post, posted, us, keys, options, self._tls)
        self._doorkeeper = Doorkeeper(self._around, keys) if keys and not self._tls else None
        self._dialer_kind: type[ZmqDialer] | type[TlsDialer] = TlsDialer if self._tls else ZmqDialer
        self._carried_kind: type[CarriedZmqDialer] | type[CarriedTlsDialer]
        self._carried_kind = CarriedTlsDialer if self._tls else CarriedZmqDialer
        self._dialers: dict[str, Dialer] = {}
        self._carriers = Carriers(self._around)
        self._listeners: list[Listener] = []

    def listen(self, address: str, port: int, option: str = '--port') -> int:
        """Take connections at an address ('': all, port 0: any); answers with the port.

        Raises `PortBusy`, which names `option`, when another program has the port.
        """
        kind = TlsListener if self._tls else ZmqListener
        listener = kind(self._around, self._admits)
        try:
            bound = listener.bind(address, port, option)
        except (OSError, zmq.ZMQError):
            listener.close(0, '')
            raise
        self._listeners.append(listener)
        return bound

    def listen_local(self, path: str) -> None:
        """Take connections at a local path, without keys: its directory must be ours alone."""
        self._listeners.append(UnixListener(self._around, self._admits, path))

    def connect(
        self, peer: str, address: str, port: int, local_path: str = '', via: str = ''
    ) -> None:
        """Connect to a peer, and keep at it until it is lost or `disconnect` is called."""
        target = Target(address, port, local_path, via)
        dialer = self._dialers.get(peer)
        if isinstance(dialer, CarriedDialer) and replace(dialer.target, via=via) == target and via:
            dialer.target = target  # by another relay from now on: the session goes on
            return
        if self._listener_of(peer) or (dialer and (dialer.target == target or dialer.is_up)):
            return
        if dialer is not None and dialer.is_greeted and type(dialer) is self._kind_for(target):
            self._give_up_predecessors(target)
            dialer.redirect(target)  # it has moved: nothing is lost with its session
            return
        self.disconnect(peer)
        self._give_up_predecessors(target)
        self._dialers[peer] = self._dialer_to(peer, target)

    def use_relay(self, relay: str, host: str, port: int) -> None:
        """Ask this relay there to carry connections from now on; with port 0, not any more."""
        self._carriers.use(relay, host, port)

    def dial(self, target: Target, met: Callable[[], None] = _nothing) -> None:
        """Connect to whoever listens there; who that is shows when it answers: `met` is called."""
        called = f'?{target}'  # no peer id is like that

        def meet(called: str, peer: str) -> None:
            self._met(called, peer)
            met()

        kind = UnixDialer if target.local_path else self._dialer_kind
        self._dialers[called] = kind(self._around, called, target, self._on_gone, meet)

    def ask(
        self, target: Target, answered: Callable[[str, str], None], failed: Callable[[str], None]
    ) -> Dialer:
        """Ask who listens there, beside all links; whoever asks closes what this answers."""
        kind = TlsKnock if self._tls else ZmqKnock
        return kind(self._around, target, answered, failed)

    def has_answered(self, target: Target) -> bool | None:
        """Whether who is dialled there has ever answered; None where nobody is being dialled."""
        for dialer in self._dialers.values():
            if dialer.target == target:
                return dialer.has_answered
        return None

    def is_up(self, peer: str) -> bool:
        """Whether a connection to this peer stands."""
        dialer = self._dialers.get(peer)
        if dialer is not None:
            return dialer.is_up and dialer.is_greeted
        return self._listener_of(peer) is not None

    def reaches(self, peer: str) -> bool:
        """Whether what is sent to this peer now gets on its way."""
        listener = self._listener_of(peer)
        return listener.reaches(peer) if listener is not None else self.is_up(peer)

    def is_linked(self, peer: str) -> bool:
        """Whether there is a connection with this peer, or was, and is being made anew."""
        dialer = self._dialers.get(peer)
        return (dialer is not None and dialer.is_greeted) or self._listener_of(peer) is not None

    def withdraw(self, target: Target) -> None:
        """Dial a place no more where nobody has welcomed us."""
        for called, dialer in list(self._dialers.items()):
            if dialer.target == target and not dialer.is_greeted:
                del self._dialers[called]
                dialer.close(0, 'it connects elsewhere')

    def redirect(self, target: Target, other: Target) -> Target:
        """Go on elsewhere with a link that is broken; where it is then."""
        for dialer in self._dialers.values():
            if dialer.target == target and not dialer.is_up:
                dialer.redirect(other)
                return other
        return target

    def send(self, peer: str, message: Message) -> None:
        """Hand the message over; one for a peer that is not known any more is dropped."""
        route = self._dialers.get(peer)
        if route is not None:
            route.send(message)
            return
        listener = self._listener_of(peer)
        if listener is not None:
            listener.send(peer, message)

    def when_sent(self, peer: str, call: Callable[[], object]) -> None:
        """Have the loop call this once nothing waits to go out to this peer, unless it is lost."""

        def soon() -> None:
            self._around.loop.call_soon(call)

        route, listener = self._dialers.get(peer), self._listener_of(peer)
        if route is not None:
            route.when_sent(soon)
        elif listener is not None:
            listener.when_sent(peer, soon)

    def disconnect(self, peer: str, reason: str = _CLOSED) -> None:
        """Close the connection to a peer and forget what it was still to get."""
        dialer = self._dialers.pop(peer, None)
        if dialer is not None:
            dialer.close(_DISCONNECT_LINGER, reason)
        listener = self._listener_of(peer)
        if listener is not None:
            listener.forget(peer, reason)

    def close(self, linger: float = 1.0) -> None:
        """Send what can be sent within `linger` seconds, then leave nothing behind."""
        for dialer in self._dialers.values():
            dialer.close(linger, 'it ended')
        for listener in self._listeners:
            listener.close(linger, 'it ended')
        self._dialers.clear()
        self._listeners.clear()
        if self._doorkeeper is not None:
            self._doorkeeper.close()
            self._doorkeeper = None
        if self._tls is not None:
            self._tls.close(linger)
        if self._around.options.files is not None:
            self._around.options.files.close()
        self._around.context.term()
        self._carriers.close(linger)

    def _kind_for(self, target: Target) -> type[Dialer]:
        if target.via:
            return self._carried_kind
        return UnixDialer if target.local_path else self._dialer_kind

    def _dialer_to(self, peer: str, target: Target) -> Dialer:
        if target.via:
            return self._carried_kind(self._carriers, peer, target, self._on_gone)
        kind = UnixDialer if target.local_path else self._dialer_kind
        return kind(self._around, peer, target, self._on_gone)

    def _give_up_predecessors(self, target: Target) -> None:
        """Who had this address is gone, whether or not its dialer has noticed.

        That one would come back under our name to the program that is there now, and take the
        connection over from the dialer that is right.
        """
        for dialer in list(self._dialers.values()):
            if dialer.target == target:
                dialer.give_up('another program answers at its address now')

    def _listener_of(self, peer: str) -> Listener | None:
        for listener in self._listeners:
            if listener.has(peer):
                return listener
        return None

    def _on_gone(self, peer: str) -> None:
        self._dialers.pop(peer, None)

    def _met(self, called: str, peer: str) -> None:
        """Who was called by address has said who it is.

        If it connected to us at the same time, it has let go of that connection for this one.
        """
        dialer = self._dialers.pop(called)
        listener = self._listener_of(peer)
        if listener is not None:
            listener.forget(peer, OTHER_WAY_ROUND)
            self._around.post(PeerLost(peer, _TAKEN_UP_ANEW))
        self._dialers[peer] = dialer
        log.info('connected to the program at %s', dialer.target)

    def _admits(self, theirs: Introduction, here: Listener, name: bytes) -> str:
        """Decide over a peer that connects, also while there is another way to it; '' admits it."""
        peer, our_role = theirs.peer, self._around.us[1]
        taken = self._around.options.takes or _TAKES.get(our_role, (theirs.role,))
        if theirs.role not in taken:
            return f'it is a {our_role}, and takes connections of a {" or ".join(taken)} only'
        dialer = self._dialers.get(peer)
        if dialer is not None:
            if self._goes_on(dialer, peer):
                return OTHER_WAY_ROUND
            del self._dialers[peer]
            dialer.close(0, OTHER_WAY_ROUND)
            if dialer.is_greeted:
                self._around.post(PeerLost(peer, _TAKEN_UP_ANEW))
        other = self._listener_of(peer)
        if other is not None and other is not here:
            if not here.is_local and other.name_of(peer) != name:
                return 'a program with this id is connected at another address'
            other.forget(peer, 'it connected at another address')
            self._around.post(PeerLost(peer, 'it connected at another address'))
        return ''

    def _goes_on(self, dialer: Dialer, peer: str) -> bool:
        """Whether our own connection to a peer stays, when that connects to us.

        When both dial each other, the connection of the one with the higher id stays.  Of one that
        stood and is broken, a node must let go: a scheduler that connects has given it up, and a
        node's core would wait for it for an hour.  A scheduler's core gives a node up by itself,
        and may go on where it was until then.
        """
        us, our_role = self._around.us
        if dialer.is_greeted:
            return dialer.is_up or our_role == SCHEDULER_ROLE
        return dialer.is_up and us > peer
