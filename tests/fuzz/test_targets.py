"""A few thousand inputs for each target of the long fuzzing, so that none of them rots."""

import pytest

from tests.fuzz.engine import fuzz, little_memory
from tests.fuzz.targets import targets


@pytest.mark.parametrize('name', targets())
def test_a_reader_answers_with_a_value_or_a_refusal_and_takes_little_memory(name: str) -> None:
    with little_memory():
        fuzz(targets()[name], 4000, seed=7)
