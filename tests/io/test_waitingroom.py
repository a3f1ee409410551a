"""Connections that have not shown who they are: those that are too many go, and not the others."""

import asyncio

import pytest

from nodeserver.io.waitingroom import WaitingRoom


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def _who_stays(most: int, most_of_a_network: int, addresses: list[str]) -> list[int]:
    """Let one task after the other wait; the numbers of those that still do."""

    async def body() -> list[int]:
        room = WaitingRoom(most, most_of_a_network)
        tasks = []
        for address in addresses:
            tasks.append(asyncio.create_task(_for_ever()))
            room.enter(tasks[-1], address)
        await asyncio.sleep(0)
        left = [number for number, task in enumerate(tasks) if not task.done()]
        assert len(room) == len(left)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not len(room)
        assert not room._of_network
        return left

    return asyncio.run(body())


@pytest.mark.parametrize(
    ('addresses', 'stay'),
    [
        (['10.0.0.1', '10.0.0.1', '10.0.0.1'], [1, 2]),
        (['10.0.0.1', '10.0.0.1', '10.0.0.2'], [0, 1, 2]),
        # one machine has all addresses of a /64
        (['2001:db8::1', '2001:db8::2', '2001:db8::3', '2001:db8:1::1'], [1, 2, 3]),
        (['fe80::1%eth0', 'fe80::2%eth0', 'fe80::3%eth0'], [1, 2]),
        # of too many in all, it is the network with the most that gives one
        (['10.0.0.3', '10.0.0.1', '10.0.0.1', '10.0.0.2', '10.0.0.4'], [0, 2, 3, 4]),
    ],
)
def test_of_too_many_the_oldest_of_the_network_with_the_most_goes(
    addresses: list[str], stay: list[int]
) -> None:
    assert _who_stays(4, 2, addresses) == stay


def test_who_has_shown_who_it_is_need_not_go() -> None:
    async def body() -> bool:
        room = WaitingRoom(1, 1)
        first, second = (asyncio.create_task(_for_ever()) for _ in range(2))
        room.enter(first, '10.0.0.1')
        room.leave(first)
        room.enter(second, '10.0.0.1')
        await asyncio.sleep(0)
        is_kept = not first.done()
        for task in (first, second):
            task.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        return is_kept

    assert asyncio.run(body())
