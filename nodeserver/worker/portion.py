"""What of its machine a job is to use, as libraries are told of it: threads, and gpus."""

import os

from nodeserver.io.gpuvariables import show

# libraries that start a thread per cpu would fight over the cpus with the other jobs
_THREADS = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS', 'NUMEXPR_NUM_THREADS')
_ours: set[str] = set()  # of these, those that the node's own environment does not have


def be_modest() -> None:
    """Use one thread, in the zygote, unless the node's environment says otherwise."""
    _ours.update(name for name in _THREADS if name not in os.environ)
    use_cpus(1)


def use_cpus(count: int) -> None:
    """Use so many threads, in a template: once a library is loaded it does not look again."""
    for name in _ours:
        os.environ[name] = str(count)


def use_gpus(ids: str) -> None:
    """Use these gpus and no other, in a worker: no library has opened one before."""
    show(os.environ, ids)
