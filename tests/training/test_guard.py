"""An outlying update changes nothing, and a training that breaks up continues from its best weights."""

import logging

import pytest
import torch
from pytorch_lightning import Callback, Trainer

from lightning_ham.training import BreakUpGuard, HAMModule, LengthCurriculum, MovingAverage, TaskDataModule


class Scored(HAMModule):
    """Reports given validation scores, one per validation, and multiplies gradients by given factors."""

    def __init__(self, scores=(), multiples=None, wrong=0.0) -> None:
        super().__init__("reverse", controller_options={"controller_size": 4, "leaf_size": 4})
        self.scores = list(scores)
        self.multiples = multiples or {}
        self.wrong = wrong

    def on_validation_epoch_end(self) -> None:
        self.log("val/score", self.scores.pop(0) if self.scores else 0.0)
        self.log("val/current/sequence_error", self.wrong)

    def on_after_backward(self) -> None:
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad *= self.multiples.get(self.global_step, 1.0)


class Watch(Callback):
    """Keeps the weights after every update and at every validation, the learning rates and the capacities."""

    def __init__(self) -> None:
        self.updates, self.validated, self.rates, self.capacities = [], [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.updates.append(flat(pl_module))
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.capacities.append(trainer.datamodule.capacity)

    def on_validation_epoch_end(self, trainer, pl_module):
        self.validated.append(flat(pl_module))


def flat(module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()]).clone()


def train(module, guard, *others, epochs=1, batches=4, capacity=4, start_capacity=None, ckpt_path=None):
    """Train with the guard and with other callbacks behind it; return what was seen."""
    watch = Watch()
    data = TaskDataModule(
        "reverse",
        batch_size=4,
        batches_per_epoch=batches,
        capacity=capacity,
        start_capacity=start_capacity or capacity,
        validation_episodes=4,
        validation_lengths=[(1, 4)],
    )
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        max_epochs=epochs,
        callbacks=[watch, guard, MovingAverage(0.5), *others],
    )
    torch.manual_seed(0)
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True)
    return watch, trainer


def make(*arguments, **options) -> Scored:
    torch.manual_seed(0)
    return Scored(*arguments, **options)


class TestOutlyingUpdates:
    def test_an_update_far_outside_the_runs_own_leaves_the_weights_as_they_are(self):
        watch, trainer = train(make(multiples={30: 1e4}), BreakUpGuard(), batches=40)
        assert torch.equal(watch.updates[30], watch.updates[29])
        assert not torch.equal(watch.updates[31], watch.updates[30])
        assert watch.updates[-1].isfinite().all()
        assert trainer.callback_metrics["train/skipped_updates"] == 1

    def test_without_outliers_it_changes_nothing(self):
        guarded, trainer = train(make(), BreakUpGuard(skip_above=1e9), batches=40)
        free, _ = train(make(), BreakUpGuard(skip_above=1e9, returns=0), batches=40)
        assert torch.equal(guarded.updates[-1], free.updates[-1])
        assert trainer.callback_metrics["train/skipped_updates"] == 0

    def test_the_multiple_decides(self):
        skipped = [
            train(make(multiples={30: 10.0}), BreakUpGuard(skip_above=above), batches=40)[1].callback_metrics[
                "train/skipped_updates"
            ]
            for above in (3.0, 200.0)
        ]
        assert skipped[0] >= 1
        assert skipped[1] == 0

    def test_the_first_updates_are_judged_by_nothing(self):
        watch, _ = train(make(multiples={5: 1e6}), BreakUpGuard(), batches=10)
        assert not torch.equal(watch.updates[5], watch.updates[4])


