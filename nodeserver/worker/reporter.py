"""The worker's end of its lane, on the writing side: whole reports, from any thread of the job."""

import signal
import socket
import threading

from nodeserver.wire.lane import BIG_BODY, REPORT_HEAD

INTERRUPT = frozenset((signal.SIGINT,))


class Reporter:
    """Writes reports about the job that this process is in."""

    def __init__(self, lane: socket.socket) -> None:
        self._lane = lane
        self._lock = threading.Lock()
        self.job = 0

    def report(self, kind: int, body: bytes, seconds: float = 0.0) -> None:
        """Write one report; the caller has blocked the interrupt, which would cut it in two."""
        head = REPORT_HEAD.pack(kind, self.job, seconds, len(body))
        with self._lock:
            if len(body) < BIG_BODY:
                self._lane.sendall(head + body)
            else:
                self._lane.sendall(head)
                self._lane.sendall(body)

    def report_while_running(self, kind: int, body: bytes) -> None:
        """Write one report from within the user's code."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPT)
        try:
            self.report(kind, body)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
