"""Errors counted by hand and in plain Python, in one process and in two."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_ham.evaluation.metrics import SequenceErrors
from lightning_ham.tasks import Episodes, get_task


def make_episodes(targets: Tensor, scored: Tensor, lengths: list[int]) -> Episodes:
    batch, cells = len(targets), max(lengths)
    return Episodes(
        torch.zeros(batch, cells, 1), torch.ones(batch, cells).bool(), targets, scored, torch.tensor(lengths)
    )


def outputs_for(bits: list[list[list[int]]]) -> Tensor:
    """Logits of these bits, of different sizes."""
    signs = 2 * torch.tensor(bits).float() - 1
    return signs * torch.linspace(0.01, 9, signs.numel()).view_as(signs)


def counted(outputs: Tensor, episodes: Episodes, **options) -> dict[str, float]:
    errors = SequenceErrors(**options)
    errors.update(outputs, episodes)
    return {name: value.item() for name, value in errors.compute().items()}


# Two bits and an end flag. Three episodes, of lengths 2, 1 and 5; what is not scored is a 1 in the targets.
TARGETS = torch.tensor(
    [
        [[1, 0, 0], [1, 1, 0], [1, 1, 1]],
        [[0, 0, 0], [1, 1, 1], [1, 1, 1]],
        [[0, 1, 0], [0, 1, 0], [1, 1, 1]],
    ]
).float()
SCORED = torch.tensor(
    [
        [[1, 1, 1], [1, 1, 1], [0, 0, 1]],
        [[1, 1, 1], [0, 0, 1], [0, 0, 0]],
        [[1, 1, 1], [1, 1, 1], [0, 0, 1]],
    ]
).bool()
EPISODES = make_episodes(TARGETS, SCORED, [2, 1, 5])
RIGHT = TARGETS.int().tolist()


def test_hand_counted_case():
    # The first: right, but for bits that are not scored. The second: one bit. The third: a whole symbol and the end.
    outputs = outputs_for(
        [
            [[1, 0, 0], [1, 1, 0], [0, 0, 1]],
            [[1, 0, 0], [0, 0, 1], [0, 0, 0]],
            [[0, 1, 0], [1, 0, 1], [1, 0, 0]],
        ]
    )
    assert counted(outputs, EPISODES, bucket_edges=(1, 4, 8)) == {
        "sequence_error": pytest.approx(2 / 3),
        "symbol_error": pytest.approx(3 / 8),
        "bit_error": pytest.approx(5 / 18),
        "sequence_error/1-1": 1.0,
        "sequence_error/2-4": 0.0,
        "sequence_error/5-8": 1.0,
    }


def test_all_right():
    assert set(counted(outputs_for(RIGHT), EPISODES).values()) == {0.0}


def test_a_sequence_is_wrong_if_only_its_end_is():
    for place, told in (((0, 2), 0), ((0, 1), 1)):  # no end where it is due, or an end too early
        bits = TARGETS.int()
        bits[(*place, 2)] = told
        errors = counted(outputs_for(bits.tolist()), EPISODES)
        assert errors["sequence_error"] == pytest.approx(1 / 3)
        assert errors["symbol_error"] == pytest.approx(1 / 8)
        assert errors["bit_error"] == pytest.approx(1 / 18)


def test_bits_that_are_not_scored_do_not_count():
    bits = torch.where(SCORED, TARGETS.int(), 1 - TARGETS.int())
    assert set(counted(outputs_for(bits.tolist()), EPISODES).values()) == {0.0}


def test_a_logit_of_zero_is_a_zero():
    episodes = make_episodes(torch.tensor([[[0.0, 0.0, 1.0]]]), torch.ones(1, 1, 3).bool(), [1])
    assert counted(torch.zeros(1, 1, 3), episodes)["bit_error"] == pytest.approx(1 / 3)


def test_buckets_are_closed_above_and_longer_episodes_count_in_the_totals_only():
    lengths = [1, 2, 3, 4, 5, 8, 9, 9]
    wrong = torch.tensor([1, 0, 1, 1, 0, 0, 1, 0])
    targets = torch.zeros(8, 1, 1)
    episodes = make_episodes(targets, torch.ones(8, 1, 1).bool(), lengths)
    assert counted(2.0 * wrong.view(8, 1, 1) - 1, episodes, bucket_edges=(2, 4, 8)) == {
        "sequence_error": 0.5,
        "symbol_error": 0.5,
        "bit_error": 0.5,
        "sequence_error/1-2": 0.5,
        "sequence_error/3-4": 1.0,
        "sequence_error/5-8": 0.0,
    }


def test_default_buckets_are_powers_of_two():
    lengths = [1, 2, 3, 33, 4096]
    episodes = make_episodes(torch.zeros(5, 1, 1), torch.ones(5, 1, 1).bool(), lengths)
    buckets = {name.partition("/")[2] for name in counted(torch.ones(5, 1, 1), episodes)} - {""}
    assert buckets == {"1-2", "3-4", "33-64", "2049-4096"}


def test_an_episode_with_nothing_scored_counts_neither_in_the_totals_nor_in_its_bucket():
    stack = get_task("stack")
    instances = [[("push", 7), ("pop",)], [("push", 7)] * 2, [("push", 7)] * 8, [("push", 7)] * 5 + [("pop",)]]
    episodes = stack.encode(instances)
    wrong = 0.5 - episodes.targets
    assert counted(wrong, episodes, bucket_edges=(2, 4, 8)) == {
        "sequence_error": 1.0,
        "symbol_error": 1.0,
        "bit_error": 1.0,
        "sequence_error/1-2": 1.0,  # of one, not of two
        "sequence_error/5-8": 1.0,
    }
    nothing = stack.encode([[("push", 7)] * 2])
    errors = counted(torch.zeros_like(nothing.targets), nothing)
    assert errors == {"sequence_error": 0.0, "symbol_error": 0.0, "bit_error": 0.0}, "no bucket was seen"


@pytest.mark.parametrize("edges", [(), (4, 2), (2, 2), (0, 2), [-1, 1]])
def test_edges_must_ascend_and_be_positive(edges):
    message = f"Expected argument `bucket_edges` to be ascending and positive, but got {edges}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SequenceErrors(edges)


def random_batches() -> list[tuple[Tensor, Episodes]]:
    """Real episodes, answered with some bits wrong; batches of different sizes and lengths."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for batch_size, lengths in ((40, (1, 4)), (3, (5, 30)), (17, (2, 9)), (1, (40, 40))):
        episodes = get_task("sort").sample(batch_size, lengths, generator=generator)
        flip = torch.rand(episodes.targets.shape, generator=generator) < 0.02
        batches.append((torch.where(flip, 1 - episodes.targets, episodes.targets) - 0.5, episodes))
    return batches


