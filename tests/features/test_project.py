"""The user's own modules, and installed packages in other versions, at real nodes."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.programs import free_port, node_program


def write(root: Path, files: Mapping[str, str]) -> None:
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding='utf-8')


def installed(root: Path, name: str, version: str) -> str:
    """Make a directory of packages that has one, of this version; answer a PYTHONPATH with it."""
    packages = root / version / 'site-packages'
    write(
        packages,
        {
            f'{name}.py': f'__version__ = {version!r}\n',
            f'{name}-{version}.dist-info/METADATA': f'Name: {name}\nVersion: {version}\n',
            f'{name}-{version}.dist-info/top_level.txt': f'{name}\n',
        },
    )
    return with_path(packages)


def with_path(directory: Path) -> str:
    return os.pathsep.join(filter(None, [os.environ.get('PYTHONPATH'), str(directory)]))


def run(directory: Path, *, path: str = '') -> subprocess.CompletedProcess[str]:
    """Run `main.py` of a directory, as a user does there."""
    env = {**os.environ, **({'PYTHONPATH': path} if path else {})}
    done = subprocess.run(
        [sys.executable, 'main.py'],
        capture_output=True,
        text=True,
        timeout=40,
        env=env,
        cwd=directory,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope='module')
def node(shared_home: Path) -> Iterator[int]:
    """A node, which has nothing of what the tests write; its port."""
    port = free_port()
    with node_program('-i', '127.0.0.2', '-p', port, '-c', 1, '--name', 'alpha'):
        yield port


@pytest.fixture(autouse=True)
def home_of_the_node(own_home: Path, shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HOME', str(shared_home))
    monkeypatch.setenv('XDG_CONFIG_HOME', str(shared_home / '.config'))
    monkeypatch.setenv('XDG_RUNTIME_DIR', str(shared_home / 'run'))


# own modules (Z09)


@pytest.mark.row('Z09')
def test_functions_and_arguments_of_own_modules_need_no_list(node: int, tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            'project/__init__.py': '',
            'project/work.py': """
factor = 3

class Answer:
    def __init__(self, value):
        self.value = value

def double(x):
    return 2 * x

def compute(point, scale=factor):
    return Answer(double(point.length()) * scale)
""",
            'project/shapes.py': """
import math

class Base:
    def length(self):
        return math.hypot(self.x, self.y)
""",
            'project/points.py': """
from project import shapes
from project.shapes import Base

class Point(Base):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def length(self):
        assert isinstance(self, shapes.Base)
        return super().length()
""",
            'main.py': f"""
import dispy_nb as dispy
from project.points import Point
from project.work import Answer, compute

with dispy.JobCluster(compute, nodes=['127.0.0.2'], ip_addr='127.0.0.1', port=0,
                      node_port={node}) as cluster:
    jobs = [cluster.submit(Point(3, 4)), cluster.submit(Point(6, 8), scale=1)]
    answers = [job() for job in jobs] + cluster.map([Point(0, 1)])
    print([answer.value for answer in answers], {{type(answer) is Answer for answer in answers}})
""",
        },
    )
    done = run(tmp_path)
    assert (done.stdout, done.stderr) == ('[30.0, 20.0, 6.0] {True}\n', '')


@pytest.mark.row('Z09')
def test_an_edited_function_is_told_of_and_used_when_it_was_loaded_anew(
    node: int, tmp_path: Path
) -> None:
    write(
        tmp_path,
        {
            'work.py': 'def compute():\n    return "old"\n',
            'main.py': f"""
import importlib, pathlib
import dispy_nb as dispy
import work

def result():
    with dispy.JobCluster(work.compute, nodes=['127.0.0.2'], ip_addr='127.0.0.1', port=0,
                          node_port={node}) as cluster:
        return cluster.submit()()

print(result())
pathlib.Path('work.py').write_text('def compute():\\n    return "edited"\\n')
print(result())
importlib.reload(work)
print(result())
""",
        },
    )
    done = run(tmp_path)
    assert done.stdout == 'old\nold\nedited\n'
    assert done.stderr == (
        'dispy: module work was edited after it was imported, and compute() is sent as it was '
        f'then: importlib.reload(work) takes over what {tmp_path}/work.py says now\n'
    )


@pytest.mark.row('Z09')
def test_a_compiled_module_of_ones_own_is_an_error_at_once(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            'project/__init__.py': '',
            'project/fast.abi3.so': '',
            'main.py': """
import dispy_nb as dispy

def compute():
    from project import fast

try:
    dispy.JobCluster(compute, ip_addr='127.0.0.1', port=0)
except dispy.UsageError as error:
    print(error)
""",
        },
    )
    words = run(tmp_path).stdout
    assert words.startswith(f'compiled modules of your own project cannot be sent: {tmp_path}/pro')
    assert 'project/fast.abi3.so; install their package on the nodes' in words


# versions (Z10)


USES_PACKAGE = """
import dispy_nb as dispy
import faked

def compute():
    import json, faked as there
    return there.__version__

with dispy.JobCluster(compute, nodes={nodes}, ip_addr='127.0.0.1', port=0,
                      node_port={port}) as cluster:
    cluster.wait_for_nodes(len({nodes}), timeout=20)
    jobs = [cluster.submit_node(node) for node in {nodes}]
    cluster.wait()
    print([job.result or job.exception.splitlines()[-1] for job in jobs])
"""
OLD, OTHER, WITHOUT = '127.0.0.2', '127.0.0.3', '127.0.0.4'


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Three nodes at one port: two with version 1.5 of the package, and one without it."""
    port, path = free_port(), installed(tmp_path, 'faked', '1.5')
    with ExitStack() as stack:
        for address, env in (
            (OLD, {'PYTHONPATH': path}),
            (OTHER, {'PYTHONPATH': path}),
            (WITHOUT, {}),
        ):
            stack.enter_context(node_program('-i', address, '-p', port, '-c', 1, env=env))
        yield port


@pytest.mark.row('Z10')
@pytest.mark.slow
def test_packages_that_differ_are_told_with_what_to_do_and_only_those(
    port: int, tmp_path: Path
) -> None:
    nodes = [OLD, OTHER, WITHOUT]
    write(tmp_path, {'main.py': USES_PACKAGE.format(nodes=nodes, port=port)})
    done = run(tmp_path, path=installed(tmp_path, 'faked', '2.0'))
    assert done.stdout == ("['1.5', '1.5', \"ModuleNotFoundError: No module named 'faked'\"]\n")
    lines = sorted(line.split(', ', 1) for line in done.stderr.splitlines())
    assert len(lines) == 2  # one for both nodes of one version
    first, second = (words for _, words in sorted(lines, key=lambda line: line[1]))
    assert first == (
        'faked is 1.5 there and 2.0 here: results may differ; run `pip install faked==2.0` there'
    )
    assert second == (
        'faked is not installed there, and 2.0 is here: if jobs need it, run `pip install '
        'faked==2.0` there'
    )
    assert any(where.endswith(f'({WITHOUT})') for where, _ in lines)

    write(tmp_path, {'main.py': USES_PACKAGE.format(nodes=nodes[:2], port=port)})
    done = run(tmp_path, path=installed(tmp_path, 'faked', '1.5'))
    assert (done.stdout, done.stderr) == ("['1.5', '1.5']\n", '')
