"""The matrix of deaths has no hole."""

from tests.support.deathmatrix import contradicting, unaccounted


def test_each_cell_is_promised_or_left_out_for_a_reason() -> None:
    assert unaccounted() == []
    assert contradicting() == []
