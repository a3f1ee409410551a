"""A variable of the environment that other processes shall not see, once it has been read (D7)."""

import ctypes
import os
import sys


def conceal_variable(name: str) -> None:
    """Take a variable out of the environment, and out of what /proc shows of it.

    Each process of the same user can read what stood there when a program began, its jobs too:
    `unsetenv` alone leaves it in place.
    """
    value = os.environb.get(name.encode()) if os.supports_bytes_environ else None
    if value is None:
        os.environ.pop(name, None)
        return
    if sys.platform == 'linux':
        getenv = ctypes.CDLL(None).getenv
        getenv.restype = ctypes.c_void_p
        address = getenv(name.encode())
        if address:
            ctypes.memset(address, 0, len(value))
    del os.environ[name]
