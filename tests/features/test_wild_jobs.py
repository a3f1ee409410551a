"""Jobs that behave as badly as they can: told in words, and no other job notices."""

import contextlib
import ctypes
import gc
import locale
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from dispy_nb import DispyJob
from tests.features.conftest import MakeCluster, Pair
from tests.support.programs import at_once, eventually

LIMIT = 50.0  # a loaded machine takes long over what is large
SOON = 10.0
MB = 1 << 20

both = pytest.mark.parametrize('isolation', ['job', 'worker'])


# what runs on the nodes


def either(function: Callable[..., Any] | None, *args: Any) -> Any:
    """Call the function, if there is one: several kinds of jobs in one cluster."""
    return function(*args) if function else None


def quick(number: int) -> int:
    time.sleep(0.005)
    return number


class Mixed:
    """A cluster on one node of one cpu, with ordinary jobs before and after the wild ones."""

    def __init__(
        self, make_cluster: MakeCluster, pair: Pair, isolation: str, where: int = 0
    ) -> None:
        self.cluster = make_cluster(either, nodes=[pair.addresses[where]], isolation=isolation)
        self.others = [self.cluster.submit(quick, number) for number in range(5)]

    def run(self, wild: Callable[..., Any], *args: Any) -> DispyJob:
        """Run the wild job between others, which have to come back as ever."""
        job = self.cluster.submit(wild, *args)
        self.others += [self.cluster.submit(quick, number) for number in range(5)]
        assert self.cluster.wait(LIMIT), self.cluster.explain()
        assert [other() for other in self.others] == list(range(5)) * (len(self.others) // 5)
        return job

    def then(self, look: Callable[[], Any]) -> Any:
        """Answer what a later job finds."""
        return self.cluster.submit(look)()


# ways to leave


def raising(kind: type[BaseException]) -> None:
    raise kind('on purpose')


def exit_by_name(way: str) -> None:
    {'sys.exit': sys.exit, 'quit': quit, 'exit': exit}[way]()


@pytest.mark.parametrize(
    'kind', [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, BaseException]
)
@both
def test_an_exception_of_any_kind_is_the_jobs_end_and_no_others(
    make_cluster: MakeCluster, pair: Pair, isolation: str, kind: type[BaseException]
) -> None:
    job = Mixed(make_cluster, pair, isolation).run(raising, kind)
    assert job.status == DispyJob.Terminated
    assert job.exception is not None
    assert job.exception.endswith(f'{kind.__name__}: on purpose')
    assert 'in raising' in job.exception


@pytest.mark.parametrize('way', ['sys.exit', 'quit', 'exit'])
@both
def test_leaving_the_interpreter_ends_the_job_alone(
    make_cluster: MakeCluster, pair: Pair, isolation: str, way: str
) -> None:
    job = Mixed(make_cluster, pair, isolation).run(exit_by_name, way)
    assert job.status == DispyJob.Terminated
    assert job.exception is not None
    assert 'SystemExit' in job.exception


def exit_with_0() -> None:
    os._exit(0)


def overflow_c_stack() -> None:
    sys.setrecursionlimit(10**9)
    nested: Any = []
    for _ in range(3 * 10**5):
        nested = [nested]
    repr(nested)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('death', 'words'),
    [
        (exit_with_0, 'its process was ended by os._exit(0), or by exit in C code'),
        (os.abort, 'its process crashed: abort (SIGABRT)'),
        (overflow_c_stack, 'its process crashed: segmentation fault (SIGSEGV)'),
    ],
)
@both
def test_a_process_that_goes_down_is_told_of(
    make_cluster: MakeCluster, pair: Pair, isolation: str, death: Callable[[], None], words: str
) -> None:
    job = Mixed(make_cluster, pair, isolation).run(death)
    assert job.status == DispyJob.Terminated
    assert job.exception is not None
    assert job.exception.startswith(words)


def recurse(depth: int = 0) -> int:
    return recurse(depth + 1)


def chain_of_causes(length: int) -> None:
    error = ValueError('the first')
    for number in range(length):
        later = ValueError(f'number {number}')
        later.__cause__ = error
        error = later
    raise error


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise SystemExit('even that')

    __repr__ = __str__


def unspeakable() -> None:
    raise UnspeakableError


def not_unicode() -> None:
    raise ValueError('half a pair: \ud800')


def out_of_stack() -> None:
    sys.setrecursionlimit(70)
    recurse()


@pytest.mark.parametrize(
    ('wild', 'words'),
    [
        (recurse, 'RecursionError: maximum recursion depth exceeded'),
        (out_of_stack, 'RecursionError: maximum recursion depth exceeded'),
        ((chain_of_causes, 5000), 'ValueError: number 4999'),
        (unspeakable, 'UnspeakableError: <exception str() failed>'),
        (not_unicode, 'ValueError: half a pair: \\ud800'),
    ],
    ids=['recursion', 'low limit', 'chain', 'unspeakable', 'not unicode'],
)
@both
def test_an_exception_that_is_hard_to_tell_of_is_told(
    make_cluster: MakeCluster, pair: Pair, isolation: str, wild: Any, words: str
) -> None:
    job = Mixed(make_cluster, pair, isolation).run(*(wild if type(wild) is tuple else (wild,)))
    assert job.status == DispyJob.Terminated
    assert job.exception is not None
    assert words in job.exception


