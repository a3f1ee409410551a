"""User objects to bytes and back, within one process and from another one's `__main__`."""

import functools
import math
import pickle
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import cloudpickle
import numpy
import pytest

from nodeserver.core.errors import PicklingFailed
from nodeserver.payload import (
    dump_call,
    dump_chunk,
    dump_exception,
    dump_function,
    dump_package,
    dump_result,
    load_call,
    load_exception,
    load_function,
    load_package,
    load_result,
)
from nodeserver.usercode import modules_by_value

lock = threading.Lock()
factor = 3


class Holder:
    def __init__(self, content: object) -> None:
        self.content = content

    def times(self, x: int) -> int:
        return x * factor

    def __call__(self, x: int) -> int:
        return x + factor


def triple(x: int) -> int:
    return x * factor


def uses_lock() -> None:
    with lock:
        pass


def in_another_process(program: str, data: bytes) -> str:
    """Run a program that finds the bytes on its standard input and this module nowhere."""
    prelude = (
        'import sys, types\n'
        'from nodeserver.payload import *\n'
        'sys.modules["__main__"] = types.ModuleType("__main__")\n'
        'data = sys.stdin.buffer.read()\n'
    )
    done = subprocess.run(
        [sys.executable, '-P', '-c', prelude + program],
        input=data,
        capture_output=True,
        check=False,
        timeout=30,
        env={'PYTHONPATH': str(Path(__file__).parent.parent.parent)},
        cwd='/',
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def main_namespace(source: str) -> dict[str, Any]:
    """Run source text as a notebook's cell, and answer its `__main__`."""
    namespace: dict[str, Any] = {'__name__': '__main__'}
    exec(compile(source, '<cell>', 'exec'), namespace)
    return namespace


# calls and results


def test_plain_arguments_are_pickled_plainly() -> None:
    data = dump_call((1, 'two'), {'three': [3.0]})
    assert data == pickle.dumps(((1, 'two'), {'three': [3.0]}), 5)
    assert load_call(data) == ((1, 'two'), {'three': [3.0]})


def test_lambda_as_an_argument_travels() -> None:
    (function,), _ = load_call(dump_call((lambda x: x + 1,), {}))
    assert function(1) == 2


def test_class_of_main_travels_by_definition() -> None:
    cls = main_namespace('class Point:\n    def area(self): return 7\n')['Point']
    module = types.ModuleType('__main__')
    vars(module).update(Point=cls)
    before, sys.modules['__main__'] = sys.modules['__main__'], module
    try:
        data = dump_call((cls(),), {})
    finally:
        sys.modules['__main__'] = before
    assert in_another_process('print(load_call(data)[0][0].area())', data) == '7'


def test_class_of_a_module_sent_by_value_travels_by_definition() -> None:
    data = dump_call((Holder(1),), {}, by_value=[__name__])
    assert in_another_process('print(load_call(data)[0][0].content)', data) == '1'
    assert __name__ not in cloudpickle.list_registry_pickle_by_value()


@pytest.mark.parametrize(
    ('args', 'kwargs', 'text'),
    [
        ((1, lock), {}, 'argument 2 of type _thread.lock'),
        ((), {'lock': lock}, "argument 'lock' of type _thread.lock"),
        (([1, {'deep': lock}],), {}, "argument 1[1]['deep'] of type _thread.lock"),
        ((Holder(lock),), {}, 'argument 1.content of type _thread.lock'),
        ((Holder(lock).times,), {}, 'argument 1: its object.content of type _thread.lock'),
        ((functools.partial(triple, lock),), {}, 'argument 1: bound argument [0]'),
    ],
)
def test_pickling_failure_names_the_argument_and_the_place(
    args: tuple[Any, ...], kwargs: dict[str, Any], text: str
) -> None:
    with pytest.raises(PicklingFailed) as caught:
        dump_call(args, kwargs)
    assert text in str(caught.value)
    assert "cannot pickle '_thread.lock' object" in str(caught.value)


def test_result_that_cannot_be_pickled_is_named() -> None:
    with pytest.raises(PicklingFailed, match=r"result\['x'\] of type generator"):
        dump_result({'x': (n for n in ())})


def test_result_of_the_clients_class_is_of_that_very_class_and_leaves_it_alone() -> None:
    namespace = main_namespace('class Point:\n    def area(self): return 7\n')
    cls = namespace['Point']
    method = cls.area
    package = dump_package(lambda: cls())
    program = (
        'made = load_package(data).computation()\n'
        'sys.stdout.buffer.write(dump_result([made, type(made)]).hex().encode())\n'
    )
    made, kind = load_result(bytes.fromhex(in_another_process(program, package)))
    assert type(made) is kind is cls
    assert cls.area is method


def test_result_of_a_class_that_the_client_does_not_know_loads_by_definition() -> None:
    program = (
        'exec("class Point:\\n    def area(self): return 7\\n", vars(sys.modules["__main__"]))\n'
        'point = sys.modules["__main__"].Point()\n'
        'dump_result(point)\n'
        'sys.stdout.buffer.write(dump_result(point).hex().encode())\n'
    )
    point = load_result(bytes.fromhex(in_another_process(program, b'')))
    assert point.area() == 7


# packages


def closure() -> Any:
    added = 10

    def inner(x: int) -> int:
        return x + added

    return inner


@pytest.mark.parametrize(
    ('computation', 'answer'),
    [
        (triple, 15),
        (lambda x: x - 1, 4),
        (closure(), 15),
        (functools.partial(pow, 2), 32),
        (functools.partial(triple), 15),
        (Holder(0).times, 15),
        (Holder(0), 8),
        (math.sqrt, 2.23606797749979),
    ],
)
def test_computation_of_any_kind_travels(computation: Any, answer: float) -> None:
    data = dump_package(computation)
    result = in_another_process('print(load_package(data).computation(5))', data)
    assert float(result) == answer
    assert __name__ not in cloudpickle.list_registry_pickle_by_value()


def test_function_of_a_script_on_standard_input_travels() -> None:
    program = (
        'import sys\nfrom nodeserver.payload import *\n'
        'base = 100\n'
        'def work(x):\n    return base + x\n'
        'sys.stdout.buffer.write(dump_package(work).hex().encode())\n'
    )
    done = subprocess.run(
        [sys.executable, '-'],
        input=program.encode(),
        capture_output=True,
        check=True,
        timeout=30,
        env={'PYTHONPATH': str(Path(__file__).parent.parent.parent)},
    )
    data = bytes.fromhex(done.stdout.decode())
    assert in_another_process('print(load_package(data).computation(1))', data) == '101'


def test_library_functions_travel_by_reference() -> None:
    assert list(modules_by_value(triple)) == [__name__]
    for part in (math.sqrt, pickle.dumps, pytest.raises, dump_call, abs, Path('x').exists):
        assert list(modules_by_value(part)) == []


def test_functions_of_main_share_the_globals_of_the_templates_main() -> None:
    namespace = main_namespace(
        'def setup():\n    global data\n    data = 5\n    return 0\n'
        'def work():\n    return data\n'
        'def helper():\n    return data + 1\n'
    )
    data = dump_package(namespace['work'], setup=namespace['setup'], depends=[namespace['helper']])
    program = (
        'package = load_package(data)\n'
        'package.setup()\n'
        'main = sys.modules["__main__"]\n'
        'print(package.computation(), package.depends[0](), main.data)\n'
        'main.data = 8\n'
        'print(package.computation())\n'
    )
    assert in_another_process(program, data) == '5 6 5\n8'


@pytest.mark.parametrize(
    ('computation', 'text'),
    [
        (uses_lock, "computation: global variable 'lock' of uses_lock() of type _thread.lock"),
        ((lambda held: lambda: held)(lock), "computation: variable 'held' that"),
        (functools.partial(triple, lock), 'computation: bound argument [0] of type _thread.lock'),
        (Holder(lock), 'computation.content of type _thread.lock'),
    ],
)
def test_package_failure_names_the_variable(computation: Any, text: str) -> None:
    with pytest.raises(PicklingFailed) as caught:
        dump_package(computation)
    assert text in str(caught.value)


def test_failure_in_setup_is_told_from_one_in_the_computation() -> None:
    with pytest.raises(PicklingFailed, match="setup: global variable 'lock'"):
        dump_package(triple, setup=uses_lock)


def test_unknown_namespace_is_refused() -> None:
    class Forged(pickle.Pickler):
        def persistent_id(self, obj: object) -> str | None:
            return 'os' if obj == [] else None

    import io

    buffer = io.BytesIO()
    Forged(buffer, 5).dump((([], None, None, ()), {}))
    with pytest.raises(pickle.UnpicklingError, match='os'):
        load_package(buffer.getvalue())


def test_function_that_was_pickled_before_leaves_its_arguments_plain() -> None:
    by_value = {__name__}
    function = dump_function(triple, by_value)
    assert __name__.encode() in function
    assert load_function(function)(4) == 12
    data = dump_call((4,), {'a': 5}, by_value, function=function)
    assert data == pickle.dumps(((function, 4), {'a': 5}), 5)
    with_own = dump_call((Holder(1),), {}, by_value, function=function)
    assert len(with_own) > len(function) + 500  # the class goes along


def test_chunk_is_told_from_a_single_call() -> None:
    columns = [[1, 2], ['a', 'b']]
    assert load_call(dump_chunk(columns)) == (((), columns, False), None)
    assert load_call(dump_chunk(columns, function=b'f', stop=True)) == (
        ((b'f',), columns, True),
        None,
    )
    assert load_call(dump_call((1,), {})) == ((1,), {})
    with pytest.raises(PicklingFailed, match=r'argument 2 of call 11 of type _thread\.lock'):
        dump_chunk([[1, 2], ['a', lock]], first=10)


class OddError(Exception):
    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)


def test_exception_travels_if_it_can() -> None:
    found = load_exception(dump_exception(KeyError('here')))
    assert (type(found), found.args) == (KeyError, ('here',))
    assert load_exception(b'') is None
    assert load_exception(dump_exception(OddError('that', 3))) is None  # cannot be made
    assert dump_exception(ValueError(lock)) == b''


def test_exception_with_large_content_travels_too() -> None:
    array = numpy.arange(50_000)
    found = load_exception(dump_exception(ValueError('x' * 50_000, array)))
    assert isinstance(found, ValueError)
    assert found.args[0] == 'x' * 50_000
    assert numpy.array_equal(found.args[1], array)
