"""The systems that are measured: a name for each, and the module that knows how to drive it.

A module is imported only when its system is asked for: none needs the libraries of the others.
"""

from importlib import import_module

from benchmarks.systems.base import System

LOCAL = {
    'dispy-worker': 'dispy',
    'dispy-job': 'dispy',
    'shared-worker': 'shared',
    'shared-job': 'shared',
    'pool': 'pools',
    'pool-fresh': 'pools',
    'executor': 'pools',
    'fork': 'forks',
    'joblib': 'joblib',
}
PEERS = {
    'ray': 'ray',
    'dask': 'dask',
    'ipyparallel': 'ipyparallel',
    'parsl': 'parsl',
}
TITLES = {
    'dispy-worker': "dispy-nb, isolation='worker'",
    'dispy-job': "dispy-nb, isolation='job'",
    'shared-worker': "through dispyscheduler, isolation='worker'",
    'shared-job': "through dispyscheduler, isolation='job'",
    'pool': 'multiprocessing.Pool',
    'pool-fresh': 'Pool(maxtasksperchild=1)',
    'executor': 'ProcessPoolExecutor',
    'fork': 'bare fork per job',
    'joblib': 'joblib (loky)',
    'ray': 'ray',
    'dask': 'dask.distributed',
    'ipyparallel': 'ipyparallel',
    'parsl': 'parsl (HTEX)',
}


def load(name: str) -> System:
    """Import what drives a system; this takes as long as importing the system."""
    module = import_module(f'benchmarks.systems.{(LOCAL | PEERS)[name]}')
    system: System = module.SYSTEMS[name]()
    return system