# too much


def print_much(how: str, size: int) -> int:
    if how == 'subprocess':
        command = f'import os\nfor _ in range({size // MB}): os.write(1, b"#" * {MB})'
        return subprocess.run([sys.executable, '-c', command], check=True).returncode
    for _ in range(size // MB):
        if how == 'text':
            sys.stdout.write('a line of text\n' * (MB // 15))
        else:
            sys.stdout.buffer.write(b'\xff\xfe\0\n' * (MB // 4))
    return 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ('how', 'isolation'),
    [('text', 'job'), ('text', 'worker'), ('binary', 'worker'), ('subprocess', 'job')],
)
def test_a_job_that_prints_a_gigabyte_keeps_beginning_and_end(
    make_cluster: MakeCluster, pair: Pair, isolation: str, how: str
) -> None:
    node = psutil.Process(pair.alpha.pid)
    job = Mixed(make_cluster, pair, isolation).run(print_much, how, 1024 * MB)
    assert (job(), job.status) == (0, DispyJob.Finished)
    assert 2 * MB <= len(job.stdout) < 8 * MB
    assert 'bytes are left out here ...]' in job.stdout
    assert node.memory_info().rss < 400 * MB


def give_much(size: int) -> bytes:
    return b'\x01' * size


@pytest.mark.slow
def test_a_result_of_a_gigabyte_comes_and_its_memory_goes(
    make_cluster: MakeCluster, pair: Pair
) -> None:
    node = psutil.Process(pair.alpha.pid)
    mixed = Mixed(make_cluster, pair, 'job')
    before = node.memory_info().rss
    job = mixed.run(give_much, 1024 * MB)
    assert len(job()) == 1024 * MB
    eventually(lambda: node.memory_info().rss < before + 64 * MB, SOON)


def take_much() -> int:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    return len(bytearray(4 << 30))


@both
def test_a_job_without_memory_left_has_the_error_to_itself(
    make_cluster: MakeCluster, pair: Pair, isolation: str
) -> None:
    job = Mixed(make_cluster, pair, isolation).run(take_much)
    assert job.status == DispyJob.Terminated
    assert job.exception is not None
    assert job.exception.endswith('MemoryError')


def write_too_much(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MB, MB))
    Path('big').write_bytes(bytes(size))


@both
def test_a_job_whose_files_may_not_grow_has_the_error_to_itself(
    make_cluster: MakeCluster, pair: Pair, isolation: str
) -> None:
    job = Mixed(make_cluster, pair, isolation).run(write_too_much, 2 * MB)
    assert job.status == DispyJob.Terminated
    assert job.exception is not None
    assert 'File too large' in job.exception


# what is left behind


def change_everything() -> str:
    """Change whatever a process has; answers what the next job must not find."""
    os.environ['LEFT_BEHIND'] = 'yes'
    os.environ.pop('HOME', None)
    os.chdir('/')
    os.umask(0o777)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    locale.setlocale(locale.LC_ALL, 'C')
    sys.path.clear()
    sys.setrecursionlimit(200)
    sys.setswitchinterval(1000.0)
    sys.stdout = sys.stderr = sys.stdin = None
    gc.disable()
    sys.dont_write_bytecode = True
    globals()['either'] = None
    globals()['quick'] = None
    return 'changed'


def look_around() -> tuple[Any, ...]:
    print('seen')
    print('felt', file=sys.stderr)
    return (
        os.environ.get('LEFT_BEHIND'),
        'HOME' in os.environ,
        str(Path.cwd()) == dispy_job_path,  # type: ignore[name-defined]  # noqa: F821
        callable(quick),
    )


@both
def test_the_next_job_finds_its_surroundings_as_they_were(
    make_cluster: MakeCluster, pair: Pair, isolation: str
) -> None:
    mixed = Mixed(make_cluster, pair, isolation)
    assert mixed.run(change_everything)() == 'changed'
    look = mixed.cluster.submit(look_around)
    assert look() == (None, True, True, True)
    assert (look.stdout, look.stderr) == ('seen\n', 'felt\n')


def replace_streams() -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise SystemExit(f'no {name}')

    sys.stdout = sys.stderr = Broken()  # type: ignore[assignment]


def close_streams() -> None:
    sys.stdout.close()
    sys.stderr.close()
    os.closerange(0, 3)


@pytest.mark.parametrize('wild', [replace_streams, close_streams])
@both
def test_streams_that_a_job_broke_work_in_the_next(
    make_cluster: MakeCluster, pair: Pair, isolation: str, wild: Callable[[], None]
) -> None:
    mixed = Mixed(make_cluster, pair, isolation)
    mixed.run(wild)
    look = mixed.cluster.submit(look_around)
    look()
    assert (look.stdout, look.stderr) == ('seen\n', 'felt\n')


def scribble_on_the_lane() -> str:
    for fd in range(3, 256):
        with contextlib.suppress(OSError):
            if 'socket' in str(Path(f'/proc/self/fd/{fd}').readlink()):
                os.write(fd, os.urandom(1000))
    return 'scribbled'


@both
def test_a_job_that_writes_nonsense_to_its_node_ends_alone(
    make_cluster: MakeCluster, pair: Pair, isolation: str
) -> None:
    job = Mixed(make_cluster, pair, isolation).run(scribble_on_the_lane)
    assert job.status == DispyJob.Terminated
    assert job.exception is not None
    assert job.exception.startswith('its process wrote nonsense into the channel to its node')
    assert 'Traceback' not in pair.alpha.log()


# processes and threads

LEFT = 'left-by-a-wild-job'


def leave_processes(how: str) -> int:
    """Leave processes behind, each of which shows `LEFT` in its command line."""
    command = [sys.executable, '-c', 'import time; time.sleep(60)', LEFT]
    if how == 'child':
        child = subprocess.Popen(command)
        child.returncode = 0  # else its destructor warns
    elif how == 'session':
        child = subprocess.Popen(command, start_new_session=True)
        child.returncode = 0
    elif os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
            os.execv(command[0], command)
        os._exit(0)
    return 1


def left_processes() -> list[int]:
    found = []
    for process in psutil.process_iter(['cmdline', 'status']):
        words = process.info['cmdline'] or []
        if LEFT in words and process.info['status'] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


@pytest.mark.parametrize('how', ['child', 'session', 'daemon'])
@both
def test_processes_that_a_job_leaves_are_gone_after_it(
    make_cluster: MakeCluster, pair: Pair, isolation: str, how: str
) -> None:
    mixed = Mixed(make_cluster, pair, isolation)
    assert mixed.run(leave_processes, how)() == 1
    eventually(lambda: not left_processes(), SOON)


def leave_threads(ending: str) -> str:
    threading.Thread(target=_wait_for, args=(ending,)).start()
    return 'returned'


def _wait_for(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.01)


@both
def test_a_thread_that_is_no_daemon_holds_no_job_up(
    make_cluster: MakeCluster, pair: Pair, isolation: str, own_home: Path
) -> None:
    mixed = Mixed(make_cluster, pair, isolation)
    assert mixed.run(leave_threads, str(own_home / 'ending'))() == 'returned'
    (own_home / 'ending').touch()


def stay(began: str) -> None:
    """Be deaf to every signal that can be ignored, and run for ever."""
    for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError):
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    Path(began).touch()
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(60)


def stay_in_c(began: str) -> None:
    Path(began).touch()
    while True:
        ctypes.PyDLL(None).sleep(60)  # holding the GIL: no handler of Python's can run


@pytest.mark.slow
@pytest.mark.parametrize('wild', [stay, stay_in_c])
def test_a_job_that_never_returns_is_ended_when_it_is_cancelled(
    make_cluster: MakeCluster, pair: Pair, wild: Callable[[str], None], own_home: Path
) -> None:
    isolations = 'job', 'worker'

    def check(isolation: str) -> None:
        mixed = Mixed(make_cluster, pair, isolation, isolations.index(isolation))
        began = own_home / f'{isolation} began'
        job = mixed.cluster.submit(wild, str(began))
        eventually(began.exists, SOON)
        assert mixed.cluster.cancel(job) == 0
        assert job.wait(SOON)
        assert job.status == DispyJob.Cancelled
        mixed.run(quick, 1)

    at_once(check, *isolations)


# its directory


def remove_and_replace() -> None:
    here = Path.cwd()
    shutil.rmtree(here)
    here.symlink_to('/')


def lock_directory() -> None:
    Path('inside').mkdir()
    Path('inside/file').touch()
    Path('inside').chmod(0)
    Path.cwd().chmod(0)


@both
def test_a_directory_that_was_replaced_by_a_link_leads_no_job_astray(
    make_cluster: MakeCluster, pair: Pair, isolation: str
) -> None:
    mixed = Mixed(make_cluster, pair, isolation)
    mixed.cluster.submit(remove_and_replace)()
    later = [mixed.cluster.submit(quick, number) for number in range(5)]
    assert mixed.cluster.wait(LIMIT), mixed.cluster.explain()
    ended = {(job.status, job.result) for job in later}
    assert {status for status, _ in ended} <= {DispyJob.Finished, DispyJob.Terminated}
    mixed.cluster.close()
    assert Path('/etc').is_dir()


@both
def test_a_directory_without_rights_is_removed_all_the_same(
    make_cluster: MakeCluster, pair: Pair, isolation: str, shared_home: Path
) -> None:
    mixed = Mixed(make_cluster, pair, isolation)
    mixed.cluster.submit(lock_directory)()
    mixed.cluster.close()
    eventually(lambda: not list((shared_home / 'tmp').rglob('inside')), SOON)
