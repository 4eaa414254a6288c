"""What counts as wrong, on bits that are counted by hand, and what is told of it."""

import pytest
import torch

from lightning_ham.evaluation.bars import missed
from lightning_ham.evaluation.errors import count_errors, wrong_bits
from lightning_ham.evaluation.record import errors_by_lengths
from lightning_ham.evaluation.words import share_in_words
from lightning_ham.tasks import Episodes

# Three episodes of two timesteps of two bits. In the last, nothing is scored.
TARGETS = torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [1.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
SCORED = torch.tensor([[[True, True], [True, False]], [[True, True], [True, True]], [[False, False], [False, False]]])
LOGITS = torch.tensor([[[3.0, -0.1], [0.2, -9.0]], [[-1.0, 0.5], [-2.0, -3.0]], [[-1.0, -1.0], [-1.0, -1.0]]])


def test_a_bit_is_wrong_if_it_is_scored_and_on_the_other_side() -> None:
    wrong = wrong_bits(LOGITS, TARGETS, SCORED)
    assert wrong.nonzero().tolist() == [[1, 0, 1], [1, 1, 0]]


def test_a_logit_of_zero_says_zero() -> None:
    zero, scored = torch.zeros(1, 1, 2), torch.ones(1, 1, 2, dtype=torch.bool)
    assert wrong_bits(zero, torch.tensor([[[0.0, 1.0]]]), scored).tolist() == [[[False, True]]]


def test_sequences_symbols_and_bits_are_counted() -> None:
    nothing = torch.zeros(3, 2)
    counts = count_errors(LOGITS, Episodes(nothing, nothing, TARGETS, SCORED, torch.tensor([2, 2, 2])))
    assert counts.wrong_sequences.tolist() == [False, True, False]
    assert counts.scored_sequences.tolist() == [True, True, False]
    assert counts.wrong.tolist() == [1, 2, 2]
    assert counts.total.tolist() == [2, 4, 7]


def test_a_bar_is_missed_above_it_and_where_nothing_was_measured() -> None:
    results = [
        {"lengths": [1, 32], "sequence_error": 0.01},
        {"lengths": [1, 32], "variant": "grid", "sequence_error": 0.5},
    ]
    errors = errors_by_lengths(results)
    assert errors == {"1-32": 0.01, "1-32 (grid)": 0.5}
    assert missed({"1-32": 0.01}, errors) == {}
    assert missed({"1-32": 0.009, "33-128": 1.0}, errors) == {"1-32": 0.01, "33-128": None}


@pytest.mark.parametrize(("share", "words"), [(None, "an unknown share"), (0.0, "0 %"), (0.00004, "0.004 %")])
def test_shares_in_words(share: float | None, words: str) -> None:
    assert share_in_words(share) == words
