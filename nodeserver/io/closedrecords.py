"""What a dispyscheduler keeps on disk of computations that are closed, until their nodes know.

    RecordClosed ──▶ one commit: nothing else is left of it
    ForgetUntold ──▶ one commit for all nodes of a turn

When they were closed is written by the clock on the wall: the next scheduler has another one.
"""

import sqlite3
from typing import Any, Final

import msgspec

from nodeserver.core.messages import CloseComputation
from nodeserver.core.recoveryeffects import ForgetUntold, RecordClosed
from nodeserver.core.recoveryevents import ClosingKnown
from nodeserver.core.recoverymessages import KnownNode

Change = tuple[str, list[tuple[Any, ...]]]  # SQL, and rows for it

TABLE: Final = """
CREATE TABLE closed (
    id INTEGER PRIMARY KEY, token BLOB NOT NULL, epoch INTEGER NOT NULL, at REAL NOT NULL
)
"""
ADD_NODE: Final = 'INSERT OR REPLACE INTO node VALUES (?, ?, ?, ?, ?)'

_ROW = tuple[int, bytes, int, float]
_NODE = tuple[str, str, int, str]


def closed(effect: RecordClosed, at: float) -> list[Change]:
    """Put a computation that was closed at this time in place of all that was noted of it."""
    message = effect.message
    row = message.computation, message.token, message.epoch, at
    nodes = [node_row(message.computation, node) for node in effect.nodes]
    return [
        *forgotten(message.computation),
        ('INSERT INTO closed VALUES (?, ?, ?, ?)', [row]),
        (ADD_NODE, nodes),
    ]


def told(effect: ForgetUntold) -> list[Change]:
    """Drop nodes that know of a close, and the computations of which all do."""
    columns = zip(effect.computations, effect.nodes, strict=True)
    pairs = [(computation, node) for computation, nodes in columns for node in nodes]
    have_none = 'id = ? AND NOT EXISTS (SELECT 1 FROM node WHERE computation = closed.id)'
    return [
        ('DELETE FROM node WHERE computation = ? AND node = ?', pairs),
        (f'DELETE FROM closed WHERE {have_none}', [(each,) for each in effect.computations]),
    ]


def forgotten(computation: int) -> list[Change]:
    """Drop all that was noted of a computation."""
    row = [(computation,)]
    return [
        ('DELETE FROM placement WHERE computation = ?', row),
        ('DELETE FROM node WHERE computation = ?', row),
        ('DELETE FROM computation WHERE id = ?', row),
        ('DELETE FROM closed WHERE id = ?', row),
    ]


def read_closed(connection: sqlite3.Connection, now: float) -> list[ClosingKnown]:
    """Read which were closed, the oldest first, as things stand at this time."""
    rows = connection.execute('SELECT * FROM closed ORDER BY at').fetchall()
    found = []
    for computation, token, epoch, at in msgspec.convert(rows, list[_ROW], builtin_types=(bytes,)):
        message = CloseComputation(computation, token=token, epoch=epoch)
        nodes = read_nodes(connection, computation)
        found.append(ClosingKnown(message, nodes, max(now - at, 0.0)))
    return found


def node_row(computation: int, node: KnownNode) -> tuple[Any, ...]:
    """Answer what is written of a node that may have something of a computation."""
    return computation, node.node, node.address, node.port, node.via


def read_nodes(connection: sqlite3.Connection, computation: int) -> list[KnownNode]:
    """Read the nodes that may have something of a computation."""
    words = 'SELECT node, address, port, via FROM node WHERE computation = ?'
    found = connection.execute(words, (computation,)).fetchall()
    rows = msgspec.convert(found, list[_NODE], builtin_types=(bytes,))
    return [KnownNode(*each) for each in rows]
