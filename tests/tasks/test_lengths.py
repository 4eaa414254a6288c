"""Ranges of lengths: every way to type one, and its printed form."""

import re

import numpy as np
import pytest

from lightning_ham.tasks import Lengths


@pytest.mark.parametrize("typed", ["1-32", "1:32", " 1-32 ", (1, 32), [1, 32], Lengths(1, 32)])
def test_a_range_may_be_typed_in_several_ways_and_is_printed_in_one(typed):
    lengths = Lengths.of(typed)
    assert lengths == (1, 32)
    assert str(lengths) == f"{lengths}" == "1-32"


def test_integers_of_numpy_become_pythons_own():
    assert [type(end) for end in Lengths.of((np.int64(1), np.int32(32)))] == [int, int]


WRONG = ["", "32", "1-", "-32", "1-2-3", "1--2", "a-b", "1,32", "1" * 99, 92, 1.5, None]
WRONG += [(1,), (1, 2, 3), (1, 2.0), (True, 2)]


@pytest.mark.parametrize("typed", WRONG)
def test_what_is_none_is_said_in_one_sentence(typed):
    with pytest.raises(ValueError, match=re.escape("Expected lengths LOW-HIGH, such as 1-32, but got ")) as raised:
        Lengths.of(typed)
    assert len(str(raised.value)) < 120
