"""Modules of the user's own project go along unlisted, fresh for each cluster (Z09); per node."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.programs import client_program

LIMIT = 45.0


def run(pair: Any, home: Path, program: str) -> str:
    """Run a program in an empty directory, which is its own project."""
    env = {
        'HOME': str(home),
        'XDG_CONFIG_HOME': str(home / '.config'),
        'XDG_RUNTIME_DIR': str(home / 'run'),
    }
    head = (
        'import pathlib, sys\n'
        'import dispy_nb as dispy\n'
        f'OPTIONS = dict(nodes={list(pair.addresses)}, node_port={pair.port}, port=0,\n'
        "               ip_addr='127.0.0.1')\n"
        'def write(name, text):\n'
        '    path = pathlib.Path(__file__).parent / name\n'
        '    path.parent.mkdir(exist_ok=True)\n'
        '    path.write_text(text)\n'
    )
    return client_program(head + program, timeout=LIMIT, env=env).stdout


@pytest.mark.row('Z09')
def test_modules_are_found_and_edited_ones_used_by_the_next_cluster(
    pair: Any, shared_home: Path, own_home: Path
) -> None:
    program = """
write('tools/__init__.py', '')
write('tools/deep.py', 'from tools import values\\ndef answer(): return values.VALUE\\n')
write('tools/values.py', 'VALUE = 1\\n')

def compute():
    from tools.deep import answer
    return answer()

for text in ('VALUE = 1', 'VALUE = 2'):
    write('tools/values.py', text)
    with dispy.JobCluster(compute, **OPTIONS) as cluster:
        jobs = [cluster.submit_node(node) for node in cluster.wait_for_nodes(2, timeout=20)]
        print([job() for job in jobs], [job.exception for job in jobs])
"""
    assert run(pair, shared_home, program) == '[1, 1] [None, None]\n[2, 2] [None, None]\n'


@pytest.mark.row('Z09')
def test_objects_of_own_classes_are_the_same_on_both_sides(
    pair: Any, shared_home: Path, own_home: Path
) -> None:
    """Of a module that the function reaches, and of one that only an argument has."""
    program = """
write('shapes.py', '''
class Square:
    def __init__(self, side): self.side = side
    def double(self): return Square(2 * self.side)
''')
write('colours.py', '''
class Red:
    level = 7
    def darker(self): return self.level - 1
''')
import shapes, colours

def compute(square, red):
    import shapes
    assert type(square) is shapes.Square
    return square.double(), red.darker(), red

with dispy.JobCluster(compute, **OPTIONS) as cluster:
    job = cluster.submit(shapes.Square(3), colours.Red())
    job.wait()
    print(job.exception)
    square, level, red = job.result
    print(type(square) is shapes.Square, square.side, level, type(red) is colours.Red)
"""
    assert run(pair, shared_home, program) == 'None\nTrue 6 6 True\n'


def test_a_class_that_is_listed_and_imported_is_one_class(
    pair: Any, shared_home: Path, own_home: Path
) -> None:
    program = """
write('lib/__init__.py', '')
write('lib/shapes.py', 'class Shape:\\n    side = 3\\n')
from lib.shapes import Shape

def compute(given):
    import lib.shapes
    made = Shape()
    return isinstance(given, lib.shapes.Shape), isinstance(made, lib.shapes.Shape), made

for depends in ([], [Shape], [Shape()]):
    with dispy.JobCluster(compute, depends=depends, **OPTIONS) as cluster:
        job = cluster.submit(Shape())
        job.wait()
        print(job.exception or (*job.result[:2], type(job.result[2]) is Shape))
"""
    assert run(pair, shared_home, program) == '(True, True, True)\n' * 3


def test_each_node_has_what_its_allocation_gives_it(
    pair: Any, shared_home: Path, own_home: Path
) -> None:
    """`depends` and `setup_args` that `allocate` sets for a node, as programs for dispy do."""
    program = """
write('common.txt', 'common')
for name in ('alpha', 'beta'):
    write(f'{name}/own.txt', f'of {name}')

