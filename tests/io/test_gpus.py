"""Gpus are found without touching them, and shown to programs as they were chosen."""

import os
from pathlib import Path

import pytest

from nodeserver.core.errors import UsageError
from nodeserver.io.gpus import gpus_to_offer, visible_gpus
from nodeserver.io.gpuvariables import CUDA, HIP, show

TWO = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-11111111-aaaa-bbbb-cccc-000000000001)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-22222222-aaaa-bbbb-cccc-000000000002)
"""
DIVIDED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-11111111-aaaa-bbbb-cccc-000000000001)
  MIG 3g.20gb     Device  0: (UUID: MIG-5a1b2c3d-1111-2222-3333-000000000001)
  MIG 3g.20gb     Device  1: (UUID: MIG-5a1b2c3d-1111-2222-3333-000000000002)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-22222222-aaaa-bbbb-cccc-000000000002)
"""
FIRST, SECOND = (
    'GPU-11111111-aaaa-bbbb-cccc-000000000001',
    'GPU-22222222-aaaa-bbbb-cccc-000000000002',
)


class Machine:
    """What a machine shows of its gpus, in files of the test."""

    def __init__(self, path: Path) -> None:
        self.driver, self.programs = path / 'driver', path / 'bin'
        self.programs.mkdir()
        self.environment = {'PATH': str(self.programs)}

    def lists(self, text: str, status: int = 0) -> None:
        """Have an `nvidia-smi` that lists this."""
        listed = self.programs / 'listed'
        listed.write_text(text)
        program = self.programs / 'nvidia-smi'
        program.write_text(f'#!/bin/sh\n[ "$1" = -L ] && /bin/cat {listed}\nexit {status}\n')
        program.chmod(0o755)

    def drives(self, *uuids: str) -> None:
        """Have a driver that knows these."""
        for number, uuid in enumerate(uuids):
            directory = self.driver / f'0000:{number + 1:02x}:00.0'
            directory.mkdir(parents=True)
            text = (
                f'Model: \t\t NVIDIA L4\nIRQ:   \t\t 93\nGPU UUID: \t {uuid}\nBus Type: \t PCIe\n'
            )
            (directory / 'information').write_text(text)

    def found(self) -> tuple[str, ...]:
        return visible_gpus(self.environment, self.driver)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine without gpus, so far."""
    return Machine(tmp_path)


def test_a_machine_without_any_has_none(machine: Machine) -> None:
    machine.environment[CUDA] = '0'
    assert machine.found() == ()


def test_what_nvidia_smi_lists_is_there(machine: Machine) -> None:
    machine.lists(TWO)
    assert machine.found() == (FIRST, SECOND)


def test_parts_of_a_divided_gpu_stand_in_its_place(machine: Machine) -> None:
    machine.lists(DIVIDED)
    parts = tuple(f'MIG-5a1b2c3d-1111-2222-3333-00000000000{n}' for n in (1, 2))
    assert machine.found() == (*parts, SECOND)


@pytest.mark.parametrize(
    ('uuids', 'found'),
    [
        ((FIRST, SECOND), (FIRST, SECOND)),
        (('GPU-????????-????-????-????-????????????', SECOND), ('0', '1')),
    ],
)
def test_without_nvidia_smi_the_driver_tells(
    machine: Machine, uuids: tuple[str, ...], found: tuple[str, ...]
) -> None:
    machine.drives(*uuids)
    assert machine.found() == found
    machine.lists('Failed to initialize NVML: Driver/library version mismatch\n', 18)
    assert machine.found() == found


@pytest.mark.parametrize(
    ('chosen', 'found'),
    [
        ('1', ('1',)),
        (f' {SECOND},0', (SECOND, '0')),
        ('', ()),
        ('-1', ()),
        ('NoDevFiles', ('NoDevFiles',)),
        ('0,-1,1', ('0',)),
    ],
)
def test_what_the_environment_chooses_is_kept_to(
    machine: Machine, chosen: str, found: tuple[str, ...]
) -> None:
    machine.lists(TWO)
    machine.environment[CUDA] = chosen
    assert machine.found() == found


@pytest.mark.parametrize(
    ('wanted', 'offered'),
    [
        (None, ('a', 'b')),
        ('0', ()),
        ('1', ('a',)),
        ('2', ('a', 'b')),
        ('1,0', ('1', '0')),
        ('3,', ('3',)),
        (f'{FIRST}', (FIRST,)),
        (' MIG-1 , MIG-2', ('MIG-1', 'MIG-2')),
    ],
)
def test_all_or_some_or_these_are_offered(wanted: str | None, offered: tuple[str, ...]) -> None:
    assert gpus_to_offer(wanted, ('a', 'b')) == offered


@pytest.mark.parametrize('wanted', ['3', '', ',', '0,0', '0,,1', '-1,', 'a b,c', '\u0663'])
def test_what_cannot_be_offered_is_an_error_that_says_so(wanted: str) -> None:
    with pytest.raises(UsageError, match='--gpus'):
        gpus_to_offer(wanted, ('a', 'b'))


def test_programs_see_what_is_shown_and_none_where_there_is_nothing() -> None:
    environment = {'ROCR_VISIBLE_DEVICES': '4,5', 'HOME': os.devnull}
    show(environment, '1,0')
    assert (environment[CUDA], environment[HIP]) == ('1,0', '1,0')
    show(environment, '')
    assert (environment[CUDA], environment[HIP]) == ('', '-1')
    assert environment['ROCR_VISIBLE_DEVICES'] == '4,5'
