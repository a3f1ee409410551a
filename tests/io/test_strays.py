"""Orphans that come to a node are ended and reaped; what it starts itself is left alone."""

import subprocess
import sys

SCRIPT = """
import os, subprocess, sys, time
from nodeserver.io.privileges import adopt_orphans
from nodeserver.io.signals import Signals
from nodeserver.io.strays import Strays, children

assert adopt_orphans()
own = subprocess.Popen(['sleep', '600'])  # what any part of the node may start for a moment
zygote = subprocess.Popen(
    ['sh', '-c', 'sleep 600 & setsid sh -c "sleep 600 & echo there; sleep 600" & wait'],
    start_new_session=True,
    stdout=subprocess.PIPE,
)
strays = Strays(Signals(), lambda: {zygote.pid})
assert zygote.stdout.readline().strip() == b'there'
assert not strays.sweep()
zygote.kill()
zygote.wait()
strays.end()
assert children() == {own.pid}, children()
assert own.poll() is None
own.kill()
own.wait()
print('done')
"""


def test_only_orphans_are_ended() -> None:
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.stdout == 'done\n', done.stderr