class Allocate(dispy.NodeAllocate):
    def allocate(self, cluster, ip_addr, name, cpus, avail_info=None, platform=''):
        self.depends = [pathlib.Path('/proc/self/cwd', name, 'own.txt')]
        self.setup_args = (name, cpus)
        return cpus

def setup(name, cpus):
    global told
    told = name, cpus, pathlib.Path('own.txt').read_text(), pathlib.Path('common.txt').read_text()
    return 0

def compute():
    return dispy_node_name, told

OPTIONS['nodes'] = [Allocate(address) for address in OPTIONS['nodes']]
with dispy.JobCluster(compute, setup=setup, depends=['common.txt'], **OPTIONS) as cluster:
    jobs = [cluster.submit_node(node) for node in cluster.wait_for_nodes(2, timeout=20)]
    print(sorted(job() for job in jobs))
"""
    assert run(pair, shared_home, program) == (
        "[('alpha', ('alpha', 1, 'of alpha', 'common')), "
        "('beta', ('beta', 1, 'of beta', 'common'))]\n"
    )


def test_an_allocation_with_a_missing_file_leaves_its_node_unused_and_says_so(
    pair: Any, shared_home: Path, own_home: Path
) -> None:
    program = """
class Allocate(dispy.NodeAllocate):
    def allocate(self, cluster, ip_addr, name, cpus, avail_info=None, platform=''):
        self.depends = ['missing.txt'] if name == 'alpha' else []
        return cpus

def compute():
    return dispy_node_name

OPTIONS['nodes'] = [Allocate(address) for address in OPTIONS['nodes']]
with dispy.JobCluster(compute, **OPTIONS) as cluster:
    print({cluster.submit()() for _ in range(4)})
    print('missing.txt' in cluster.explain())
"""
    assert run(pair, shared_home, program) == "{'beta'}\nTrue\n"


@pytest.mark.row('Z09')
def test_calls_of_executors_and_joblib_have_the_modules_that_they_need(
    pair: Any, shared_home: Path, own_home: Path
) -> None:
    program = """
import joblib
write('lib/__init__.py', '')
write('lib/tools.py', 'def double(n): return 2 * n\\n')
write('lib/models.py', 'from lib import tools\\ndef fit(n): return tools.double(n) + 1\\n')
from lib import tools
from lib.models import fit

def through(n):
    return tools.double(n)

with dispy.Executor(**OPTIONS) as pool:
    print([pool.submit(function, 5).result() for function in (fit, through)])
    print(list(pool.map(through, range(3))), list(pool.map(fit, range(3), chunksize=2)))
with joblib.parallel_config(backend='dispy', **OPTIONS):
    print(joblib.Parallel(n_jobs=-1)(joblib.delayed(f)(5) for f in (fit, through)))
"""
    assert run(pair, shared_home, program) == '[11, 10]\n[0, 2, 4] [1, 3, 5]\n[11, 10]\n'


def test_a_module_that_cannot_be_imported_on_the_node_fails_only_those_who_need_it(
    pair: Any, shared_home: Path, own_home: Path
) -> None:
    """In a job, and in `setup`: the text has the module's own line, and what was missing."""
    program = """
write('picky.py', '''
import builtins
if hasattr(builtins, 'dispy_node_name'):
    import what_no_node_has
VALUE = 5
''')
import picky

def compute(n):
    if n:
        import picky
        return picky.VALUE
    return 'well'

def setup():
    import picky
    return 0

with dispy.JobCluster(compute, depends=[picky], **OPTIONS) as cluster:
    jobs = [cluster.submit(n) for n in (0, 1, 0)]
    print([job() for job in jobs], 'import what_no_node_has' in jobs[1].exception)
with dispy.JobCluster(compute, depends=[picky], setup=setup, loglevel=100, **OPTIONS) as cluster:
    job = cluster.submit(0)
    while 'cannot run this computation' not in cluster.explain():
        job.wait(0.05)
    print("No module named 'what_no_node_has'" in cluster.explain())
    cluster.cancel(job)
"""
    assert run(pair, shared_home, program) == "['well', None, 'well'] True\nTrue\n"
