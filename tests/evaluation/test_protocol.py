"""The evaluation counts what the paper's protocol counts: shown on a model whose errors are planted."""

import json

import pytest
import torch

from lightning_ham.controllers import Rollout
from lightning_ham.evaluation import evaluate, table, wilson_interval
from lightning_ham.evaluation.protocol import CELLS_PER_DRAW
from lightning_ham.memory import HierarchicalAttentiveMemory
from lightning_ham.models import TaskModel


class Planted(TaskModel):
    """Answers as the oracle does but for planted errors, and remembers what it was asked.

    Args:
        task: Name of the task.
        plant: Called with the number of the episode among all, its targets and what is scored; flips bits of the
            targets in place.
    """

    def __init__(self, task, plant=lambda number, bits, scored: None):
        super().__init__(task)
        self.plant = plant
        self.asked = []

    def forward(self, episodes, attention="argmax", generator=None):
        assert attention == "argmax"
        assert generator is None
        assert not self.training
        assert torch.is_inference_mode_enabled()
        bits = episodes.targets.clone()
        first = sum(len(batch.lengths) for batch in self.asked)
        for row in range(len(bits)):
            self.plant(first + row, bits[row], episodes.scored[row])
        self.asked.append(episodes)
        nothing = torch.zeros(len(bits), 0)
        return Rollout(2 * bits - 1, nothing, nothing, nothing, nothing, nothing)

    @property
    def lengths_asked(self):
        return torch.cat([batch.lengths for batch in self.asked]).tolist()


def flip(bits, places):
    for place in places:
        bits[*place] = 1 - bits[*place]


def result_of(model, lengths=(1, 32), episodes=100, **options):
    """On the task's own distribution."""
    return evaluate(model, [lengths], episodes, seed=0, **options)["results"][0]


@pytest.mark.parametrize("task", ["add", "merge", "reverse", "search", "sort"])
def test_an_oracle_is_never_wrong(task):
    result = result_of(Planted(task))
    assert result["episodes"] == 100
    assert result["wrong_sequences"] == 0
    assert result["sequence_error"] == result["symbol_error"] == result["bit_error"] == 0
    assert result["interval"][0] == 0 < result["interval"][1]


def test_every_range_is_measured_on_the_variants_of_the_task_too():
    model = Planted("merge")
    results = evaluate(model, [(1, 4), (5, 8)], [10, 20], seed=0)["results"]
    assert [(row["lengths"], row.get("variant"), row["episodes"]) for row in results] == [
        ([1, 4], None, 10),
        ([5, 8], None, 20),
        ([1, 4], "grid", 10),
        ([5, 8], "grid", 20),
    ]
    steps = [batch.inputs[..., 0][batch.occupied].double() * 300 for batch in model.asked]
    on_grid = [bool(((step - step.round()).abs() < 1e-3).all()) for step in steps]
    assert on_grid == [False, False, True, True]
    assert "1-4 (grid) " in table(evaluate(model, [(1, 4)], 10, seed=0))


def test_planted_errors_are_counted_to_the_bit():
    counts = {"symbols": 0, "bits": 0}

    def plant(number, bits, scored):
        places = scored.nonzero()
        counts["symbols"] += int(scored.any(1).sum())
        counts["bits"] += len(places)
        end = int(places[:, 0].max())
        if number == 3:
            flip(bits, [(0, 0)])  # one bit
        elif number == 5:
            flip(bits, [(0, 1), (0, 4), (0, 10)])  # three bits of one symbol
        elif number == 8:
            flip(bits, [(end, 10)])  # the end symbol alone
        elif number == 90:
            flip(bits, [(0, 2), (1, 2), (end, 10)])  # three symbols
        elif number == 50:
            flip(bits, (~scored).nonzero().tolist())  # nothing that counts

    result = result_of(Planted("reverse", plant), lengths=(2, 32), batch_size=7)
    assert result["wrong_sequences"] == 4
    assert result["sequence_error"] == 4 / 100
    assert result["symbol_error"] == 6 / counts["symbols"]
    assert result["bit_error"] == 8 / counts["bits"]
    assert result["interval"] == list(wilson_interval(4, 100))


def test_first_timestep_of_search_does_not_count():
    def plant(number, bits, scored):
        flip(bits, [(0, place) for place in range(5)])
        if number == 0:
            flip(bits, [(1, 0)])

    result = result_of(Planted("search", plant))
    assert result["wrong_sequences"] == 1
    assert result["symbol_error"] == 1 / 100
    assert result["bit_error"] == 1 / 500


