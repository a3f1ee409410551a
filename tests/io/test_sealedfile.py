"""Sealed files: found by their place, changed by nobody, and checked before they are used."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nodeserver.io.sealedfile import (
    FileExchange,
    FileSink,
    SealedFile,
    for_other_processes,
    for_this_process,
    open_place,
    sealed,
    taken_over,
)


def test_a_file_is_opened_by_its_place_from_another_process() -> None:
    file = sealed([b'abc', b'', b'def'], 'test')
    program = (
        'import sys\nfrom nodeserver.io.sealedfile import open_place\n'
        'print(bytes(open_place(sys.argv[1]).mapped()))\n'
    )
    command = [sys.executable, '-c', program, file.place]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "b'abcdef'\n"


def test_a_mapping_can_be_written_and_others_see_nothing_of_it() -> None:
    file = sealed([b'abc'], 'test')
    view = for_this_process(open_place(file.place))
    view[0] = ord('x')
    assert bytes(view) == b'xbc'
    assert bytes(open_place(file.place).mapped()) == b'abc'


def test_a_mapping_needs_no_descriptor_and_ends_with_its_last_user() -> None:
    file = sealed([b'a' * 100_000], 'test')
    before = _open_files()
    views = [for_this_process(open_place(file.place)) for _ in range(50)]
    assert _open_files() == before
    mapped = _mappings()
    parts = [view[10:20] for view in views]
    del views
    assert _mappings() == mapped
    assert all(bytes(part) == b'a' * 10 for part in parts)
    del parts
    gc.collect()
    assert _mappings() == mapped - 50


def _open_files() -> int:
    return len(list(Path('/proc/self/fd').iterdir()))


def _mappings() -> int:
    return Path('/proc/self/maps').read_text().count('memfd:test')


def test_another_file_at_the_place_is_not_taken_for_it() -> None:
    file = sealed([b'abc'], 'test')
    pid, fd, inode, size = map(int, file.place.split(':'))
    for place in (f'{pid}:{fd}:{inode + 1}:{size}', f'{pid}:{fd}:{inode}:{size + 1}'):
        with pytest.raises(OSError, match='another file'):
            open_place(place)


@pytest.mark.parametrize('place', ['', '1:2:3', 'a:b:c:d', '0:0:0:0', '1/../..:0:0:0', '-1:1:1:1'])
def test_a_place_that_is_none_is_refused(place: str) -> None:
    with pytest.raises((OSError, ValueError)):
        open_place(place)


def test_a_file_that_is_not_sealed_is_refused_and_closed() -> None:
    fd = os.memfd_create('x', os.MFD_ALLOW_SEALING)
    with pytest.raises(OSError, match='not sealed'):
        taken_over(fd)
    with pytest.raises(OSError, match='Bad file'):
        os.fstat(fd)


def test_what_is_no_memory_file_is_refused() -> None:
    fd = os.open('/dev/null', os.O_RDONLY)
    try:
        with pytest.raises(OSError, match='Invalid argument'):
            open_place(f'{os.getpid()}:{fd}:0:0')
    finally:
        os.close(fd)


def test_a_sink_ends_as_a_sealed_file() -> None:
    sink = FileSink(6)
    sink.write(b'abc')
    sink.write(memoryview(b'def'))
    file = sink.finish()
    assert bytes(file.mapped()) == b'abcdef'
    with pytest.raises(PermissionError):
        os.write(file.fd, b'x')


def test_a_probe_tells_whether_files_are_within_reach() -> None:
    ours, theirs = FileExchange(for_this_process), FileExchange(for_other_processes)
    assert ours.can_open(theirs.probe)
    place = theirs.probe
    assert isinstance(theirs.open(ours.probe), SealedFile)
    theirs.close()
    assert theirs.probe == ''
    assert not ours.can_open(place)
    assert not ours.can_open('')
