"""A terminal of the test's own, for programs that behave otherwise when they have one."""

import os
import subprocess
import termios
import threading
from collections.abc import Sequence

COLUMNS = 100


def on_terminal(command: Sequence[str], timeout: float = 40) -> str:
    """Run a program on a terminal to its end, which must be good; answer what it sent there."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (25, COLUMNS))
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    clock = threading.Timer(timeout, process.kill)
    clock.start()
    said = bytearray()
    try:
        while chunk := _read(ours):
            said += chunk
        status = process.wait()
    finally:
        clock.cancel()
        clock.join()
        process.kill()
        process.wait()
        os.close(ours)
    text = said.decode().replace('\r\n', '\n')
    assert status == 0, f'exit status {status} within {timeout} s\n{text}'
    return text


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the last program has let go of the terminal
        return b''
