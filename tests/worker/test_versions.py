"""Which packages are installed here, and what of them differs from the client's."""

import importlib.metadata
import importlib.util
import itertools
import os
import sys
from pathlib import Path

import pytest

from dispy_nb.requirements import requirements_of
from nodeserver.distributions import Requirement, installed, normalized, provider_of
from nodeserver.worker.versions import remarks_on

_times = itertools.count(10**9)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def add(root: Path, directory: str, **files: str) -> None:
    (root / directory).mkdir()
    for name, text in files.items():
        (root / directory / name.replace('_txt', '.txt').replace('_INFO', '-INFO')).write_text(text)
    os.utime(root, ns=(0, next(_times)))  # later than the last, however quick this machine is


def test_the_same_versions_are_found_as_by_the_library() -> None:
    found = {name: distribution.version for name, distribution in installed().items()}
    for distribution in importlib.metadata.distributions():
        assert found[normalized(distribution.metadata['Name'])] == distribution.version


def test_modules_are_traced_to_their_distributions() -> None:
    known = {'yaml': 'pyyaml', 'sklearn': 'scikit_learn', 'zmq': 'pyzmq', 'numpy': 'numpy'}
    importable = {name for name in known if importlib.util.find_spec(name)}
    for module in importable:
        provider = provider_of(module)
        assert provider is not None and normalized(provider.name) == known[module]
    assert provider_of('no_such_module') is None


def test_metadata_of_all_times_is_read(packages: Path) -> None:
    add(packages, 'Old_Style-1.0-py3.9.egg-info', top_level_txt='oldmodule\n')
    add(
        packages, 'developed.egg-info', PKG_INFO='Metadata-Version: 2\nVersion: 3.1\n\nVersion: 4\n'
    )
    add(packages, 'new_one-2.0+cu118.dist-info', RECORD='new/__init__.py,,\nnewer.abi3.so,,\n')
    add(packages, 'empty.dist-info')
    found = {name: d.version for name, d in installed().items() if d.directory.parent == packages}
    assert found == {'old_style': '1.0', 'developed': '3.1', 'new_one': '2.0+cu118'}
    names = {module: getattr(provider_of(module), 'name', None) for module in ('new', 'newer')}
    assert names == {'new': 'new_one', 'newer': 'new_one'}
    assert requirements_of(['oldmodule', 'json', 'empty']) == (
        Requirement('oldmodule', 'Old-Style', '1.0'),
    )


def test_a_module_that_several_distributions_have_tells_nothing(packages: Path) -> None:
    add(packages, 'shared_a-1.0.dist-info', RECORD='shared/a.py,,\n')
    add(packages, 'shared_b-1.0.dist-info', RECORD='shared/b.py,,\n')
    assert requirements_of(['shared']) == ()


def test_nothing_is_said_of_what_is_the_same_or_cannot_be_told(packages: Path) -> None:
    add(packages, 'same-1.0.dist-info')
    (packages / 'byhand.py').write_text('raise SystemExit')
    requires = [Requirement('same', 'Same', '1.0'), Requirement('byhand', 'byhand-headless', '1.0')]
    assert remarks_on(requires) == ''
    assert remarks_on([]) == ''
    assert 'byhand' not in sys.modules


def test_what_is_missing_or_differs_has_a_line_each(packages: Path) -> None:
    add(packages, 'differs-1.0.dist-info')
    requires = [Requirement('differs', 'differs', '1.1'), Requirement('missing', 'Missing', '7')]
    first, second = remarks_on(requires).splitlines()
    assert first.startswith('differs is 1.0 there and 1.1 here: ')
    assert second.startswith('Missing is not installed there, and 7 is here: ')