def test_the_speed_is_that_of_compiled_loops(monkeypatch):
    """The clock advances by a second per batch; the first batch also compiles for 40."""
    clock = {"seconds": 0.0, "compiled": 7.0}
    monkeypatch.setattr("time.perf_counter", lambda: clock["seconds"])
    monkeypatch.setattr("lightning_ham.evaluation.protocol.compile_seconds", lambda: clock["compiled"])

    def plant(number, bits, scored):
        clock["seconds"] += 1 / 64
        if number == 0:
            clock["seconds"] += 40
            clock["compiled"] += 40

    model = Planted("reverse", plant)
    assert result_of(model, episodes=256, batch_size=64)["episodes_per_second"] == pytest.approx(64)
    model.asked.clear()
    for memory in (part for part in model.modules() if isinstance(part, HierarchicalAttentiveMemory)):
        memory.engine = "reference"  # which compiles nothing; what others compile meanwhile is not left out
    assert result_of(model, episodes=256, batch_size=64)["episodes_per_second"] == pytest.approx(256 / 44)


def test_episodes_are_fresh_uniform_over_the_range_and_in_the_smallest_tree_that_holds_it():
    model = Planted("sort")
    evaluation = evaluate(model, [(1, 5), (33, 40)], 300, seed=0, batch_size=64)
    assert [result["capacity"] for result in evaluation["results"]] == [8, 64]
    for low, high, capacity in ((1, 5, 8), (33, 40, 64)):
        asked = [batch for batch in model.asked if batch.inputs.shape[1] == capacity]
        lengths = torch.cat([batch.lengths for batch in asked])
        counts = lengths.bincount(minlength=high + 1)
        assert len(lengths) == 300
        assert counts[low:].sum() == 300
        assert counts[low:].min() > 300 / (high - low + 1) / 2
        cells = torch.cat([batch.inputs for batch in asked])[lengths > low]
        assert len(cells.flatten(1).unique(dim=0)) == len(cells)
        assert lengths.tolist() == sorted(lengths.tolist())
    # No timestep is run after the last episode of its batch has ended.
    assert all(batch.scored[:, -1].any() for batch in model.asked)


def test_lengths_below_the_tasks_shortest_are_left_out():
    model = Planted("add")
    result = result_of(model, lengths=(1, 7), episodes=50)
    assert result["lengths"] == [1, 7]
    assert set(model.lengths_asked) == {4, 6}


@pytest.mark.parametrize("batch_size", [1, 64, 1000])
def test_batch_size_changes_no_episode(batch_size):
    model, reference = Planted("merge"), Planted("merge")
    result_of(model, batch_size=batch_size)
    result_of(reference)
    assert max(len(batch.lengths) for batch in model.asked) == min(batch_size, 100)
    for name in ("inputs", "lengths"):
        drawn, expected = (
            torch.cat([getattr(batch, name) for batch in planted.asked]) for planted in (model, reference)
        )
        assert torch.equal(drawn, expected)


def test_seed_range_and_place_in_a_long_evaluation_decide_the_episodes(monkeypatch):
    def drawn(seed, lengths, episodes=64, task="reverse"):
        model = Planted(task)
        evaluate(model, [lengths], episodes, seed)
        return torch.cat([batch.inputs[:, :4].flatten(1) for batch in model.asked])

    assert torch.equal(drawn(0, (4, 4)), drawn(0, (4, 4)))
    assert not torch.equal(drawn(0, (4, 4)), drawn(1, (4, 4)))
    # Both of these ranges hold numbers of one bit only.
    assert not torch.equal(drawn(0, (3, 4), task="add"), drawn(0, (4, 4), task="add"))
    monkeypatch.setattr("lightning_ham.evaluation.protocol.CELLS_PER_DRAW", 64)  # sixteen episodes of four cells
    several = drawn(0, (4, 4), episodes=40)
    assert len(several) == 40
    assert len(several.unique(dim=0)) == 40


def test_no_episode_of_training_or_validation_comes_again():
    from lightning_ham.training import TaskDataModule

    data = TaskDataModule("reverse", batch_size=64, validation_episodes=64, capacity=4, start_capacity=4)
    data.validation_lengths = [(4, 4)]
    model = Planted("reverse")
    evaluate(model, [(4, 4)], 64, seed=0)
    evaluated = {tuple(row.flatten().tolist()) for row in torch.cat([batch.inputs for batch in model.asked])}
    loaders = [data.train_dataloader(), *data.val_dataloader(), *data.test_dataloader()]
    seen = {tuple(row.flatten().tolist()) for loader in loaders for batch in loader for row in batch.inputs}
    assert len(seen) > 1000
    assert not seen & evaluated


