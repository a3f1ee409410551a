"""What killed programs have left is removed; what somebody uses is not."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from nodeserver.io.leftovers import sweep_directories, sweep_sockets
from nodeserver.io.prefix import claim, own


def _pid_of_the_dead() -> int:
    program = subprocess.Popen([sys.executable, '-S', '-c', ''])
    program.wait()
    return program.pid


def test_only_sockets_of_dead_nodes_are_removed(own_home: Path) -> None:
    dead, alive, file = (own_home / name for name in ('node-dead', 'node-alive', 'node-file'))
    file.write_text('no socket')
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as closed:
        listening.bind(str(alive))
        listening.listen()
        closed.bind(str(dead))
        closed.close()
        sweep_sockets(own_home)
        assert (dead.exists(), alive.exists(), file.exists()) == (False, True, True)


def test_only_directories_of_dead_programs_without_a_node_are_removed(tmp_path: Path) -> None:
    dead = _pid_of_the_dead()
    names = f'nodes-{dead}-a', f'nodes-{dead}-b', f'nodes-{os.getpid()}-c', 'nodes-else'
    gone, used, living, other = (tmp_path / name for name in names)
    for directory in (gone, used, living, other):
        own(directory / 'node-1')
    lock = claim(used / 'node-1')
    try:
        sweep_directories(tmp_path, 'nodes-')
    finally:
        os.close(lock)
    assert [path.exists() for path in (gone, used, living, other)] == [False, True, True, True]
