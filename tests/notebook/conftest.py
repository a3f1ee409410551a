"""What kernels of all tests here have in common."""

from collections.abc import Iterator

import pytest
from jupyter_core.utils import ensure_event_loop


@pytest.fixture(scope='session')
def loop_of_the_jupyter_client() -> Iterator[None]:
    """Make the loop that jupyter_client keeps for its thread: it belongs to no single test."""
    loop = ensure_event_loop()
    yield
    loop.close()
