"""Which modules of the user's own project a function reaches, found without importing any."""

import importlib
import importlib.util
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dispy_nb.project import ByValue, find_project, look_through, own_modules_loaded
from nodeserver.core.errors import UsageError
from nodeserver.payload import dump_call


class Tree:
    """A project in a directory from which this program imports."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, files: Mapping[str, str]) -> None:
        """Write files, older than any change that a look would distrust."""
        for path, text in files.items():
            file = self.root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding='utf-8')
        for path in [self.root, *self.root.rglob('*')]:
            os.utime(path, (time.time() - 60,) * 2)

    def load(self, name: str) -> Any:
        importlib.invalidate_caches()
        return importlib.import_module(name)

    def reached(self, *parts: object) -> list[str]:
        """The paths of what is found; each has its source below this directory."""
        files = find_project(parts)
        assert all(file.source.is_relative_to(self.root) for file in files), files
        return [file.path for file in files]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tree]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield Tree(tmp_path)
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], '__file__', '')):
            del sys.modules[name]


def test_a_function_that_needs_nothing_reaches_nothing(tree: Tree) -> None:
    tree.write({'alone.py': 'import json, helper\ndef work(x):\n    return json.dumps(x)\n'})
    tree.write({'helper.py': ''})
    assert tree.reached(tree.load('alone').work) == []  # its module is not sent: it is
    assert tree.reached('program', None) == []


def test_globals_that_a_function_uses_are_reached(tree: Tree) -> None:
    tree.write(
        {
            'first.py': 'value = 1\n',
            'second.py': 'def f():\n    pass\n',
            'third.py': 'class C:\n    pass\n',
            'fourth.py': 'class D:\n    pass\n',
            'fifth.py': 'def decorate(f):\n    return f\n',
            'unused.py': '',
            'uses.py': (
                'import first, unused\nfrom second import f\nfrom third import C\n'
                'import fourth, fifth\nthings = {"a": [fourth.D()]}\n'
                'def inner(x: C):\n    return things\n'
                '@fifth.decorate\n'
                'def work(x, y=f):\n    def deep():\n        return first.value\n'
                '    return inner(x), deep\n'
            ),
        }
    )
    found = ['first.py', 'fourth.py', 'second.py', 'third.py']
    assert tree.reached(tree.load('uses').work) == found


def test_imports_in_functions_are_reached_in_nested_ones_too(tree: Tree) -> None:
    names = '\n'.join(f'    n{number} = a.b.n{number}' for number in range(300))
    tree.write(
        {
            'a/__init__.py': '',
            'a/b/__init__.py': '',
            'a/b/c.py': '',
            'a/near.py': '',
            'a/uses.py': (
                f'def work(a):\n{names}\n'
                '    def deep():\n        import a.b.c\n        from . import near\n'
                '        from .b import nothing_of_this_name\n        from ... import too_high\n'
                '    return deep\n'
            ),
        }
    )
    found = ['a/__init__.py', 'a/b/__init__.py', 'a/b/c.py', 'a/near.py']
    assert tree.reached(tree.load('a.uses').work) == found


def test_what_modules_import_is_reached_at_any_depth(tree: Tree) -> None:
    tree.write(
        {
            'pkg/__init__.py': 'from . import start\n',
            'pkg/start.py': 'class S:\n    def m(self):\n        from .sub import leaf\n',
            'pkg/sub/__init__.py': 'from .. import other as o, start\nfrom .star import *\n',
            'pkg/sub/leaf.py': 'try:\n    import absent\nexcept ImportError:\n    import side\n',
            'pkg/sub/star/__init__.py': '__all__ = ["one", "t"]\n__all__ += ["two"]\nt = ""\n',
            'pkg/sub/star/one.py': 'match 1:\n    case 1:\n        import in_case\n',
            'pkg/sub/star/two.py': 'def broken(:\n',
            'pkg/sub/star/three.py': '',
            'pkg/other.py': 'import pkg.start\nimport space.inner\n',
            'side.py': '',
            'in_case.py': '',
            'space/inner/__init__.py': '',
            'uses.py': 'def work():\n    import pkg\n',
        }
    )
    assert tree.reached(tree.load('uses').work) == [
        'in_case.py',
        'pkg/__init__.py',
        'pkg/other.py',
        'pkg/start.py',
        'pkg/sub/__init__.py',
        'pkg/sub/leaf.py',
        'pkg/sub/star/__init__.py',
        'pkg/sub/star/one.py',
        'pkg/sub/star/two.py',
        'side.py',
        'space/inner/__init__.py',
    ]
    assert 'pkg' not in sys.modules


def test_what_never_runs_on_a_node_is_not_reached(tree: Tree) -> None:
    tree.write(
        {
            'types_only.py': '',
            'types_too.py': '',
            'plots.py': '',
            'named.py': '',
            'runs.py': '',
            'lib.py': (
                'import typing\nfrom typing import TYPE_CHECKING\n'
                'if TYPE_CHECKING:\n    import types_only\nelse:\n    import runs\n'
                'if typing.TYPE_CHECKING:\n    import types_too\n'
                'if __name__ == "__main__":\n    import plots\n'
                'import importlib\nimportlib.import_module("named")\n'
            ),
            'uses.py': 'def work():\n    import lib\n',
        }
    )
    assert tree.reached(tree.load('uses').work) == ['lib.py', 'runs.py']


def test_python_installed_packages_and_we_are_no_project(tree: Tree) -> None:
    tree.write(
        {
            'venv/site-packages/installed.py': 'import hidden\n',
            'hidden.py': '',
            'numpy/data.txt': '',  # no package: an installed one of this name goes before it
            'uses.py': (
                'import numpy, dispy_nb\nfrom nodeserver.payload import dump_call\n'
                'def work():\n    import json, installed, psutil, tkinter.ttk\n'
                '    return numpy, dump_call, dispy_nb\n'
            ),
        }
    )
    sys.path.append(str(tree.root / 'venv/site-packages'))  # the fixture restores it
    project = look_through([tree.load('uses').work])
    assert project.files == ()
    assert [needed.module for needed in project.requires] == ['numpy', 'psutil']


def test_a_part_of_a_shared_namespace_can_be_ones_own(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.write({'venv/site-packages/shared/theirs.py': '', 'shared/mine.py': ''})
    tree.write({'uses.py': 'def work():\n    import shared.theirs, shared.mine\n'})
    monkeypatch.setattr(sys, 'path', [str(tree.root / 'venv/site-packages'), *sys.path])
    assert tree.reached(tree.load('uses').work) == ['shared/mine.py']


def test_a_search_path_with_nonsense_is_searched_as_import_does(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.write({'lib.py': 'import psutil\n', 'uses.py': 'def work():\n    import lib\n'})
    work, gone = tree.load('uses').work, tree.root / 'gone'
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(sys, 'path', ['', b'bytes', None, tree.root, '/dev/null', *sys.path])
    assert tree.reached(work) == ['lib.py']
    assert [needed.module for needed in look_through([work]).requires] == ['psutil']


def test_a_linked_module_goes_under_its_name(tree: Tree, tmp_path_factory: Any) -> None:
    elsewhere = tmp_path_factory.mktemp('elsewhere') / 'real.py'
    elsewhere.write_text('import helper\n')
    tree.write({'helper.py': '', 'uses.py': 'def work():\n    import link\n'})
    (tree.root / 'link.py').symlink_to(elsewhere)
    assert tree.reached(tree.load('uses').work) == ['helper.py', 'link.py']


def test_modules_that_were_loaded_from_elsewhere_are_found_there(tree: Tree) -> None:
    tree.write({'plugins/odd-name.py': 'class P:\n    pass\n', 'uses.py': 'P = None\n'})
    spec = importlib.util.spec_from_file_location('plugin', tree.root / 'plugins/odd-name.py')
    assert spec is not None and spec.loader is not None
    module = sys.modules['plugin'] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def work() -> Any:
        return module.P()

    [file] = find_project([work, module.P])
    assert (file.path, file.source) == ('plugin.py', tree.root / 'plugins/odd-name.py')


def test_editable_installs_are_found_by_their_finders(
    tree: Tree, tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path_factory.mktemp('source')
    for name, text in (('__init__', ''), ('part', 'from . import leaf'), ('leaf', '')):
        (source / f'{name}.py').write_text(text)

    class Finder:
        """As setuptools puts one there."""

        @classmethod
        def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
            if name != 'editable':
                return None
            file = source / '__init__.py'
            return importlib.util.spec_from_file_location(
                name, file, submodule_search_locations=[str(source)]
            )

    class Broken:
        @classmethod
        def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
            raise RuntimeError(name)

    monkeypatch.setattr(sys, 'meta_path', [*sys.meta_path, Broken, Finder])
    tree.write({'uses.py': 'def work():\n    import editable.part\n'})
    files = find_project([tree.load('uses').work])
    assert [file.path for file in files] == [
        'editable/__init__.py',
        'editable/leaf.py',
        'editable/part.py',
    ]


def test_compiled_modules_are_refused_by_name(tree: Tree) -> None:
    fast = f'pkg/fast{EXTENSION_SUFFIXES[0]}'
    tree.write({'pkg/__init__.py': 'from . import fast\n', fast: '', 'pkg/fast.py': ''})
    tree.write({'uses.py': 'def work():\n    import pkg\n', 'old.pyc': ''})
    with pytest.raises(UsageError, match=f'cannot be sent: {tree.root / fast}; install'):
        find_project([tree.load('uses').work])
    tree.write({'more.py': 'def work():\n    import old\n'})
    with pytest.raises(UsageError, match=r'old\.pyc; install their package on the nodes'):
        find_project([tree.load('more').work])


def test_compiled_packages_of_pythonpath_are_the_nodes_own(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = f'opt/pkg/fast{EXTENSION_SUFFIXES[0]}'
    tree.write({'opt/pkg/__init__.py': 'from . import fast\n', fast: '', 'opt/plain.py': ''})
    tree.write({'prog/uses.py': 'def work():\n    import pkg, plain\n', 'prog/near.py': ''})
    entries = [str(tree.root / 'opt'), str(tree.root / 'prog')]
    monkeypatch.setattr(sys, 'path', [*entries, *sys.path])
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join(entries))
    monkeypatch.chdir(tree.root / 'prog')
    assert tree.reached(tree.load('uses').work) == ['plain.py']
    tree.load('plain')
    tree.load('near')  # of the two, only arguments of this one travel with their class
    assert own_modules_loaded() & {'plain', 'near'} == {'near'}
    monkeypatch.chdir(tree.root)
    with pytest.raises(UsageError, match='cannot be sent'):
        find_project([tree.load('uses').work])


def test_too_large_projects_are_refused_with_the_largest_files(tree: Tree) -> None:
    tree.write({'big.py': '', 'small.py': '#', 'uses.py': 'def work():\n    import small, big\n'})
    os.truncate(tree.root / 'big.py', 50_000_000)
    with pytest.raises(UsageError) as refused:
        find_project([tree.load('uses').work])
    words = str(refused.value)
    assert '50,000,001 bytes, 50,000,000 are allowed' in words
    assert f': {tree.root / "big.py"} (50,000,000 bytes), ' in words
    os.truncate(tree.root / 'small.py', 0)
    assert tree.reached(tree.load('uses').work) == ['big.py', 'small.py']


def test_edited_imports_are_seen_at_once(tree: Tree) -> None:
    tree.write({'lib.py': 'import one\n', 'one.py': '', 'uses.py': 'def work():\n    import lib\n'})
    work = tree.load('uses').work
    assert tree.reached(work) == ['lib.py', 'one.py']
    for text in ('import two', 'import one', 'import two'):  # of one length, as quick as can be
        (tree.root / 'two.py').write_text('')
        (tree.root / 'lib.py').write_text(text + '\n')
        assert tree.reached(work) == ['lib.py', f'{text[-3:]}.py']
        (tree.root / 'two.py').unlink()
        if text == 'import two':
            assert tree.reached(work) == ['lib.py']


def test_a_second_look_at_a_project_is_quick(tree: Tree) -> None:
    modules = {
        f'app/x{number}.py': f'import os, sys\nimport app.x{(number + 7) % 50}\nfrom . import y\n'
        for number in range(50)
    }
    tree.write({'app/__init__.py': '', 'app/y.py': '', **modules})
    tree.write({'uses.py': 'def work():\n    import app.x0\n'})
    work, seconds = tree.load('uses').work, []
    for _ in range(6):
        began = time.thread_time()
        assert len(tree.reached(work)) == 52
        seconds.append(time.thread_time() - began)
    assert min(seconds[1:]) < 0.02  # 3 ms on a machine that is not busy


def test_what_cannot_be_pickled_is_left_to_the_pickler(tree: Tree) -> None:
    lock = threading.Lock()

    def work() -> Any:
        return lock

    assert find_project([work]) == []


# edited since it was loaded


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, 'dispy_nb')
    return caplog


def test_a_function_edited_after_its_import_is_warned_of_once(
    tree: Tree, warnings: pytest.LogCaptureFixture
) -> None:
    (tree.root / 'edited.py').write_text('def work(x):\n    return [y + 1 for y in x]\n')
    module = tree.load('edited')
    find_project([module.work])
    (tree.root / 'edited.py').write_text('# moved\n\ndef work(x):\n    return [y + 1 for y in x]\n')
    find_project([module.work])
    assert warnings.messages == []
    # of another size: within a second, Python takes a text of the same size for compiled already
    (tree.root / 'edited.py').write_text('def work(x):\n    return [y + 200 for y in x]\n')
    find_project([module.work])
    find_project([module.work])
    [warning] = warnings.messages
    assert warning.startswith('module edited was edited after it was imported, and work() is sent')
    assert 'importlib.reload(edited)' in warning
    importlib.reload(module)
    (tree.root / 'edited.py').touch()
    find_project([module.work])
    assert len(warnings.messages) == 1


# arguments


def test_own_modules_that_are_loaded_are_known_with_each_new_one(tree: Tree) -> None:
    tree.write({'own_one.py': '', 'own_two.py': ''})
    tree.load('own_one')
    assert {'own_one', __name__} <= own_modules_loaded()
    assert not {'json', 'pytest', 'dispy_nb', 'nodeserver.payload', '__main__', 'own_two'} & (
        own_modules_loaded()
    )
    tree.load('own_two')
    assert 'own_two' in own_modules_loaded()


def test_arguments_go_by_value_unless_their_module_is_sent(tree: Tree) -> None:
    text = 'class P:\n    def __init__(self):\n        self.x = 1\n'
    tree.write({'sent.py': text, 'kept.py': text, 'keptlonger.py': '', 'uses.py': ''})
    sent, kept = tree.load('sent'), tree.load('kept')
    names = ByValue(['uses'], {'sent'})
    assert {'uses', 'kept'} <= set(names) and 'sent' not in names
    assert b'_make_skeleton_class' not in dump_call((sent.P(),), {}, names)
    assert b'_make_skeleton_class' in dump_call((kept.P(),), {}, names)
    assert b'_make_' not in dump_call(('kept', ['keptlonger']), {'uses': 'kep'}, names)
    tree.load('keptlonger')
    assert 'keptlonger' in names


def test_modules_that_load_themselves_when_looked_at_are_left_asleep() -> None:
    class Sleeping(ModuleType):
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError('awake')

    sys.modules['sleeping_module'] = Sleeping('sleeping_module')
    try:
        assert 'sleeping_module' not in own_modules_loaded()
    finally:
        del sys.modules['sleeping_module']