def test_evaluation_is_plain_data_that_tells_what_was_measured():
    model = TaskModel("sort").train()
    before = torch.get_rng_state()
    progress = []
    evaluation = evaluate(model, [(1, 4), (5, 8)], 20, seed=3, batch_size=16, on_progress=progress.append)
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
    assert json.loads(json.dumps(evaluation)) == evaluation
    assert evaluation["task"] == "sort"
    assert evaluation["controller"] == "lstm_ham"
    assert evaluation["num_parameters"] == model.num_parameters
    assert evaluation["seed"] == 3
    assert evaluation["threads"] == torch.get_num_threads()
    assert evaluation["versions"]["torch"] == torch.__version__
    assert evaluation["machine"]["device"] == "cpu"
    assert all(result["episodes_per_second"] > 0 for result in evaluation["results"])
    assert progress == [16, 4, 16, 4]


@pytest.mark.parametrize(
    ("lengths", "options", "message"),
    [
        ([], {}, "Expected argument `lengths` to hold at least one range"),
        ([(1, 3)], {}, r"a valid length of task 'add' among them \(min_length 4, .* but got 1-3"),
        ([(4, 8), (5, 5)], {}, r"but got 5-5"),
        ([(8, 4)], {}, r"1 <= LOW <= HIGH, but got 8-4"),
        (["8:4"], {}, r"1 <= LOW <= HIGH, but got 8-4"),
        (["8"], {}, r"Expected lengths LOW-HIGH, such as 1-32, but got '8'"),
        ("1-8", {}, r"Expected argument `lengths` to be a list of ranges, but got '1-8' alone"),
        ([(1, CELLS_PER_DRAW + 1)], {}, "Expected lengths of at most"),
        ([(4, 8)], {"episodes": 0}, "Expected argument `episodes` to be at least 1, but got 0"),
        ([(4, 8)], {"batch_size": 0}, "Expected argument `batch_size` to be at least 1, but got 0"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_run(lengths, options, message):
    model = Planted("add")
    with pytest.raises(ValueError, match=message):
        evaluate(model, lengths, **{"episodes": 10, "seed": 0, **options})
    assert model.asked == []


@pytest.mark.parametrize(
    ("wrong", "total", "low", "high"),
    # The first four are the examples of Newcombe (1998), Statistics in Medicine 17, 857-872, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0000),
    ],
)
def test_wilson_interval(wrong, total, low, high):
    assert wilson_interval(wrong, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_of_no_error_leaves_room_for_some_and_of_nothing_is_refused():
    low, high = wilson_interval(0, 2500)
    assert low == 0
    assert 0.001 < high < 0.002
    assert {wilson_interval(0, total)[0] for total in range(1, 300)} == {0.0}
    assert {wilson_interval(total, total)[1] for total in range(1, 300)} == {1.0}
    for wrong, total in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match=f"but got {wrong} of {total}"):
            wilson_interval(wrong, total)


def test_table_shows_every_number():
    evaluation = evaluate(Planted("sort"), [(1, 4), (33, 64)], 2500, seed=3)
    evaluation["results"][1] |= {"wrong_sequences": 3, "sequence_error": 0.0012, "interval": [0.0004, 0.0035]}
    evaluation["results"][1] |= {"symbol_error": 0.000123, "bit_error": 0.0000012, "episodes_per_second": 1234.5}
    title, header, first, second = table(evaluation).splitlines()
    assert title == f"sort with lstm_ham, {TaskModel('sort').num_parameters:,} parameters, evaluation seed 3"
    assert len(header) == len(first) == len(second)
    assert first.split()[:4] == ["1-4", "4", "2,500", "0"]
    assert "0 % to 0.153 %" in first
    numbers = "33-64 64 2,500 3 0.12 % 0.04 % to 0.35 % 0.0123 % 0.00012 % 1,234"
    assert " ".join(second.split()) == numbers


def test_every_range_may_have_its_own_number_of_episodes():
    model = Planted("reverse")
    evaluation = evaluate(model, [(1, 4), (5, 8)], [30, 7], seed=0)
    assert [result["episodes"] for result in evaluation["results"]] == [30, 7]
    (alone,) = evaluate(Planted("reverse"), [(5, 8)], 7, seed=0)["results"]
    assert {**alone, "episodes_per_second": 0} == {**evaluation["results"][1], "episodes_per_second": 0}
    with pytest.raises(ValueError, match=r"one number or one for each range of lengths \(2\), but got 3"):
        evaluate(model, [(1, 4), (5, 8)], [1, 2, 3], seed=0)
    with pytest.raises(ValueError, match="Expected argument `episodes` to be at least 1, but got 0"):
        evaluate(model, [(1, 4), (5, 8)], [1, 0], seed=0)


def test_mistakes_are_those_of_the_wrong_sequences():
    def plant(number, bits, scored):
        if number % 10 == 0:
            bits[int(scored.any(1).nonzero().max()), 10] = 0.0  # does not end

    result = result_of(Planted("reverse", plant), episodes=100)
    assert result["wrong_sequences"] == result["wrong_bits"] == result["mistakes"]["end"] == 10
    assert result["mistakes"]["examples"][0]["expected"] == "end"
