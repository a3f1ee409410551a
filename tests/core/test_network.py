"""The in-memory network keeps what links promise, and repeats itself by its seed."""

import pytest

from tests.support.clock import Clock
from tests.support.network import PERFECT, Faults, Network

ROUGH = Faults(resend_chance=0.3, duplicate_chance=0.2)


def listener(network: Network, name: str = 'b') -> list[tuple[float, object]]:
    heard: list[tuple[float, object]] = []
    network.attach(name, lambda source, message: heard.append((network.clock.now, message)))
    return heard


def history(seed: int) -> list[tuple[float, object]]:
    network = Network(seed, faults=ROUGH)
    heard = listener(network)
    for number in range(50):
        network.send('a', 'b', number, lane=str(number % 2))
    while network.step():
        pass
    return heard


def first_arrivals(heard: list[tuple[float, object]]) -> list[object]:
    return list(dict.fromkeys(message for _, message in heard))


def test_the_same_seed_gives_the_same_history():
    assert history(7) == history(7)
    assert history(7) != history(8)


@pytest.mark.parametrize('seed', range(10))
def test_each_lane_keeps_its_order_and_loses_nothing(seed):
    arrived = first_arrivals(history(seed))
    assert [number for number in arrived if number % 2] == list(range(1, 50, 2))
    assert [number for number in arrived if not number % 2] == list(range(0, 50, 2))


def test_lanes_overtake_each_other():
    assert any(first_arrivals(history(seed)) != list(range(50)) for seed in range(3))


def test_duplicates_arrive_after_their_first():
    heard = [message for _, message in history(1)]
    assert len(heard) > 50
    assert set(heard) == set(range(50))


def test_cut_holds_messages_back_and_heal_lets_them_go_on_in_order():
    network = Network(1)
    heard = listener(network)
    network.attach('a', lambda source, message: None)
    network.send('a', 'b', 1)
    network.cut('b')
    network.send('a', 'b', 2)
    assert not network.step()
    assert heard == []
    network.heal()
    network.run_until(lambda: len(heard) == 2)
    assert [message for _, message in heard] == [1, 2]


def test_a_cut_between_two_leaves_the_others_connected():
    network = Network(1, faults=PERFECT)
    heard_b, heard_c = listener(network, 'b'), listener(network, 'c')
    network.cut('a', ['b'])
    network.send('a', 'b', 1)
    network.send('a', 'c', 2)
    network.step()
    assert (heard_b, heard_c) == ([], [(0.0, 2)])


def test_a_detached_host_hears_nothing():
    network = Network(1, faults=PERFECT)
    heard = listener(network)
    network.send('a', 'b', 1)
    network.detach('b')
    assert not network.step()
    assert heard == []


def test_lost_messages_never_arrive():
    network = Network(1, faults=Faults(lose_chance=1.0))
    listener(network)
    network.send('a', 'b', 1)
    assert network.idle


def test_deadlines_and_messages_come_in_order_of_time():
    network = Network(1, faults=Faults(shortest=2.0, longest=2.0, resend_chance=0.0))
    moments: list[tuple[str, float]] = []
    deadlines = [1.0, 3.0]

    def wake() -> None:
        moments.append(('deadline', network.clock.now))
        deadlines.pop(0)

    network.attach(
        'b',
        lambda source, message: moments.append((message, network.clock.now)),
        deadline=lambda: deadlines[0] if deadlines else None,
        wake=wake,
    )
    network.send('a', 'b', 'message')
    network.run(10.0)
    assert moments == [('deadline', 1.0), ('message', 2.0), ('deadline', 3.0)]
    assert network.clock.now == 10.0


def test_an_end_that_is_not_reached_tells_seed_and_story():
    network = Network(42)
    listener(network)
    network.send('a', 'b', 'hello')
    with pytest.raises(AssertionError, match=r'(?s)seed 42.*a -> b hello'):
        network.run_until(lambda: False)


def test_clock_never_runs_backwards():
    clock = Clock(5.0)
    assert clock.advance(2.5) == clock() == 7.5
    with pytest.raises(ValueError, match='go back'):
        clock.advance(-1)
