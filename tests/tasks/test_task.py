"""What holds for every task: samples agree with the oracle, and the layout of episodes is as documented."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

from lightning_ham.tasks import Episodes, InstanceError, Task, capacity_for, get_task
from lightning_ham.tasks.add import Add
from lightning_ham.tasks.episode import shifted
from lightning_ham.tasks.merge import Merge
from lightning_ham.tasks.reverse import Reverse
from lightning_ham.tasks.search import Search
from lightning_ham.tasks.sort import Sort

TASKS = [Add(), Merge(), Reverse(), Search(), Sort()]

every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
quickly = settings(max_examples=25, deadline=None)


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def same(left: Episodes, right: Episodes) -> bool:
    return all(map(torch.equal, left, right))


def instances_of(task: Task[Any, Any], episodes: Episodes) -> list[Any]:
    return [task.decode_inputs(*row) for row in zip(episodes.inputs, episodes.occupied, strict=True)]


@st.composite
def samples(draw: st.DrawFn, task: Task[Any, Any]) -> Episodes:
    low = draw(st.integers(1, 40))
    high = draw(st.integers(max(low, task.min_length), 41).filter(lambda high: high > low or low % 2 == 0))
    capacity = draw(st.sampled_from([None, 64, 128]))
    hard_fraction = draw(st.sampled_from([0.0, 0.5, 1.0])) if task.has_hard_cases else 0.0
    generator = seeded(draw(st.integers(0, 2**32)))
    return task.sample(16, (low, high), capacity=capacity, hard_fraction=hard_fraction, generator=generator)


@every_task
@quickly
@given(st.data())
def test_sampled_targets_are_the_oracles_answers(task: Task[Any, Any], data: st.DataObject) -> None:
    episodes = data.draw(samples(task))
    for instance, targets in zip(instances_of(task, episodes), episodes.targets, strict=True):
        task.check(instance)
        assert task.decode(targets) == task.oracle(instance)


@every_task
@quickly
@given(st.data())
def test_encoding_a_decoded_sample_gives_it_back(task: Task[Any, Any], data: st.DataObject) -> None:
    episodes = data.draw(samples(task))
    instances = instances_of(task, episodes)
    lengths = torch.tensor([task.instance_length(instance) for instance in instances])
    # Only the numbers of Add can be written more briefly than they were drawn: without leading zeros.
    whole = lengths == episodes.lengths
    assert whole.any() if isinstance(task, Add) else whole.all()

    kept = [instance for instance, keep in zip(instances, whole, strict=True) if keep]
    encoded = task.encode(kept, capacity=episodes.inputs.shape[1])
    timesteps = encoded.targets.shape[1]
    drawn = Episodes(*(field[whole] for field in episodes))
    assert same(encoded, drawn._replace(targets=drawn.targets[:, :timesteps], scored=drawn.scored[:, :timesteps]))


@every_task
@quickly
@given(st.data())
def test_layout(task: Task[Any, Any], data: st.DataObject) -> None:
    inputs, occupied, targets, scored, lengths = data.draw(samples(task))
    assert (inputs.dtype, occupied.dtype, targets.dtype, scored.dtype, lengths.dtype) == (
        torch.float32,
        torch.bool,
        torch.float32,
        torch.bool,
        torch.int64,
    )
    timesteps = [task.timesteps_for(length) for length in lengths.tolist()]
    assert inputs.shape == (16, occupied.shape[1], task.input_size)
    assert targets.shape == scored.shape == (16, max(timesteps), task.output_size)

    assert occupied.sum(1).tolist() == lengths.tolist()
    hinted = task.hinted(Episodes(inputs, occupied, targets, scored, lengths))
    assert not inputs[~occupied].any()
    assert (inputs[occupied].sum(1) > 0).any()
    assert not targets[~(scored | hinted)].any()
    assert not (scored & hinted).any()
    for row, stop in enumerate(timesteps):
        assert occupied[row, : lengths[row]].all()
        assert not scored[row, stop:].any()
        before_end = stop - task.predicts_end
        assert hinted[row].sum(1).tolist() == [task.num_hints] * before_end + [0] * (len(hinted[row]) - before_end)
        if task.predicts_end:
            assert (scored | hinted)[row, : stop - 1].all()
            assert scored[row, stop - 1].tolist() == [False] * (task.output_size - 1) + [True]
            assert targets[row, :, -1].nonzero().tolist() == [[stop - 1]]


@every_task
@pytest.mark.parametrize("length", [300, 302, 4096])
def test_long_samples(task: Task[Any, Any], length: int) -> None:
    hard_fraction = 0.5 if task.has_hard_cases else 0.0
    episodes = task.sample(4, (length, length), hard_fraction=hard_fraction, generator=seeded(length))
    for instance, targets in zip(instances_of(task, episodes), episodes.targets, strict=True):
        task.check(instance)
        assert task.decode(targets) == task.oracle(instance)


@every_task
def test_shifted_episodes_are_the_same_anywhere(task: Task[Any, Any]) -> None:
    if not task.can_be_shifted:
        pytest.skip("its cells are carried out in their order")
    episodes = task.sample(400, (4, 8), capacity=16, generator=seeded(0))
    elsewhere = shifted(episodes, seeded(1))
    assert instances_of(task, elsewhere) == instances_of(task, episodes)
    assert torch.equal(elsewhere.occupied.sum(1), episodes.lengths)
    assert not elsewhere.inputs[~elsewhere.occupied].any()
    for first, length, row in zip(elsewhere.first_cells, elsewhere.lengths, elsewhere.occupied, strict=True):
        assert row[first : first + length].all()
    assert all(map(torch.equal, elsewhere[2:], episodes[2:]))
    eight = elsewhere.first_cells[elsewhere.lengths == 8]
    assert set(eight.tolist()) == set(range(9))
    assert same(elsewhere, shifted(episodes, seeded(1)))


@every_task
def test_symbol_bits_are_neither_hints_nor_the_end(task: Task[Any, Any]) -> None:
    output = torch.arange(task.output_size).expand(2, 3, -1)
    bits = task.symbol_bits(output)
    assert torch.equal(bits, output[..., : bits.shape[-1]])
    assert bits.shape[-1] + task.num_hints + task.predicts_end == task.output_size


@every_task
def test_a_seed_decides_the_sample(task: Task[Any, Any]) -> None:
    def sample(generator: Generator | None) -> Episodes:
        return task.sample(8, (4, 8), generator=generator)

    before = torch.get_rng_state()
    assert same(sample(seeded(1)), sample(seeded(1)))
    assert not same(sample(seeded(1)), sample(seeded(2)))
    generator = seeded(1)
    assert not same(sample(generator), sample(generator))
    assert torch.equal(torch.get_rng_state(), before)

    with torch.random.fork_rng():
        torch.manual_seed(1)
        first, second = sample(None), sample(None)
        torch.manual_seed(1)
        assert same(sample(None), first)
        assert not same(first, second)


@every_task
def test_lengths_are_uniform_over_the_valid_ones(task: Task[Any, Any]) -> None:
    lengths = task.sample(4_000, (1, 11), generator=seeded(0)).lengths
    values, counts = torch.unique(lengths, return_counts=True)
    assert values.tolist() == [n for n in range(1, 12) if n >= task.min_length and (task.name != "add" or n % 2 == 0)]
    expected = 4_000 / len(values)
    assert ((counts - expected).abs() < 5 * expected**0.5).all()


@every_task
def test_capacity_only_adds_blank_cells(task: Task[Any, Any]) -> None:
    tight = task.sample(8, (4, 12), generator=seeded(0))
    roomy = task.sample(8, (4, 12), capacity=64, generator=seeded(0))
    assert tight.inputs.shape[1] == capacity_for(12)
    assert roomy.inputs.shape[1] == 64
    assert same(roomy._replace(inputs=roomy.inputs[:, :16], occupied=roomy.occupied[:, :16]), tight)


@every_task
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "Expected a batch size of at least 1, but got 0"),
        ({"lengths": (0, 4)}, "Expected lengths LOW-HIGH with 1 <= LOW <= HIGH, but got 0-4"),
        ({"lengths": (5, 4)}, "Expected lengths LOW-HIGH with 1 <= LOW <= HIGH, but got 5-4"),
        ({"capacity": 24}, "Expected a capacity that is a power of two, but got 24"),
        ({"capacity": 0}, "Expected a capacity that is a power of two, but got 0"),
        ({"capacity": 8}, "Expected a capacity of at least 16 for length 12, but got 8"),
        ({"hard_fraction": 1.5}, "Expected a hard fraction from 0 to 1, but got 1.5"),
        ({"hard_fraction": -0.5}, "Expected a hard fraction from 0 to 1, but got -0.5"),
        ({"hard_fraction": float("nan")}, "Expected a hard fraction from 0 to 1, but got nan"),
    ],
)
def test_wrong_arguments(task: Task[Any, Any], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task.sample(**{"batch_size": 2, "lengths": (4, 12), **arguments})


@pytest.mark.parametrize(
    ("name", "lengths", "valid"),
    [
        ("search", (1, 1), "min_length 2, then 3"),
        ("add", (1, 3), "min_length 4, then 6"),
        ("add", (5, 5), "4, then 6"),
    ],
)
def test_no_valid_length(name: str, lengths: tuple[int, int], valid: str) -> None:
    with pytest.raises(
        ValueError, match=rf"valid length of task '{name}'.*{valid} and so on\), but got {lengths[0]}-{lengths[1]}$"
    ):
        get_task(name).sample(2, lengths)


def test_hard_cases_where_there_are_none() -> None:
    with pytest.raises(ValueError, match=r"task 'reverse', as it has no hard cases, but got 0\.1"):
        Reverse().sample(2, (1, 4), hard_fraction=0.1)


def test_encode_rejects() -> None:
    with pytest.raises(ValueError, match="Expected at least one instance, but got none"):
        Reverse().encode([])
    with pytest.raises(ValueError, match="Expected a capacity of at least 4 for length 3, but got 2"):
        Reverse().encode([[1], [1, 2, 3]], capacity=2)
    with pytest.raises(InstanceError, match=r"Expected numbers from 0 to 1023, but got 1024 \(number 2\)"):
        Reverse().encode([[1], [1, 1024]])


def test_encode_takes_the_smallest_capacity_that_fits_all() -> None:
    assert Reverse().encode([[1], [1, 2, 3, 4, 5], [1, 2]]).inputs.shape == (3, 8, 10)


def test_decode_stops_at_the_first_end_flag() -> None:
    task = Reverse()
    outputs = task.encode([[7, 8, 9]]).targets[0]
    assert task.decode(outputs) == [9, 8, 7]
    assert task.decode(outputs.bool()) == [9, 8, 7]
    outputs[1, -1] = 1
    assert task.decode(outputs) == [9]
    outputs[0, -1] = 1
    assert task.decode(outputs) == []


def test_decode_reads_every_timestep_where_no_end_flag_is_set() -> None:
    task = Reverse()
    outputs = task.encode([[7, 8, 9]]).targets[0]
    outputs[:, -1] = 0
    assert task.decode(outputs) == [9, 8, 7, 0]


def test_decode_rejects_what_is_not_bits_of_one_episode() -> None:
    task = Reverse()
    with pytest.raises(ValueError, match=r"Expected outputs of shape \[timesteps, 11\], but got \[4, 10\]"):
        task.decode(torch.zeros(4, 10))
    with pytest.raises(ValueError, match=r"Expected outputs of shape \[timesteps, 11\], but got \[2, 4, 11\]"):
        task.decode(torch.zeros(2, 4, 11))
    with pytest.raises(ValueError, match="round probabilities first"):
        task.decode(torch.full((4, 11), 0.7))


def test_a_task_may_be_silent_before_it_answers() -> None:
    class Late(Reverse):
        silent_timesteps = 2

    task = Late()
    episodes = task.sample(16, (1, 5), generator=seeded(0))
    assert episodes.targets.shape[1] == 2 + 5 + 1
    assert not episodes.scored[:, :2].any()
    assert episodes.scored[:, 2].any(-1).all()
    for instance, targets in zip(instances_of(task, episodes), episodes.targets, strict=True):
        assert task.decode(targets) == list(reversed(instance))