class TestGoingBack:
    def test_goes_back_where_what_was_learned_is_lost_at_the_next_capacity(self):
        class Doubling(LengthCurriculum):
            def on_validation_end(self, trainer, pl_module):
                if trainer.current_epoch in (0, 3):
                    trainer.datamodule.capacity = self._capacity = 8

        # A score has 1 for every doubling ahead; those of 8 leaves are lower, and yet all is wrong there.
        scores = [1.0, 0.9, 0.9, 1.0, 0.9, 0.9]
        watch, _ = train(
            make(scores, wrong=1.0),
            BreakUpGuard(patience=2),
            Doubling(),
            epochs=6,
            batches=1,
            capacity=8,
            start_capacity=4,
        )
        assert watch.capacities == [4, 8, 8, 4, 8, 8]  # once: the second time it stays

    def test_goes_back_to_the_weights_that_were_validated_best(self, caplog):
        scores = [0.5, 0.2, 0.9, 0.9, 0.9, 0.1]
        with caplog.at_level(logging.INFO):
            watch, _ = train(make(scores), BreakUpGuard(patience=3), epochs=6, batches=1)
        # One update an epoch: what is validated in the sixth is the average of it alone.
        assert not torch.equal(watch.updates[4], watch.validated[1])
        moved = (watch.updates[5] - watch.validated[1]).abs().max()
        assert 0 < moved < 1.5e-3  # one update of Adam at half of 3e-3, or less
        assert "goes on from the weights of epoch 2, at 50% of the learning rate" in caplog.text

    def test_goes_on_with_a_smaller_rate(self):
        scores = [0.2, 0.9, 0.9, 0.2]
        back, _ = train(make(scores), BreakUpGuard(patience=2, slower=0.25), epochs=4, batches=1)
        stayed, _ = train(make(scores), BreakUpGuard(patience=2, returns=0), epochs=4, batches=1)
        assert back.rates[:3] == stayed.rates[:3]
        assert back.rates[3] == pytest.approx(stayed.rates[3] / 4)

    @pytest.mark.parametrize(
        ("scores", "options"),
        [
            ([0.2, 0.9, 0.2, 0.9, 0.2], {}),  # never worse twice in a row
            ([0.2, 0.29, 0.29, 0.29, 0.29], {}),  # within the tolerance
            ([1.9, 1.4, 1.0, 0.9, 0.8], {}),  # getting better
            ([0.2, 0.9, 0.9, 0.9, 0.9], {"returns": 0}),
        ],
    )
    def test_stays_otherwise(self, scores, options):
        guard = BreakUpGuard(patience=2, **options)
        train(make(scores), guard, epochs=5, batches=1)
        assert guard.returned == 0

    def test_a_score_that_is_no_number_counts_as_worse(self):
        guard = BreakUpGuard(patience=2)
        train(make([0.2, float("nan"), float("nan"), 0.2]), guard, epochs=4, batches=1)
        assert guard.returned == 1

    def test_returns_are_counted(self):
        guard = BreakUpGuard(patience=1, returns=2)
        train(make([0.2, *[0.9] * 6]), guard, epochs=7, batches=1)
        assert guard.returned == 2

    def test_goes_back_to_the_capacity_of_the_best_weights(self):
        class Doubling(LengthCurriculum):
            def on_validation_end(self, trainer, pl_module):
                if trainer.current_epoch == 1:
                    trainer.datamodule.capacity = self._capacity = 8

        scores = [0.5, 0.2, 0.9, 0.9, 0.9]
        watch, _ = train(
            make(scores),
            BreakUpGuard(patience=2),
            Doubling(),
            epochs=5,
            batches=1,
            capacity=8,
            start_capacity=4,
        )
        assert watch.capacities == [4, 4, 8, 8, 4]

    def test_a_resumed_training_goes_back_as_it_would_have(self, tmp_path):
        class Save(Callback):
            def on_train_epoch_end(self, trainer, pl_module):
                if trainer.current_epoch == 2:
                    trainer.save_checkpoint(tmp_path / "third.ckpt")

        scores = [0.2, 0.9, 0.9, 0.9, 0.3]

        whole, _ = train(make(scores), BreakUpGuard(patience=3), epochs=5, batches=2)
        guard = BreakUpGuard(patience=3)
        watch, _ = train(make(scores), guard, Save(), epochs=5, batches=2)
        resumed = BreakUpGuard(patience=3)
        again, _ = train(make(scores[3:]), resumed, epochs=5, batches=2, ckpt_path=tmp_path / "third.ckpt")
        assert resumed.returned == guard.returned == 1
        assert torch.equal(again.updates[-1], whole.updates[-1])
        assert torch.equal(watch.updates[-1], whole.updates[-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skip_above": 1.0}, "`skip_above` to be above 1, but got 1.0"),
        ({"skip_above": float("nan")}, "`skip_above` to be a finite number, but got nan"),
        ({"tolerance": 0.0}, "`tolerance` to be above 0 and at most 1, but got 0.0"),
        ({"tolerance": float("nan")}, "`tolerance` to be a finite number, but got nan"),
        ({"patience": 0}, "`patience` to be at least 1, but got 0"),
        ({"slower": 1.5}, "`slower` to be above 0 and at most 1, but got 1.5"),
        ({"returns": -1}, "`returns` to be at least 0, but got -1"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ValueError, match="Expected argument") as raised:
        BreakUpGuard(**options)
    assert message in str(raised.value)
