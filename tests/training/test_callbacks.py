"""Decisions of the callbacks for given errors, and their state in a resumed training."""

import logging
import re
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning import Callback, LightningDataModule, Trainer

from lightning_ham.tasks import Episodes
from lightning_ham.training import (
    EpisodeCounter,
    HAMModule,
    LengthCurriculum,
    MovingAverage,
    StopAtErrors,
    TaskDataModule,
)


def make_data(**options) -> TaskDataModule:
    tiny = {
        "batch_size": 4,
        "batches_per_epoch": 2,
        "capacity": 16,
        "smaller_fraction": 0.0,
        "validation_episodes": 4,
        "validation_lengths": [(1, 16), (17, 32)],
    }
    return TaskDataModule("reverse", **(tiny | options))


def make_trainer(data: TaskDataModule, **metrics: float) -> SimpleNamespace:
    """All that the callbacks ask of a Trainer; metrics by the name of the validation set."""
    return SimpleNamespace(
        datamodule=data,
        sanity_checking=False,
        should_stop=False,
        is_global_zero=True,
        callback_metrics={
            f"val/{name.replace('_', '-')}/sequence_error": torch.tensor(error) for name, error in metrics.items()
        },
    )


class Oracle(HAMModule):
    """Answers correctly in evaluation, whatever its weights."""

    def forward(self, episodes: Episodes) -> torch.Tensor:
        return 2 * episodes.targets - 1


def make_module() -> Oracle:
    return Oracle("reverse", controller_options={"controller_size": 4, "leaf_size": 4})


def real_trainer(*callbacks: Callback, **options) -> Trainer:
    quiet = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "callbacks": list(callbacks),
    }
    return Trainer(**(quiet | options))


