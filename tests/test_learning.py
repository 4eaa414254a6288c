"""Short trainings through the public names that must learn: a memory that does not train is worth nothing."""

import pytest
import pytorch_lightning as pl
import torch

from lightning_ham import HAMModule, TaskDataModule
from lightning_ham.evaluation import evaluate
from lightning_ham.training import ExplorationOptions, LengthCurriculum, MovingAverage, ReinforceOptions


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def wrong_after_training(leaves: int, epochs: int, *, longer: int | None = None, **options) -> list[int]:
    """Train Reverse up to ``leaves``; return the wrong sequences of 500 fresh ones for each range of lengths."""
    pl.seed_everything(1)
    module = HAMModule("reverse", seed=1, **options)
    data = TaskDataModule(
        "reverse",
        batches_per_epoch=50,
        capacity=leaves,
        validation_lengths=[(1, leaves)],
        validation_episodes=256,
        seed=1,
    )
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        gradient_clip_val=1.0,
        callbacks=[LengthCurriculum(), MovingAverage()],
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data)
    ranges = [(1, leaves)] + ([(leaves + 1, longer)] if longer else [])
    return [result["wrong_sequences"] for result in evaluate(module.model, ranges, 500, seed=2)["results"]]


@pytest.mark.slow
def test_what_was_learned_holds_on_longer_inputs():
    within, longer = wrong_after_training(8, epochs=20, longer=16)
    assert within == 0
    assert longer <= 25  # of 500, and none of these lengths was trained on


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"attention": "soft"},
        {"attention": "reinforce", "exploration": ExplorationOptions(entropy_bonus=0.05)},
        {
            "attention": "reinforce",
            "exploration": ExplorationOptions(entropy_bonus=0.05),
            "reinforce": ReinforceOptions(baseline="leave_one_out", rollouts=4),
        },
    ],
    ids=["soft", "reinforce", "leave-one-out"],
)
def test_the_papers_gradients_learn_reverse_at_two_leaves(options):
    (wrong,) = wrong_after_training(2, epochs=10, **options)
    assert wrong <= 5


@pytest.mark.slow
def test_untrained_it_is_wrong():
    module = HAMModule("reverse")
    assert evaluate(module.model, [(1, 4)], 500, seed=2)["results"][0]["wrong_sequences"] > 490
