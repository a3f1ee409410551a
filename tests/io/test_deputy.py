"""The deputy of a node, which has the user of jobs and may be stopped by each of them."""

import os
import socket
from pathlib import Path

import pytest

from nodeserver.io.deputy import Deputy
from nodeserver.io.privileges import JobUser


class Stopped(Deputy):
    """Stands in for one that jobs stop over and over: nobody reads what is ordered."""

    def _start(self) -> None:
        self._socket, self.unread = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@pytest.mark.timeout(20)
def test_one_that_is_stopped_holds_up_no_order_for_long(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deputy = Stopped(JobUser(os.getuid(), os.getgid()), tmp_path)
    pidfd = os.pidfd_open(os.getpid())
    try:
        for _ in range(10_000):
            deputy.to_process(pidfd, 15)
            if 'cannot be reached' in caplog.text:
                break
        assert 'cannot be reached' in caplog.text
    finally:
        os.close(pidfd)
        deputy.unread.close()
        deputy.close()
