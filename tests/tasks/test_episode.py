"""Capacities and bits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_ham.tasks import capacity_for
from lightning_ham.tasks.episode import from_bits, to_bits


@given(st.integers(1, 10_000))
def test_capacity_is_the_smallest_power_of_two_that_fits(length: int) -> None:
    capacity = capacity_for(length)
    assert capacity in {2**k for k in range(20)}
    assert capacity // 2 < length <= capacity


def test_capacity_for_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="Expected a length of at least 1, but got 0"):
        capacity_for(0)


@given(st.lists(st.integers(0, 1023), min_size=1))
def test_bits_are_those_of_pythons_binary_format(integers: list[int]) -> None:
    bits = to_bits(torch.tensor(integers), 10)
    assert ["".join(str(int(bit)) for bit in row) for row in bits] == [f"{integer:010b}" for integer in integers]
    assert from_bits(bits).tolist() == integers