def plain_count(batches: list[tuple[Tensor, Episodes]]) -> dict[str, float]:
    """The errors by the metric's own definition, one bit at a time."""
    wrong, total = [0, 0, 0], [0, 0, 0]
    by_bucket: dict[str, list[bool]] = {}
    for outputs, episodes in batches:
        rows = zip(outputs.tolist(), episodes.targets.tolist(), episodes.scored.tolist(), strict=True)
        for (logits, targets, scored), length in zip(rows, episodes.lengths.tolist(), strict=True):
            symbols = [
                [(logit > 0) != (target == 1) for logit, target, counts in zip(*symbol, strict=True) if counts]
                for symbol in zip(logits, targets, scored, strict=True)
            ]
            symbols = [symbol for symbol in symbols if symbol]
            if not symbols:
                continue
            of_sequence = any(map(any, symbols))
            wrong = [
                wrong[0] + of_sequence,
                wrong[1] + sum(map(any, symbols)),
                wrong[2] + sum(map(sum, symbols)),
            ]
            total = [total[0] + 1, total[1] + len(symbols), total[2] + sum(map(len, symbols))]
            high = max(2, 1 << (length - 1).bit_length())
            low = 1 if high == 2 else high // 2 + 1
            by_bucket.setdefault(f"sequence_error/{low}-{high}", []).append(of_sequence)
    names = ("sequence_error", "symbol_error", "bit_error")
    errors = {name: w / t for name, w, t in zip(names, wrong, total, strict=True)}
    return errors | {name: sum(wrong) / len(wrong) for name, wrong in by_bucket.items()}


def computed(errors: SequenceErrors) -> dict[str, float]:
    return {name: value.item() for name, value in errors.compute().items()}


def test_batches_add_up_to_a_plain_count_and_reset_starts_anew():
    batches = random_batches()
    errors = SequenceErrors()
    for part in (batches, batches[2:]):
        for outputs, episodes in part:
            errors.update(outputs, episodes)
        assert computed(errors) == pytest.approx(plain_count(part))
        errors.reset()


def test_forward_returns_the_errors_of_its_batch_and_counts_them():
    batches = random_batches()
    errors = SequenceErrors()
    for batch in batches:
        of_batch = {name: value.item() for name, value in errors(*batch).items()}
        assert of_batch == pytest.approx(plain_count([batch]))
    assert computed(errors) == pytest.approx(plain_count(batches))


def test_two_processes_count_as_one(tmp_path: Path):
    # This file is a program, too: a fresh interpreter forks the two, which meet on the loopback device.
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, __file__, str(tmp_path)]
    program = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert program.returncode == 0, program.stderr
    expected = pytest.approx(plain_count(random_batches()))
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)] == [expected] * 2


def count_on_one_rank(rank: int, folder: str) -> None:
    """Count a part of the batches, uneven and of other lengths on either rank; write down the errors of both."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    errors = SequenceErrors()
    for batch in random_batches()[rank * 3 : 3 + rank]:
        errors.update(*batch)
    (Path(folder) / f"{rank}.json").write_text(json.dumps(computed(errors)))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.multiprocessing.start_processes(count_on_one_rank, (sys.argv[1],), nprocs=2, start_method="fork")
