"""Signals to the processes of computations."""

import os
import signal
from contextlib import suppress


class Signals:
    """Sent by this process, as they are its own user's."""

    def to_process(self, pidfd: int, number: int) -> None:
        """Send one to a process; nothing happens where it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, number)

    def to_group(self, pid: int, pidfd: int, number: int) -> None:
        """Send one to the group that a process leads, or to it alone if it does not yet."""
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            self.to_process(pidfd, number)