class Capacities(Callback):
    """Keeps the leaves of every training batch's trees, by epoch."""

    def __init__(self) -> None:
        self.seen: dict[int, set[int]] = {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.setdefault(trainer.current_epoch, set()).add(batch.inputs.shape[1])


class SaveAfter(Callback):
    """Saves a checkpoint at the end of an epoch."""

    def __init__(self, epoch: int, path) -> None:
        self.epoch, self.path = epoch, path

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            trainer.save_checkpoint(self.path)


class TestLengthCurriculum:
    @pytest.mark.parametrize(("error", "capacity"), [(0.0, 4), (0.0999, 4), (0.1, 2), (0.5, 2), (1.0, 2)])
    def test_doubles_only_under_the_threshold(self, error, capacity):
        data = make_data()
        LengthCurriculum(threshold=0.1).on_validation_end(make_trainer(data, current=error), None)
        assert data.capacity == capacity

    def test_threshold_decides(self):
        for threshold, capacity in ((0.3, 4), (0.2, 2)):
            data = make_data()
            LengthCurriculum(threshold).on_validation_end(make_trainer(data, current=0.25), None)
            assert data.capacity == capacity

    def test_looks_at_the_current_set_only(self):
        data = make_data()
        LengthCurriculum().on_validation_end(make_trainer(data, **{"1_16": 0.0, "17_32": 0.0}), None)
        assert data.capacity == 2
        LengthCurriculum().on_validation_end(make_trainer(data, current=1.0, **{"1_16": 0.0}), None)
        assert data.capacity == 2

    def test_never_goes_above_the_capacity(self):
        data, curriculum = make_data(), LengthCurriculum()
        seen = []
        for _ in range(6):
            curriculum.on_validation_end(make_trainer(data, current=0.0), None)
            seen.append(data.capacity)
        assert seen == [4, 8, 16, 16, 16, 16]

    def test_a_sanity_check_decides_nothing(self):
        data = make_data()
        trainer = make_trainer(data, current=0.0)
        trainer.sanity_checking = True
        LengthCurriculum().on_validation_end(trainer, None)
        assert data.capacity == 2

    def test_grows_in_a_trainer_between_epochs(self):
        capacities, data = Capacities(), make_data()
        trainer = real_trainer(LengthCurriculum(), capacities, max_epochs=5)
        trainer.fit(make_module(), data)
        assert capacities.seen == {0: {2}, 1: {4}, 2: {8}, 3: {16}, 4: {16}}
        assert trainer.callback_metrics["curriculum/capacity"] == 16

    def test_stays_in_a_trainer_while_the_model_is_wrong(self):
        class Wrong(Oracle):
            def forward(self, episodes):
                return -super().forward(episodes)

        capacities, data = Capacities(), make_data()
        module = Wrong("reverse", controller_options={"controller_size": 4, "leaf_size": 4})
        real_trainer(LengthCurriculum(threshold=1.0), capacities, max_epochs=2).fit(module, data)
        assert capacities.seen == {0: {2}, 1: {2}}

    @pytest.mark.parametrize(("capacity", "resumed"), [(16, {2: {8}, 3: {16}}), (4, {2: {4}, 3: {4}})])
    def test_a_resumed_training_goes_on_at_its_level(self, tmp_path, capacity, resumed):
        """Unless it is told to end at a smaller capacity than it had reached."""
        path = tmp_path / "model.ckpt"
        real_trainer(LengthCurriculum(), SaveAfter(1, path), max_epochs=2).fit(make_module(), make_data())
        capacities = Capacities()
        trainer = real_trainer(LengthCurriculum(), capacities, max_epochs=4)
        data = make_data(capacity=capacity)
        trainer.fit(make_module(), data, ckpt_path=path, weights_only=True)
        assert capacities.seen == resumed

    def test_a_training_resumed_from_before_its_first_validation_begins_at_the_start(self, tmp_path):
        class SaveFirst(Callback):
            def on_train_start(self, trainer, pl_module):
                trainer.save_checkpoint(tmp_path / "model.ckpt")

        real_trainer(LengthCurriculum(), SaveFirst(), max_epochs=1).fit(make_module(), make_data())
        capacities = Capacities()
        trainer = real_trainer(LengthCurriculum(), capacities, max_epochs=1)
        trainer.fit(make_module(), make_data(start_capacity=4), ckpt_path=tmp_path / "model.ckpt", weights_only=True)
        assert capacities.seen == {0: {4}}

    @pytest.mark.parametrize("threshold", [0.0, -0.1, 1.1])
    def test_wrong_threshold(self, threshold):
        message = f"Expected argument `threshold` to be above 0 and at most 1, but got {threshold}."
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            LengthCurriculum(threshold)


BARS = {"1-16": 0.1, "17-32": 0.2}


def validate(stop: StopAtErrors, *errors: float) -> bool:
    """Whether a validation with these errors on the two sets ends the training."""
    trainer = make_trainer(make_data(), **dict(zip(("1_16", "17_32"), errors, strict=False)))
    stop.on_validation_end(trainer, None)
    return trainer.should_stop


class TestStopAtErrors:
    @pytest.mark.parametrize(
        ("errors", "met"),
        [
            ((0.1, 0.2), True),  # as high as the bar is still good enough
            ((0.0, 0.0), True),
            ((0.11, 0.0), False),
            ((0.0, 0.21), False),
            ((0.0,), False),  # not measured yet
            ((), False),
        ],
    )
    def test_every_bar_must_be_met(self, errors, met):
        assert validate(StopAtErrors(BARS), *errors) == met

    def test_patience_counts_validations_in_a_row(self):
        stop = StopAtErrors(BARS, patience=3)
        good, bad = (0.0, 0.0), (0.5, 0.0)
        ended = [validate(stop, *errors) for errors in (good, good, bad, good, good, good)]
        assert ended == [False, False, False, False, False, True]

    def test_a_bar_may_be_typed_with_a_colon(self):
        assert StopAtErrors({"1:16": 0.1, "17-32": 0.2}).errors == {"1-16": 0.1, "17-32": 0.2}

    def test_a_set_without_a_bar_does_not_matter(self):
        assert validate(StopAtErrors({"1-16": 0.1}), 0.0, 1.0)

    @pytest.mark.parametrize("errors", [None, {}])
    def test_without_bars_it_never_stops(self, errors):
        assert not validate(StopAtErrors(errors), 0.0, 0.0)

    def test_a_sanity_check_does_not_count(self):
        trainer = make_trainer(make_data(), **{"1_16": 0.0, "17_32": 0.0})
        trainer.sanity_checking = True
        stop = StopAtErrors(BARS)
        stop.on_validation_end(trainer, None)
        assert not trainer.should_stop
        assert stop.state_dict() == {"met": 0}

    def test_says_that_the_bar_is_met(self, caplog):
        with caplog.at_level(logging.INFO, logger="lightning_ham"):
            validate(StopAtErrors({"1-16": 0.001}), 0.0)
        (record,) = caplog.records
        assert record.getMessage() == "The bar is met (at most 0.10% at lengths 1-16 wrong): training ends."

    def test_ends_a_training_in_a_trainer(self):
        trainer = real_trainer(StopAtErrors({"1-16": 0.0}, patience=2), max_epochs=10)
        trainer.fit(make_module(), make_data(start_capacity=16))
        assert trainer.current_epoch == 2

    def test_a_resumed_training_goes_on_counting(self, tmp_path):
        path = tmp_path / "model.ckpt"
        stop = StopAtErrors({"1-16": 0.0}, patience=3)
        real_trainer(stop, SaveAfter(1, path), max_epochs=2).fit(make_module(), make_data(start_capacity=16))
        trainer = real_trainer(StopAtErrors({"1-16": 0.0}, patience=3), max_epochs=10)
        trainer.fit(make_module(), make_data(start_capacity=16), ckpt_path=path, weights_only=True)
        assert trainer.current_epoch == 3

    def test_an_unknown_set_is_named_before_the_training_begins(self):
        message = "Expected argument `errors` to name validation sets (1-16, 17-32), but got '1-15'."
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            real_trainer(StopAtErrors({"1-16": 0.0, "1-15": 0.0}), max_epochs=1).fit(make_module(), make_data())

    def test_wrong_patience(self):
        with pytest.raises(ValueError, match=r"^Expected argument `patience` to be at least 1, but got 0\.$"):
            StopAtErrors(BARS, patience=0)


class Weights(Callback):
    """Keeps one weight after every update, and as it is validated."""

    def __init__(self) -> None:
        self.trained: list[float] = []
        self.validated: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.trained.append(pl_module.model.controller.head.bias[0].item())

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if (batch_idx, dataloader_idx) == (0, 0):
            self.validated.append(pl_module.model.controller.head.bias[0].item())


class TestMovingAverage:
    @pytest.mark.parametrize("decay", [0.0, 0.15, 0.99])
    def test_is_validated_and_left_in_the_end(self, decay):
        weights, module = Weights(), make_module()
        trainer = real_trainer(MovingAverage(decay), weights, max_epochs=3)
        trainer.fit(module, make_data(batches_per_epoch=2))
        average, expected = weights.trained[0], []
        for n, weight in enumerate(weights.trained[1:], 1):
            share = min(decay, (1 + n) / (10 + n))
            average = share * average + (1 - share) * weight
            if n % 2:
                expected.append(average)
        assert len(set(weights.trained)) == 6
        assert weights.validated == pytest.approx(expected, rel=1e-5)
        assert module.model.controller.head.bias[0].item() == pytest.approx(expected[-1], rel=1e-5)

    def test_does_not_change_what_is_trained(self):
        trained = []
        for callbacks in ([], [MovingAverage(0.9)]):
            torch.manual_seed(0)
            weights, module = Weights(), make_module()
            real_trainer(*callbacks, weights, max_epochs=2).fit(module, make_data())
            trained.append(weights.trained)
        assert trained[0] == trained[1]

    @pytest.mark.parametrize("decay", [-0.1, 1.0])
    def test_wrong_decay(self, decay):
        message = f"Expected argument `decay` to be at least 0 and below 1, but got {decay}."
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            MovingAverage(decay)


class TestEpisodeCounter:
    def test_counts_the_episodes_of_all_epochs(self):
        counter = EpisodeCounter()
        trainer = real_trainer(counter, max_epochs=3)
        trainer.fit(make_module(), make_data(batch_size=5, batches_per_epoch=4))
        assert counter.episodes == 5 * 4 * 3
        assert trainer.callback_metrics["train/episodes"] == 60
        assert trainer.callback_metrics["train/episodes_per_second"] > 0

    def test_counts_those_of_all_processes(self):
        counter, batch = EpisodeCounter(), SimpleNamespace(lengths=[1, 2, 3])
        trainer = SimpleNamespace(world_size=4)
        module = SimpleNamespace(log=lambda name, value: None)
        counter.on_train_start(trainer, module)
        for _ in range(2):
            counter.on_train_epoch_start(trainer, module)
            counter.on_train_batch_end(trainer, module, None, batch, 0)
            counter.on_train_epoch_end(trainer, module)
        assert counter.episodes == 3 * 4 * 2

    def test_a_resumed_training_goes_on_counting(self, tmp_path):
        path = tmp_path / "model.ckpt"
        first, second = EpisodeCounter(), EpisodeCounter()
        real_trainer(first, SaveAfter(1, path), max_epochs=2).fit(make_module(), make_data())
        real_trainer(second, max_epochs=3).fit(make_module(), make_data(), ckpt_path=path, weights_only=True)
        assert (first.episodes, second.episodes) == (2 * 2 * 4, 3 * 2 * 4)
        assert second.seconds > first.seconds > 0


@pytest.mark.parametrize("callback", [LengthCurriculum(), StopAtErrors({"1-16": 0.0})], ids=lambda c: type(c).__name__)
@pytest.mark.parametrize(("data", "got"), [(None, "NoneType"), (LightningDataModule(), "LightningDataModule")])
def test_other_data_are_refused(callback, data, got):
    message = f"Expected {type(callback).__name__} beside a TaskDataModule, but got {got}."
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        callback.on_fit_start(SimpleNamespace(datamodule=data), None)
