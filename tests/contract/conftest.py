"""A loop for each test of a link."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.contract.ends import Made


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Make a loop, and see that nothing in it failed unseen."""
    loop = asyncio.new_event_loop()
    failures: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: failures.append(context))
    yield loop
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert failures == []


@pytest.fixture
def made(loop: asyncio.AbstractEventLoop) -> Iterator[Made]:
    """Make ends that are closed after the test."""
    made = Made(loop)
    yield made
    made.close()
