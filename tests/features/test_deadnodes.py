"""When a node is taken for dead, as far as users choose it."""

import pytest

import dispy_nb as dispy
from tests.support.programs import free_port


def double(number: int) -> int:
    return 2 * number


@pytest.mark.row('I14')
@pytest.mark.parametrize('seconds', [1, 1.0, 2.5, 600])
def test_a_pulse_interval_is_any_number_from_1_to_600(own_home: object, seconds: float) -> None:
    place = {'nodes': ['127.0.0.1'], 'ip_addr': '127.0.0.1', 'port': 0, 'node_port': free_port()}
    with dispy.JobCluster(double, pulse_interval=seconds, **place) as cluster:
        assert cluster.name == 'double'


@pytest.mark.row('I14')
@pytest.mark.parametrize('seconds', [0, 0.99, -5, 600.1, 601, float('nan'), '5', True])
def test_any_other_pulse_interval_is_refused_in_words(seconds: object) -> None:
    with pytest.raises((ValueError, TypeError), match='pulse_interval') as caught:
        dispy.JobCluster(double, pulse_interval=seconds)  # type: ignore[arg-type]
    assert repr(seconds) in str(caught.value)
    assert 'from 1 to 600 seconds' in str(caught.value)
