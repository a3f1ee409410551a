"""Memory of the user's arrays: where it lies, whether it has changed, and copies of it.

Long comparisons and copies leave the interpreter to the other threads.
"""

import ctypes
import sys
from mmap import mmap
from typing import TypeVar

from nodeserver.wire.bulk import private_memory

_libc = ctypes.cdll.msvcrt if sys.platform == 'win32' else ctypes.CDLL(None)
_memcmp = _libc.memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_SIMPLE = 0  # PyBUF_SIMPLE

Memory = TypeVar('Memory', bound=mmap)


class _PyBuffer(ctypes.Structure):
    """`Py_buffer` of <Python.h>."""

    _fields_ = (
        ('buf', ctypes.c_void_p),
        ('obj', ctypes.c_void_p),
        ('len', ctypes.c_ssize_t),
        ('itemsize', ctypes.c_ssize_t),
        ('readonly', ctypes.c_int),
        ('ndim', ctypes.c_int),
        ('format', ctypes.c_void_p),
        ('shape', ctypes.c_void_p),
        ('strides', ctypes.c_void_p),
        ('suboffsets', ctypes.c_void_p),
        ('internal', ctypes.c_void_p),
    )


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int)
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = (ctypes.POINTER(_PyBuffer),)
_release_buffer.restype = None


def address_of(content: bytes | memoryview | mmap) -> int:
    """Tell where the memory lies, as long as its owner keeps it there."""
    buffer = _PyBuffer()
    _get_buffer(content, ctypes.byref(buffer), _SIMPLE)
    try:
        return int(buffer.buf or 0)
    finally:
        _release_buffer(ctypes.byref(buffer))


def equal(one: bytes | memoryview | mmap, other: bytes | memoryview | mmap) -> bool:
    """Compare two pieces of memory."""
    if len(one) != len(other):
        return False
    return bool(_memcmp(address_of(one), address_of(other), len(one)) == 0)


def copy_of(pieces: list[bytes | memoryview], size: int, kind: type[Memory]) -> Memory:
    """Copy the pieces, one after the other, into memory of that size."""
    memory = private_memory(size, kind)
    at = address_of(memory)
    for piece in pieces:
        ctypes.memmove(at, address_of(piece), len(piece))
        at += len(piece)
    return memory
