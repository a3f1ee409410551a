"""How processes are told which gpus are theirs."""

from collections.abc import MutableMapping

CUDA = 'CUDA_VISIBLE_DEVICES'
HIP = 'HIP_VISIBLE_DEVICES'


def show(environment: MutableMapping[str, str], ids: str) -> None:
    """Have programs with this environment see these gpus only; '' means none.

    ROCR_VISIBLE_DEVICES is left as it is: it is applied first, and the numbers in the other one
    count among what it leaves.  HIP takes an empty list for none given, and this number for none.
    """
    environment[CUDA] = ids
    environment[HIP] = ids or '-1'
