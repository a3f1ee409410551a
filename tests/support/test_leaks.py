"""The check for leftovers sees each kind, and lets go what ends by itself."""

import os
import signal
import subprocess
import sys
import threading

import psutil
import pytest
import zmq

from tests.support import leaks
from tests.support.leaks import Snapshot, leftovers
from tests.support.programs import eventually


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(leaks, 'PROCESS_PATIENCE', 0.2)
    monkeypatch.setattr(leaks, 'OTHER_PATIENCE', 0.2)


def test_nothing_is_left_by_nothing():
    assert leftovers(Snapshot.take(), []) == {}


def test_a_process_is_seen_and_killed():
    before = Snapshot.take()
    with subprocess.Popen(['sleep', '60']):
        assert 'sleep 60' in leftovers(before, [])['processes'][0]
        leaks.kill_leftovers(before)
    assert leftovers(before, []) == {}


@pytest.mark.skipif(sys.platform != 'linux', reason='orphans are adopted on Linux only')
def test_an_orphan_is_seen():
    before = Snapshot.take()
    done = subprocess.run(
        ['sh', '-c', 'setsid sleep 60 >/dev/null 2>&1 & echo $!'], capture_output=True, text=True
    )
    orphan = psutil.Process(int(done.stdout))
    eventually(lambda: 'sleep' in orphan.name())
    assert 'sleep 60' in leftovers(before, [])['processes'][0]
    orphan.send_signal(signal.SIGKILL)
    eventually(lambda: leftovers(before, []) == {})


@pytest.mark.parametrize('daemon', [False, True])
def test_a_thread_is_seen(daemon):
    before = Snapshot.take()
    end = threading.Event()
    thread = threading.Thread(target=end.wait, args=(10,), name='forgotten', daemon=daemon)
    thread.start()
    assert 'forgotten' in leftovers(before, [])['threads'][0]
    end.set()
    thread.join()
    assert leftovers(before, []) == {}


def test_a_descriptor_is_seen():
    before = Snapshot.take()
    descriptor = os.open(os.devnull, os.O_RDONLY)
    assert leftovers(before, []) == {'descriptors': [f'{descriptor} {os.devnull}']}
    os.close(descriptor)
    assert leftovers(before, []) == {}


def test_a_zeromq_context_is_seen():
    before = Snapshot.take()
    context = zmq.Context()
    socket = context.socket(zmq.PAIR)
    assert 'contexts' in leftovers(before, [])
    socket.close()
    context.term()
    assert leftovers(before, []) == {}


def test_a_file_is_seen_and_an_empty_directory_is_not(tmp_path):
    before = Snapshot.take()
    (tmp_path / 'directory').mkdir()
    assert leftovers(before, [tmp_path]) == {}
    (tmp_path / 'directory' / 'file').touch()
    assert leftovers(before, [tmp_path]) == {'files': [f'{tmp_path}/directory/file']}


def test_each_test_has_a_home_and_a_temporary_directory_of_its_own(own_home):
    assert os.environ['HOME'] == str(own_home)
    assert os.environ['XDG_RUNTIME_DIR'].startswith(f'{own_home}/')
    assert len(str(own_home)) < 30
