"""The network of a world in one thread: connections that are slow, cut, reset, and lose things.

    dialer ── Connection.to_listener ──▶ delay, loss, repetition ── is the way open? ─▶ listener
    dialer ◀── Connection.to_dialer ───────────────────────────────────┘ └▶ kept until it is

What it does is drawn from the seed.  Bytes that a connection carries are lost with it; a new one
carries nothing of the old one.  Who finds out that a connection is gone, and when, is as with TCP
and the library above it: at once where the other side's system says so, after missed heartbeats
at the end that dialled, and not before the next connection at the end that listens.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nodeserver.io.linkoptions import LinkOptions
from nodeserver.wire.codec import Frame
from nodeserver.wire.envelope import Kind
from tests.support.agenda import Agenda, Program

_OPTIONS = LinkOptions()
_GREETINGS = (Kind.HELLO, Kind.WELCOME, Kind.REFUSE)


@dataclass(frozen=True, slots=True)
class Faults:
    """What happens to what is carried: chances from 0 to 1, durations in seconds."""

    shortest: float = 0.0002
    longest: float = 0.002
    slow_chance: float = 0.02  # held up for up to `slowest`, with all that is behind it
    slowest: float = 1.0
    lose_chance: float = 0.0  # envelopes
    repeat_chance: float = 0.0
    overtake_chance: float = 0.0  # does not wait for what was sent before it
    datagram_loss: float = 0.1


PERFECT = Faults(shortest=0.0001, longest=0.0001, slow_chance=0.0, datagram_loss=0.0)


class End:
    """A machine's way to the network: what cannot get in or out waits."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.deaf = False
        self.mute = False
        self.is_on = True  # without power nobody there says that a connection is gone
        self.closings = 0  # how often it was closed


class Dialling(Protocol):
    """The end of a connection that dialled."""

    program: Program
    end: End
    is_pulsed: bool  # both sides send pulses, which tell what was lost on the way

    def connected(self, connection: 'Connection') -> None: ...

    def disconnected(self) -> None: ...

    def take(self, frames: Sequence[Frame]) -> None: ...


class Listening(Protocol):
    """The end of connections that listens."""

    program: Program
    end: End

    def accepted(self, name: str, connection: 'Connection') -> None: ...

    def disconnected(self, connection: 'Connection') -> None: ...

    def take(self, connection: 'Connection', frames: Sequence[Frame]) -> None: ...


class Connection:
    """One TCP connection; each side believes in it for itself."""

    def __init__(self, network: 'Network', dialer: Dialling, listener: Listening) -> None:
        self.network = network
        self.dialer, self.listener = dialer, listener
        self.dialer_up = self.listener_up = True
        self.busy_until = [0.0, 0.0]
        self.greeted_at = [0.0, 0.0]  # when the latest greeting is there
        self.greetings = [0, 0]

    def to_listener(self, frames: Sequence[Frame]) -> None:
        """Send from the end that dialled."""
        if self.dialer_up:
            self.network.envelope(self, 0, frames)

    def to_dialer(self, frames: Sequence[Frame]) -> None:
        """Send from the end that listens."""
        if self.listener_up:
            self.network.envelope(self, 1, frames)

    def close_at_dialer(self) -> None:
        """The dialling end closes it; the other one is told behind what is under way."""
        if self.dialer_up:
            self.dialer_up = False
            if self.dialer.end.is_on:
                self._tell_listener()

    def close_at_listener(self) -> None:
        """The listening end closes it; the other one is told behind what is under way."""
        if self.listener_up:
            self.listener_up = False
            if self.listener.end.is_on:
                self._tell_dialer()

    def drops(self) -> list[tuple[Program, Callable[[], None]]]:
        """What breaks it, for each end."""
        return [
            (self.dialer.program, self.drop_at_dialer),
            (self.listener.program, self.drop_at_listener),
        ]

    def _tell_listener(self) -> None:
        self.network.in_order(self, 0, *self.drops()[1])

    def _tell_dialer(self) -> None:
        self.network.in_order(self, 1, *self.drops()[0])

    def drop_at_listener(self) -> None:
        """The listening end finds it closed."""
        if self.listener_up:
            self.listener_up = False
            if self.listener.program.is_alive:
                self.listener.disconnected(self)

    def drop_at_dialer(self) -> None:
        """The dialling end finds it closed."""
        if self.dialer_up:
            self.dialer_up = False
            if self.dialer.program.is_alive:
                self.dialer.disconnected()

    def way(self, direction: int) -> tuple[End, End]:
        """From where to where."""
        ends = (self.dialer.end, self.listener.end)
        return ends if direction == 0 else (ends[1], ends[0])

    def arrive(self, direction: int, frames: Sequence[Frame]) -> None:
        """Hand over what has come; an end that does not know the connection says so."""
        if direction == 0:
            if self.listener_up and self.listener.program.is_alive:
                self.listener.take(self, frames)
            elif self.dialer_up and self.listener.end.is_on:
                self._tell_dialer()
        elif self.dialer_up and self.dialer.program.is_alive:
            self.dialer.take(frames)
        elif self.listener_up and self.dialer.end.is_on:
            self._tell_listener()

    def arrive_late(self, direction: int, frames: Sequence[Frame], greetings: int) -> None:
        """Hand over what others have overtaken, unless a greeting was among them."""
        if self.greetings[direction] == greetings:
            self.arrive(direction, frames)


