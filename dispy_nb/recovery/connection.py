"""Connections of SQLite that a fork of this program must never touch.

SQLite holds its locks for the process that took them.  A fork that ends would close its copy of
the connection, take itself for the last one, and remove what the parent writes to.
"""

import ctypes
import os
import sqlite3

_open: set[sqlite3.Connection] = set()


def adopt(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Take note of a connection, as long as it is open."""
    _open.add(connection)
    return connection


def let_go(connection: sqlite3.Connection) -> None:
    """Close it."""
    _open.discard(connection)
    connection.close()


def _forget_parent() -> None:
    """In a fork: have them never closed, at the end of the interpreter neither."""
    for connection in _open:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
    _open.clear()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_forget_parent)
