"""joblib and scikit-learn on the nodes, by `joblib.parallel_config(backend='dispy')`."""

import multiprocessing
import os
from pathlib import Path
from typing import Any

import joblib
import pytest

import dispy_nb as dispy
from dispy_nb import closing
from nodeserver.core.errors import RemoteTraceback
from tests.features.conftest import MakeCluster, Pair
from tests.support.programs import client_program, eventually, free_port

LIMIT = 15.0


def square(value):
    return value * value


def process(value):
    import os

    return os.getpid()


def picky(value):
    if value == 7:
        raise KeyError(value)
    return value


def nested(value):
    import joblib

    backend = type(joblib.parallel.get_active_backend()[0]).__name__
    return backend, joblib.Parallel(n_jobs=2)(joblib.delayed(square)(n) for n in range(value))


def mark_and_stay(value, directory):
    import pathlib
    import time

    if value == 0:
        raise ValueError('the first one')
    pathlib.Path(directory, str(value)).touch()
    time.sleep(60)


@pytest.fixture
def options(pair: Pair, make_cluster: MakeCluster) -> dict[str, Any]:
    """Options that lead to the pair of nodes, whose key this process has by `make_cluster`."""
    nodes = list(pair.addresses)
    return {'nodes': nodes, 'ip_addr': '127.0.0.1', 'port': 0, 'node_port': pair.port}


@pytest.mark.row('Z04')
def test_calls_run_on_the_nodes(options: dict[str, Any], pair: Pair) -> None:
    with joblib.parallel_config(backend='dispy', **options):
        assert joblib.effective_n_jobs(-1) == 2
        pids = set(joblib.Parallel()(joblib.delayed(process)(n) for n in range(30)))
        assert os.getpid() not in pids
        results = joblib.Parallel(n_jobs=-1)(joblib.delayed(square)(n) for n in range(2000))
        assert results == [n * n for n in range(2000)]
        (cluster,) = closing._kept.values()  # one for both
        assert cluster.snapshot().submitted < 500  # in batches
    eventually(lambda: not closing._kept, LIMIT)  # with the block the nodes are free again


@pytest.mark.row('Z04')
def test_the_backend_can_be_named_in_the_call(options: dict[str, Any]) -> None:
    executor = dispy.Executor(**options)
    with executor, joblib.parallel_config(backend='dispy', executor=executor):
        with joblib.Parallel(n_jobs=3) as parallel:
            for _ in range(3):
                assert parallel(joblib.delayed(square)(n) for n in range(5)) == [0, 1, 4, 9, 16]
        lazily = joblib.Parallel(return_as='generator')(joblib.delayed(square)(n) for n in range(5))
        assert list(lazily) == [0, 1, 4, 9, 16]
        assert executor.submit(square, 3).result(LIMIT) == 9  # it was left open
    with pytest.raises(dispy.UsageError, match='executor'):
        joblib.parallel_config(backend='dispy', executor=executor, nodes=['*'])


@pytest.mark.row('Z04')
def test_an_option_that_there_is_not_is_named_at_once() -> None:
    words = r"Executor\(\) got an unexpected keyword argument 'nods'"
    with pytest.raises(TypeError, match=words):
        joblib.parallel_config(backend='dispy', nods=['*'])
    with pytest.raises(dispy.UsageError, match='initializer: an executor has none'):
        joblib.parallel_config(backend='dispy', initializer=square)