_Parcel = tuple[Connection, int, Program, Callable[..., object], tuple[Any, ...]]


class Network:
    """Carries what is sent, and breaks what it is told to break."""

    def __init__(self, agenda: Agenda, rng: random.Random, faults: Faults) -> None:
        self.agenda = agenda
        self.faults = faults
        self.carried = 0
        self._random = rng
        self._held: list[_Parcel] = []
        self._connections: list[Connection] = []

    # carrying

    def envelope(self, connection: Connection, direction: int, frames: Sequence[Frame]) -> None:
        """Carry an envelope, if it is not lost; nothing is lost with a greeting or passes one.

        The wire below keeps its order, so that whatever follows a greeting is of the session that
        was greeted.  Within a session the order is the session's own concern.
        """
        faults, chance = self.faults, self._random.random
        is_greeting = frames[0][0] in _GREETINGS
        loses = faults.lose_chance and connection.dialer.is_pulsed
        if not is_greeting and loses and chance() < faults.lose_chance:
            return
        receiver = (connection.dialer if direction else connection.listener).program
        parcel = connection, direction, receiver, connection.arrive, (direction, frames)
        if is_greeting:
            connection.greetings[direction] += 1
            self._carry_in_order(parcel)
            connection.greeted_at[direction] = connection.busy_until[direction]
            return
        repeats = faults.repeat_chance and chance() < faults.repeat_chance
        overtakes = faults.overtake_chance and chance() < faults.overtake_chance
        if repeats or overtakes:
            era = connection.greetings[direction]
            now = self.agenda.clock.now
            due = now + self._delay() + self._random.uniform(0.0, 0.1)
            seconds = max(due, connection.greeted_at[direction]) - now
            args = (direction, frames, era)
            self._carry(seconds, (connection, direction, receiver, connection.arrive_late, args))
        if repeats or not overtakes:
            self._carry_in_order(parcel)

    def in_order(
        self, connection: Connection, direction: int, receiver: Program, call: Callable[[], None]
    ) -> None:
        """Carry a system's word on a connection, behind all that was sent on it."""
        self._carry_in_order((connection, direction, receiver, call, ()))

    def _carry_in_order(self, parcel: _Parcel) -> None:
        busy, direction = parcel[0].busy_until, parcel[1]
        now = self.agenda.clock.now
        due = max(now + self._delay(), busy[direction])
        busy[direction] = due
        self._carry(due - now, parcel)

    def _carry(self, seconds: float, parcel: _Parcel) -> None:
        self.agenda.later(seconds, parcel[2], self._arrive, parcel)

    def _delay(self) -> float:
        faults, chance = self.faults, self._random.random
        delay = faults.shortest + chance() * (faults.longest - faults.shortest)
        if faults.slow_chance and chance() < faults.slow_chance:
            delay += chance() * faults.slowest
        return delay

    def _arrive(self, parcel: _Parcel) -> None:
        source, target = parcel[0].way(parcel[1])
        if source.mute or target.deaf:
            self._held.append(parcel)
        else:
            self.carried += 1
            parcel[3](*parcel[4])

    def datagram(self, source: End, target: End, call: Callable[..., object], *args: Any) -> None:
        """Carry a datagram, or lose it."""
        if not (source.mute or target.deaf or self._random.random() < self.faults.datagram_loss):
            self.agenda.later(self._delay(), None, call, *args)

    # connections

    def is_open(self, one: End, other: End) -> bool:
        """Whether something can pass both ways."""
        return not (one.mute or one.deaf or other.mute or other.deaf)

    def connect(self, dialer: Dialling, listener: Listening, name: str) -> None:
        """Make a connection; it is there after a few round trips if both still want it."""

        def handshake() -> None:
            if not (dialer.program.is_alive and self.is_open(dialer.end, listener.end)):
                return
            if listener.program.is_alive:
                connection = Connection(self, dialer, listener)
                self._connections = [c for c in self._connections if c.dialer_up or c.listener_up]
                self._connections.append(connection)
                listener.accepted(name, connection)
                dialer.connected(connection)

        self.agenda.later(6 * self._delay(), None, handshake)

    def closed_by(self, program: Program) -> None:
        """A program is gone, and its system closes its connections."""
        for connection in self._connections:
            if connection.dialer.program is program:
                connection.close_at_dialer()
            elif connection.listener.program is program:
                connection.close_at_listener()

    def forget_dialer(self, program: Program) -> None:
        """Have those who listen find out that a program is gone whose good-bye was lost."""
        for connection in self._connections:
            if connection.dialer.program is program and connection.listener_up:
                self.agenda.later(self._delay(), None, connection.drop_at_listener)

    def reset(self, end: End) -> None:
        """Break every connection of a machine; what is under way is lost."""
        for connection in self._of(end):
            for program, drop in connection.drops():
                self.agenda.later(self._delay(), program, drop)

    def close(self, end: End, deaf: bool = True, mute: bool = True) -> None:
        """Let nothing in, or nothing out; heartbeats notice it after a while."""
        end.deaf, end.mute = end.deaf or deaf, end.mute or mute
        end.closings += 1
        for connection in self._of(end):
            if connection.dialer_up:
                timeout = _OPTIONS.unacknowledged_timeout + self._random.uniform(
                    0.0, _OPTIONS.heartbeat_interval
                )
                dialling = connection.dialer.program
                self.agenda.later(timeout, dialling, self._miss, connection, end, end.closings)

    def _miss(self, connection: Connection, end: End, closings: int) -> None:
        if end.closings == closings and (end.deaf or end.mute) and connection.dialer_up:
            connection.drop_at_dialer()

    def open(self, end: End) -> None:
        """Let everything pass again; what waited goes on in its order."""
        end.deaf = end.mute = False
        held, self._held = self._held, []
        for parcel in held:
            self._carry_in_order(parcel)
        for connection in self._of(end):
            if connection.dialer_up and not connection.listener_up:
                beat = self._random.uniform(0.0, _OPTIONS.heartbeat_interval)
                self.agenda.later(beat, connection.dialer.program, connection.drop_at_dialer)

    def lose_power(self, end: End) -> None:
        """A machine is gone without a word, and what it was sending with it."""
        end.is_on = False
        self._held = [parcel for parcel in self._held if parcel[0].way(parcel[1])[0] is not end]
        self.close(end)
        for connection in self._of(end):
            if connection.dialer.end is end:
                connection.dialer_up = False
            else:
                connection.listener_up = False

    def _of(self, end: End) -> list[Connection]:
        return [
            c
            for c in self._connections
            if end in (c.dialer.end, c.listener.end) and (c.dialer_up or c.listener_up)
        ]
