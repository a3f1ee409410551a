"""Every test has a home of its own, leaves nothing behind, and says which rows it shows."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import hypothesis
import pytest

from tests.support import leaks, netns, rows

_row_tests: rows.RowTests = {}
_ROOT = Path(__file__).parent.parent
_JOURNALS = '_dispy_*'  # where a program was started: here, unless a test says otherwise
_old_journals = frozenset(_ROOT.glob(_JOURNALS))
# whatever of the caller's surroundings could reach a program under test
_FOREIGN = ('DISPY_', 'IPYTHON', 'JUPYTER', 'XDG_')


def pytest_configure() -> None:
    """See the orphans of programs under test; let nobody's load fail a property."""
    hypothesis.settings.register_profile('dispy', deadline=None, print_blob=True)
    hypothesis.settings.load_profile('dispy')
    leaks.adopt_orphans()
    # what a script runs in its background is deaf to interrupts, and so were our programs
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse ids that docs/features.md does not have; the others go along with the reports."""
    for item in items:
        ids = [row for mark in item.iter_markers('row') for row in mark.args]
        if wrong := rows.unknown(ids):
            raise pytest.UsageError(f'{item.nodeid}: no such row: {", ".join(wrong)}')
        if ids:
            item.user_properties.append(('rows', ids))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs namespaces where there can be none; a tool that CI forgot is a failure."""
    mark = item.get_closest_marker('netns')
    reason = netns.available(**mark.kwargs) if mark else ''
    if reason.startswith('no ') and os.environ.get('CI') == 'true':
        pytest.fail(f'{reason}: install it', pytrace=False)
    if reason:
        pytest.skip(reason)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember the worst outcome of the test's three phases, for each row that it shows."""
    for name, ids in report.user_properties:
        for row in ids if name == 'rows' else ():
            outcomes = _row_tests.setdefault(row, {})
            if report.outcome != 'passed':
                outcomes[report.nodeid] = report.outcome
            else:
                outcomes.setdefault(report.nodeid, 'passed')


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In the process that has all reports: write the rows that were shown, look for journals."""
    if hasattr(session.config, 'workerinput'):
        return
    if _row_tests:
        rows.merge(_row_tests)
    if left := _left_journals():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        session.config.get_terminal_writer().line(f'\nleft behind by tests: {", ".join(left)}')


def _left_journals() -> list[str]:
    """Those that nobody has open: other tests may run here at the same time."""
    left = set(_ROOT.glob(_JOURNALS)) - _old_journals
    held = set()
    for descriptor in Path('/proc').glob('[0-9]*/fd/*') if left else ():
        with suppress(OSError):  # it has been closed, or belongs to somebody else
            held.add(descriptor.readlink())
    return sorted(path.name for path in left - held if path.exists())


@pytest.fixture(autouse=True, scope='session')
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep fixtures that serve several tests out of the home of whoever runs them."""
    tmp_path_factory.getbasetemp()  # found now, else it would lie in the directory made here
    home = Path(tempfile.mkdtemp(prefix='dn', dir='/tmp'))  # short: socket paths end at 107
    with pytest.MonkeyPatch.context() as patch:
        _settle_in(home, patch)
        yield home
    shutil.rmtree(home)


@pytest.fixture(autouse=True)
def own_home(
    request: pytest.FixtureRequest, shared_home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Give the test its own home and temporary directory; fail it if anything is left over."""
    home = Path(tempfile.mkdtemp(prefix='dn', dir='/tmp'))
    before = leaks.Snapshot.take()
    _settle_in(home, monkeypatch)
    yield home
    allowed = {kind for mark in request.node.iter_markers('leaves') for kind in mark.args}
    assert allowed <= set(leaks.KINDS)
    left = leaks.leftovers(before, [home / 'tmp', home / 'run'], allowed)
    if left or 'processes' in allowed:
        leaks.kill_leftovers(before)
    shutil.rmtree(home)
    story = [f'{kind}: {", ".join(things)}' for kind, things in left.items()]
    if story:
        pytest.fail('left behind by the test:\n' + '\n'.join(story), pytrace=False)


def _settle_in(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('tmp', 'run', '.config'):
        (home / name).mkdir(mode=0o700)
    for name in list(os.environ):
        if name.startswith(_FOREIGN):
            monkeypatch.delenv(name)
    monkeypatch.setenv('HOME', str(home))
    monkeypatch.setenv('TMPDIR', str(home / 'tmp'))
    monkeypatch.setenv('XDG_CONFIG_HOME', str(home / '.config'))
    monkeypatch.setenv('XDG_RUNTIME_DIR', str(home / 'run'))
    monkeypatch.setattr(tempfile, 'tempdir', str(home / 'tmp'))