@pytest.mark.row('Z04')
def test_an_exception_is_raised_here_and_the_rest_is_taken_back(
    options: dict[str, Any], own_home: Path
) -> None:
    with joblib.parallel_config(backend='dispy', **options):
        with pytest.raises(KeyError) as caught:
            joblib.Parallel()(joblib.delayed(picky)(n) for n in range(20))
        assert caught.value.args == (7,)
        assert isinstance(caught.value.__cause__, RemoteTraceback)
    # another executor: after short calls, the second one could be put behind the first
    with joblib.parallel_config(backend='dispy', **options):
        with pytest.raises(ValueError, match='the first one'):
            calls = (joblib.delayed(mark_and_stay)(n, own_home) for n in (1, 0, 2, 3, 4))
            joblib.Parallel(batch_size=1)(calls)
        # 60 s were not waited for, and the cpus are free
        assert joblib.Parallel()(joblib.delayed(square)(n) for n in range(4)) == [0, 1, 4, 9]
        with pytest.raises(multiprocessing.TimeoutError):  # which joblib raises
            stay = joblib.delayed(mark_and_stay)
            joblib.Parallel(timeout=0.3)(stay(n, own_home) for n in (5, 6))
        assert joblib.Parallel()(joblib.delayed(square)(n) for n in range(4)) == [0, 1, 4, 9]


@pytest.mark.row('Z04')
def test_calls_within_calls_run_in_threads_of_the_job(options: dict[str, Any]) -> None:
    with joblib.parallel_config(backend='dispy', **options):
        answers = joblib.Parallel()(joblib.delayed(nested)(n) for n in range(4))
    assert answers == [('ThreadingBackend', [k * k for k in range(n)]) for n in range(4)]


@pytest.mark.row('Z04')
@pytest.mark.slow
def test_a_grid_search_finds_the_same_numbers(options: dict[str, Any]) -> None:
    from sklearn.datasets import load_iris
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    features, classes = load_iris(return_X_y=True)
    grid = {'C': [0.1, 1, 10], 'gamma': [0.01, 0.1]}
    alone = GridSearchCV(SVC(), grid).fit(features, classes)
    with joblib.parallel_config(backend='dispy', **options):
        ours = GridSearchCV(SVC(), grid, n_jobs=-1).fit(features, classes)
        (cluster,) = closing._kept.values()
        assert cluster.snapshot().finished > 0
    assert ours.best_params_ == alone.best_params_
    for score in ('mean_test_score', 'std_test_score', 'rank_test_score'):
        assert list(ours.cv_results_[score]) == list(alone.cv_results_[score])
    assert ours.predict(features).tolist() == alone.predict(features).tolist()


@pytest.mark.row('Z04')
def test_without_nodes_it_does_not_wait_for_ever() -> None:
    here = {'nodes': ['127.0.0.1'], 'ip_addr': '127.0.0.1', 'port': 0, 'node_port': free_port()}
    with (
        pytest.raises(dispy.NodesMissing, match=r'looked for nodes at: 127\.0\.0\.1'),
        joblib.parallel_config(backend='dispy', wait_for_nodes_timeout=0.2, **here),
    ):
        joblib.Parallel(n_jobs=-1)(joblib.delayed(square)(n) for n in range(3))
    eventually(lambda: not closing._kept, LIMIT)


@pytest.mark.slow
@pytest.mark.row('Z04')
@pytest.mark.parametrize(
    'imports',
    [
        'import dispy_nb as dispy; assert "joblib" not in sys.modules; import joblib',
        'import joblib, dispy_nb as dispy',
        'import dispy_nb as dispy, joblib; import joblib.parallel as p; '
        'p.BACKENDS.pop("dispy"); dispy.register_joblib()',
    ],
)
def test_importing_both_is_enough_in_either_order(imports: str) -> None:
    source = f"""
import sys
{imports}
def triple(n):
    return 3 * n
with dispy.LocalNodes(1, cpus=2) as local:
    with joblib.parallel_config(backend='dispy', nodes=local.nodes, ip_addr='127.0.0.1'):
        print(joblib.Parallel()(joblib.delayed(triple)(n) for n in range(5)))
print(sys.modules['joblib.parallel'].__spec__.loader is joblib.parallel.__loader__,
      [finder for finder in sys.meta_path if type(finder).__module__.startswith('dispy')])
"""
    assert client_program(source).stdout == '[0, 3, 6, 9, 12]\nTrue []\n'
