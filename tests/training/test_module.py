"""The module in a user's own Trainer: every argument works, and nothing but its arguments decides what it does."""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from typing import NamedTuple

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import Logger
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_ham.engines import episodes as engine_episodes
from lightning_ham.hub import from_pretrained
from lightning_ham.memory import HierarchicalAttentiveMemory
from lightning_ham.memory.tree import begin_in_place
from lightning_ham.tasks import get_task
from lightning_ham.training import (
    ExplorationOptions,
    HAMModule,
    ReinforceOptions,
    ScheduleOptions,
    SupervisionOptions,
    TaskDataModule,
)

TINY = {"controller_size": 4, "leaf_size": 4}
GROUPS = {"schedule": ScheduleOptions, "exploration": ExplorationOptions, "supervision": SupervisionOptions}
ATTENTIONS = ["straight_through", "straight_through_write", "reinforce", "soft"]


def make_data(task: str = "sort", **options) -> TaskDataModule:
    tiny = {
        "batch_size": 8,
        "batches_per_epoch": 1,  # so that what is logged of an epoch is that of a step
        "capacity": 4,
        "start_capacity": 4,
        "smaller_fraction": 0.0,
        "validation_episodes": 10,
        "validation_lengths": [(1, 4), (5, 8)],
    }
    return TaskDataModule(task, **(tiny | options))


def make_module(task: str = "sort", initial: int = 0, **options) -> HAMModule:
    """A tiny module; options that stand in groups are given by their own names."""
    torch.manual_seed(initial)
    options.setdefault("controller_options", TINY)
    for group, kind in GROUPS.items():
        options[group] = kind(**{name: options.pop(name) for name in names_of(kind) if name in options})
    return HAMModule(task, **options)


def names_of(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def make_trainer(*callbacks: Callback, **options) -> Trainer:
    quiet = {
        "accelerator": "cpu",
        "max_epochs": 3,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "callbacks": list(callbacks),
    }
    return Trainer(**(quiet | options))


class Epochs(Logger):
    """Keeps what every training epoch logged."""

    name, version = "epochs", 0

    def __init__(self) -> None:
        super().__init__()
        self.logged: list[dict[str, float]] = []

    def log_hyperparams(self, params, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        if "train/loss" in metrics:
            self.logged.append(dict(metrics))


class Recorder(Callback):
    """Keeps the leaves that every training step attended, and its learning rate."""

    def __init__(self) -> None:
        self.leaves: list[Tensor] = []
        self.learning_rates: list[float] = []

    def on_fit_start(self, trainer, pl_module):
        def keep(model, arguments, rollout):
            if pl_module.training:
                self.leaves.append(rollout.leaves)

        pl_module.model.register_forward_hook(keep)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.learning_rates.append(trainer.optimizers[0].param_groups[0]["lr"])


class Trained(NamedTuple):
    trainer: Trainer
    recorder: Recorder
    logged: list[dict[str, float]]
    """By epoch."""

    def epochs(self, name: str) -> list[float]:
        return [epoch[f"train/{name}"] for epoch in self.logged]


def train(module: HAMModule, data: TaskDataModule | None = None, *callbacks: Callback, **options) -> Trained:
    recorder, epochs = Recorder(), Epochs()
    trainer = make_trainer(recorder, *callbacks, **({"logger": epochs} | options))
    trainer.fit(module, data or make_data(module.hparams["task"]))
    return Trained(trainer, recorder, epochs.logged)


def same_weights(first: HAMModule, second: HAMModule) -> bool:
    ours, others = first.state_dict(), second.state_dict()
    return ours.keys() == others.keys() and all(torch.equal(ours[name], others[name]) for name in ours)


# In a user's own Trainer.


def test_trains_in_a_plain_trainer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module, data = HAMModule("sort", controller_options=TINY), make_data()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    trainer = Trainer(max_epochs=2)
    trainer.fit(module, data)
    assert trainer.global_step == 2
    assert not any(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert {"val/score", "val/1-4/sequence_error", "val/5-8/sequence_error"} <= trainer.callback_metrics.keys()
    assert list(tmp_path.rglob("*.ckpt"))


def test_module_and_data_may_have_different_seeds(tmp_path):
    """Lightning refuses to log them where both are logged under one name."""
    trainer = make_trainer(logger=True, default_root_dir=tmp_path)
    trainer.fit(make_module(seed=1), make_data(seed=2))
    (logged,) = tmp_path.rglob("hparams.yaml")
    assert "seed: 1\n" in logged.read_text()


def test_data_of_another_task_is_refused():
    # Of the same sizes, so that nothing else would notice.
    message = "Expected data of task 'sort', for which the module was made, but got data of task 'reverse'."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_trainer().fit(make_module("sort"), make_data("reverse"))


def test_trains_on_a_users_own_batches():
    task = get_task("sort")
    batches = [task.sample(4, (1, 4), generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    loader = DataLoader(batches, batch_size=None)
    module = make_module()
    trainer = make_trainer()
    trainer.fit(module, loader, loader)
    assert trainer.global_step == 9
    errors = trainer.callback_metrics
    assert "val/0/sequence_error" in errors
    assert errors["val/score"] == errors["val/0/sequence_error"]


def test_tests_on_other_episodes_than_it_validates_on():
    module, data = make_module(), make_data(validation_episodes=100)
    trainer = make_trainer()
    tested = {}
    for result in trainer.test(module, data, verbose=False):
        tested |= result
    assert {name for name in tested if not re.search(r"error/", name)} == {
        f"test/{lengths}/{kind}_error" for lengths in ("1-4", "5-8") for kind in ("sequence", "symbol", "bit")
    }
    validated = {}
    for result in trainer.validate(module, data, verbose=False):
        validated |= result
    assert tested["test/5-8/bit_error"] != validated["val/5-8/bit_error"]
    assert tested["test/5-8/bit_error"] == pytest.approx(validated["val/5-8/bit_error"], abs=0.1)


def test_fits_after_it_was_validated_and_tested():
    """What is counted under Lightning's inference mode must not be in the way of what is counted in `fit`."""
    module, data = make_module(), make_data(validation_episodes=5)
    for _ in range(2):
        trainer = make_trainer()
        trainer.validate(module, data, verbose=False)
        trainer.test(module, data, verbose=False)
        trainer.fit(module, data)
    assert 0 <= trainer.callback_metrics["val/5-8/sequence_error"] <= 1


def test_every_validation_counts_anew():
    module, data = make_module(), make_data(validation_episodes=100)
    first, second = (make_trainer().validate(module, data, verbose=False) for _ in range(2))
    assert first == second
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    (zeros,) = make_trainer().validate(module, data, verbose=False)[1:2]  # one dictionary a set
    assert zeros["val/1-4/bit_error"] != first[1]["val/1-4/bit_error"]


def test_solves_and_traces_as_its_model_does():
    module = make_module()
    instance = [(3, 1), (2, 2)]
    assert module.solve([instance]) == module.model.solve([instance])
    assert module.trace(instance) == module.model.trace(instance)


# Every argument.

BASE = {
    "controller_options": TINY,
    "attention": "reinforce",
    "learning_rate": 0.01,
    "final_learning_rate": 0.5,
    "entropy_bonus": 0.1,
    "final_entropy_bonus": 0.5,
}
CHANGES = [
    {"task": "reverse"},
    {"attention": "straight_through"},
    {"attention": "soft"},
    {"learning_rate": 0.02},
    {"final_learning_rate": 0.6},
    {"entropy_bonus": 0.2},
    {"final_entropy_bonus": 0.6},
    {"branch_prior": 0.3},
    {"until_error": True},
    {"cell_noise": 0.5},
    {"seed": 1},
]
OPTION_CHANGES = [
    {"controller_size": 5},
    {"leaf_size": 5},
    {"hidden_size": 5},
    {"join": "mlp"},
    {"real_inputs": 1},
    {"accesses_per_output": 2},
    {"readout": "state"},
    {"readout": "read"},
    {"grid": 0.25},
]
REINFORCE_CHANGES = [
    {"discount": 0.5},
    {"baseline": "none"},
    {"baseline": "leave_one_out"},
    {"rollouts": 3},
    {"normalize": False},
]


def fingerprint(**options) -> tuple[dict[str, Tensor], list[float]]:
    module = make_module(**options)
    return module.state_dict(), train(module, limit_val_batches=0).epochs("loss")


def differs(first: tuple[dict[str, Tensor], list[float]], second: tuple[dict[str, Tensor], list[float]]) -> bool:
    weights, others = first[0], second[0]
    same = weights.keys() == others.keys() and all(
        weights[name].shape == others[name].shape and torch.equal(weights[name], others[name]) for name in weights
    )
    return not same or first[1] != second[1]


def first_key(change: dict) -> str:
    return "-".join(f"{name}={value}" for name, value in change.items())


def test_the_same_arguments_give_the_same_training():
    assert not differs(fingerprint(**BASE), fingerprint(**BASE))


@pytest.mark.parametrize("change", CHANGES, ids=first_key)
def test_every_argument_changes_the_training(change):
    assert differs(fingerprint(**BASE), fingerprint(**(BASE | change)))


@pytest.mark.parametrize("change", OPTION_CHANGES, ids=first_key)
def test_every_option_of_the_controller_changes_the_training(change):
    base = BASE | {"attention": "straight_through"}
    assert differs(fingerprint(**base), fingerprint(**(base | {"controller_options": TINY | change})))


@pytest.mark.parametrize("change", REINFORCE_CHANGES, ids=first_key)
def test_every_option_of_reinforce_changes_the_training(change):
    base = {"rollouts": 2, "discount": 0.9}
    first, second = (fingerprint(**BASE, reinforce=ReinforceOptions(**options)) for options in (base, base | change))
    assert differs(first, second)


def test_every_argument_has_a_case():
    module = make_module()
    tested = {name for change in CHANGES for name in change}
    in_groups = {name for kind in GROUPS.values() for name in names_of(kind)}
    assert set(module.hparams) - GROUPS.keys() | in_groups == tested | {
        "reinforce",
        "controller_options",
        "controller",
        "engine",
        "guided_fraction",  # see the tests below
        "final_noise",  # see the tests below
        "noise_per_doubling",
        "query_share",
        "hint_weight",
    }
    assert set(module.hparams["controller_options"]) == {name for change in OPTION_CHANGES for name in change}
    assert set(names_of(ReinforceOptions)) == {name for change in REINFORCE_CHANGES for name in change}


def test_the_noise_of_branches_decays_to_a_share_of_it_for_straight_through_only():
    base = BASE | {"attention": "straight_through"}
    assert differs(fingerprint(**base), fingerprint(**base, final_noise=0.5))
    assert not differs(fingerprint(**BASE), fingerprint(**BASE, final_noise=0.5)), "a policy gradient needs all of it"
    module, scales = make_module(final_noise=0.125), []
    memory = module.model.controller.memory
    module.model.register_forward_pre_hook(lambda *_: scales.append(memory.noise))
    train(module, None, limit_val_batches=0)
    assert scales == pytest.approx([1.0, 0.5, 0.25])
    assert memory.noise == 1.0, "it is that of a memory for everybody else"


def test_the_noise_of_branches_shrinks_whenever_the_curriculum_doubles_the_capacity():
    module, scales = make_module(attention="straight_through", noise_per_doubling=0.25), []
    memory = module.model.controller.memory
    data = make_data(start_capacity=2, capacity=8)

    class Double(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            data.capacity = (2, 4, 8)[trainer.current_epoch]

    module.model.register_forward_pre_hook(lambda *_: scales.append(memory.noise))
    train(module, data, Double(), max_epochs=3, max_steps=-1, limit_val_batches=0)
    assert scales == pytest.approx([1.0, 0.25, 0.0625])


def test_the_share_of_the_gradient_to_the_state_matters_for_straight_through_only():
    base = BASE | {"attention": "straight_through"}
    assert differs(fingerprint(**base), fingerprint(**base, query_share=0.0))
    assert not differs(fingerprint(**BASE), fingerprint(**BASE, query_share=0.0))


def test_hints_are_learned_from_by_their_weight_and_only_where_there_are_any():
    def fit(**options) -> tuple[dict[str, Tensor], list[float]]:
        module = make_module("stack", controller="raw_ham", controller_options={"leaf_size": 4}, **options)
        data = make_data("stack", validation_lengths=[(2, 4)])
        return module.state_dict(), train(module, data, limit_val_batches=0).epochs("loss")

    assert not differs(fit(), fit(hint_weight=1.0))
    assert differs(fit(), fit(hint_weight=0.0))
    assert not differs(fingerprint(**BASE), fingerprint(**BASE, hint_weight=0.0))


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.5, 10, 30), (1.0, 40, 40)])
def test_guided_batches_are_a_share_of_all_and_attend_to_the_guide(share, least, most):
    followed = 0

    class Watch(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.guide = pl_module.model.task.guide(batch).flatten(1)

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            nonlocal followed
            followed += int(torch.equal(recorder.leaves[-1], self.guide))

    recorder = Recorder()
    module = make_module("search", guided_fraction=share)
    data = make_data("search", batches_per_epoch=40, validation_lengths=[(2, 4)])
    make_trainer(recorder, Watch(), max_epochs=1, limit_val_batches=0).fit(module, data)
    assert least <= followed <= most


def test_the_loss_of_guided_batches_has_the_guides_log_probability():
    module = make_module("search", guided_fraction=1.0, entropy_bonus=0.5)
    for epoch in train(module, make_data("search", validation_lengths=[(2, 4)]), limit_val_batches=0).logged:
        assert epoch["train/guide"] > 0
        expected = epoch["train/nll"] + epoch["train/hint"] + epoch["train/guide"]
        assert epoch["train/loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "add"}, "with 2 accesses per output, to follow the guide of task 'add', but got 'lstm_ham' with 1."),
        ({"task": "search", "controller": "lstm"}, "Expected a controller that can be guided, with 1 accesses per"),
        ({"guided_fraction": 1.5}, "Expected argument `guided_fraction` to be between 0 and 1, but got 1.5."),
    ],
)
def test_what_cannot_be_guided_is_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_module(**({"task": "search", "guided_fraction": 0.5, "controller_options": {}} | options))


def test_reinforce_without_options_has_the_defaults():
    assert not differs(fingerprint(**BASE), fingerprint(**BASE, reinforce=ReinforceOptions()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "srot"}, "Unknown task 'srot'; did you mean 'sort'?"),
        ({"controller": "lstm_hm"}, "Unknown controller 'lstm_hm'; did you mean 'lstm_ham'?"),
        ({"controller_options": {"leaf_sise": 1}}, "Unknown option 'leaf_sise' of controller 'lstm_ham'; did you mean"),
        (
            {"attention": "argmax"},
            "Expected argument `attention` to be one of ('reinforce', 'straight_through', 'straight_through_write', "
            "'soft'), but got 'argmax'.",
        ),
        (
            {"attention": "soft", "reinforce": ReinforceOptions()},
            "Expected `reinforce` options only for attention 'reinforce', but got them for 'soft'.",
        ),
        (
            {"reinforce": {"discount": 0.5}},
            "Expected `reinforce` options only for attention 'reinforce', but got them for 'straight_through'.",
        ),
        ({"learning_rate": 0.0}, "Expected argument `learning_rate` to be positive, but got 0.0."),
        (
            {"final_learning_rate": 0.0},
            "Expected argument `final_learning_rate` to be above 0 and at most 1, but got 0.0.",
        ),
        (
            {"final_entropy_bonus": 1.5},
            "Expected argument `final_entropy_bonus` to be above 0 and at most 1, but got 1.5.",
        ),
        ({"entropy_bonus": -0.1}, "Expected argument `entropy_bonus` to be at least 0, but got -0.1."),
        (
            {"engine": "steam"},
            "Expected argument `engine` to be one of ('auto', 'reference', 'sparse', 'fused'), but got 'steam'.",
        ),
    ],
    ids=lambda value: first_key(value) if isinstance(value, dict) else "",
)
def test_wrong_argument(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        make_module(**({"task": "sort"} | options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"baseline": "mean"},
            "Expected argument `baseline` to be one of ('learned', 'leave_one_out', 'none'), but got 'mean'.",
        ),
        ({"discount": 1.1}, "Expected argument `discount` to be between 0 and 1, but got 1.1."),
        ({"rollouts": 0}, "Expected argument `rollouts` to be at least 1 for baseline 'learned', but got 0."),
        (
            {"baseline": "leave_one_out", "rollouts": 1},
            "Expected argument `rollouts` to be at least 2 for baseline 'leave_one_out', but got 1.",
        ),
    ],
)
def test_wrong_option_of_reinforce(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ReinforceOptions(**options)


# Schedules.


def test_learning_rate_and_entropy_bonus_decay_exponentially():
    module = make_module(learning_rate=0.02, final_learning_rate=0.25, entropy_bonus=0.3, final_entropy_bonus=1 / 16)
    trained = train(module, max_epochs=8)
    done = [step / 8 for step in range(8)]
    assert trained.recorder.learning_rates == pytest.approx([0.02 * 0.25**share for share in done])
    assert trained.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.02 * 0.25)
    assert trained.epochs("entropy_bonus") == pytest.approx([0.3 * (1 / 16) ** share for share in done])


def test_they_decay_over_steps_where_those_are_what_ends_the_training():
    module = make_module(learning_rate=0.02, final_learning_rate=0.25, entropy_bonus=0.3, final_entropy_bonus=0.5)
    trained = train(module, max_epochs=-1, max_steps=4)
    assert trained.recorder.learning_rates == pytest.approx([0.02 * 0.25 ** (step / 4) for step in range(4)])
    assert trained.epochs("entropy_bonus") == pytest.approx([0.3 * 0.5 ** (step / 4) for step in range(4)])


def test_they_stay_where_the_number_of_steps_is_not_known():
    class StopAfterThree(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.should_stop = trainer.global_step == 3

    module = make_module(learning_rate=0.02, entropy_bonus=0.3)
    trained = train(module, None, StopAfterThree(), max_epochs=-1)
    assert trained.trainer.global_step == 3
    assert trained.recorder.learning_rates == [0.02] * 3
    assert trained.epochs("entropy_bonus") == pytest.approx([0.3] * 3)


# What is learned from.


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_the_loss_is_the_sum_of_its_logged_parts(attention):
    for epoch in train(make_module(attention=attention, entropy_bonus=0.5)).logged:
        policy = epoch.get("train/policy", 0.0) + epoch.get("train/baseline", 0.0)
        assert (policy != 0.0) == (attention == "reinforce")
        expected = epoch["train/nll"] - epoch["train/entropy_bonus"] * epoch["train/entropy"] + policy
        assert epoch["train/loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_gradient_reaches_every_parameter(attention):
    """The entropy bonus reaches the branches in any case, so it is left out."""
    gradients = {}

    class Keep(Callback):
        def on_after_backward(self, trainer, pl_module):
            for name, parameter in pl_module.named_parameters():
                gradients[name] = parameter.grad.clone()

    module = make_module(attention=attention, entropy_bonus=0.0)
    make_trainer(Keep(), max_steps=1).fit(module, make_data())
    assert gradients.keys() == dict(module.named_parameters()).keys()
    for name, gradient in gradients.items():
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0, name


@pytest.mark.parametrize("attention", ["straight_through", "reinforce"])
def test_branches_are_sampled_by_step_and_seed_alone(attention):
    """The learning rate is too small to change a weight, so that only the sampling can differ."""
    task = get_task("sort")
    batch = task.sample(16, (4, 4), generator=torch.Generator().manual_seed(0))

    def leaves(batches: int = 4, noise: int = 0, initial: int = 0, **options) -> list[Tensor]:
        module = make_module(initial=initial, attention=attention, learning_rate=1e-30, **options)
        torch.manual_seed(noise)
        recorder = Recorder()
        make_trainer(recorder, max_epochs=1).fit(module, DataLoader([batch] * batches, batch_size=None))
        return recorder.leaves

    first = leaves()
    assert all(map(torch.equal, first, leaves(noise=1)))  # whatever else drew from torch's own generator
    assert all(map(torch.equal, first, leaves(batches=2)))
    for steps in (first, [*first[:1], *leaves(seed=1)]):
        for index, step in enumerate(steps):
            assert not any(torch.equal(step, other) for other in steps[index + 1 :])


def test_every_rank_samples_its_own_branches(monkeypatch):
    first = train(make_module())
    monkeypatch.setattr(HAMModule, "global_rank", 1)
    second = train(make_module())
    assert not torch.equal(first.recorder.leaves[0], second.recorder.leaves[0])


def test_batches_that_share_an_update_have_branches_of_their_own():
    batch = get_task("sort").sample(16, (4, 4), generator=torch.Generator().manual_seed(0))
    recorder = Recorder()
    trainer = make_trainer(recorder, max_epochs=1, accumulate_grad_batches=2)
    trainer.fit(make_module(), DataLoader([batch] * 2, batch_size=None))
    assert trainer.global_step == 1
    assert not torch.equal(*recorder.leaves)


def test_rollouts_of_an_episode_differ_and_stand_together():
    recorder = Recorder()
    options = ReinforceOptions(baseline="leave_one_out", rollouts=3)
    make_trainer(recorder, max_steps=1).fit(
        make_module(attention="reinforce", reinforce=options), make_data(batch_size=4)
    )
    assert len(recorder.leaves[0]) == 12
    assert any(len(set(map(tuple, rows.tolist()))) > 1 for rows in recorder.leaves[0].split(3))


# The engine.


def engines_of(module: HAMModule) -> list[str]:
    return [part.engine for part in module.modules() if isinstance(part, HierarchicalAttentiveMemory)]


def test_the_engine_is_that_of_every_memory_and_auto_if_not_told():
    assert engines_of(make_module()) == ["auto"]
    assert engines_of(make_module(engine="sparse")) == ["sparse"]
    assert make_module(engine="reference").hparams["engine"] == "reference"


def in_place_trees(monkeypatch: pytest.MonkeyPatch, module: HAMModule) -> int:
    """How many batches of a training have a tree that is changed in place."""
    begun = []

    def record(tree):
        begun.append(tree)
        return begin_in_place(tree)

    monkeypatch.setattr(engine_episodes, "begin_in_place", record)
    train(module)
    return len(begun)


def test_the_engine_reaches_the_training(monkeypatch):
    """It changes nothing that is logged, so that only what is called tells."""
    assert in_place_trees(monkeypatch, make_module(engine="sparse")) == 3
    assert in_place_trees(monkeypatch, make_module(engine="reference")) == 0


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("engine", ["auto", "sparse"])
def test_what_is_learned_does_not_depend_on_the_engine(engine, attention):
    weights, logged = fingerprint(attention=attention, engine=engine)
    expected, expected_logged = fingerprint(attention=attention, engine="reference")
    assert logged == pytest.approx(expected_logged, rel=1e-4)
    for name, value in weights.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-3)


def test_the_engine_is_no_part_of_the_model(tmp_path):
    trained = {}
    for engine in ("auto", "reference"):
        module, folder = make_module(engine=engine), tmp_path / engine
        trainer = train(module).trainer
        trainer.save_checkpoint(tmp_path / f"{engine}.ckpt")
        loaded = from_pretrained(tmp_path / f"{engine}.ckpt")
        assert [part.engine for part in loaded.modules() if isinstance(part, HierarchicalAttentiveMemory)] == ["auto"]
        loaded.save_pretrained(folder)
        trained[engine] = loaded
        assert "engine" not in (folder / "config.json").read_text()
    assert (tmp_path / "auto" / "config.json").read_text() == (tmp_path / "reference" / "config.json").read_text()
    assert trained["auto"].state_dict().keys() == trained["reference"].state_dict().keys()


def test_a_module_saves_what_from_pretrained_gives_back(tmp_path):
    """Saving the module writes the same bytes as saving the model from its checkpoint."""
    module = make_module(attention="reinforce")
    train(module).trainer.save_checkpoint(tmp_path / "last.ckpt")
    module.save_pretrained(tmp_path / "module" / "mine")
    from_pretrained(tmp_path / "last.ckpt").save_pretrained(tmp_path / "model" / "mine")
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / kind / "mine").iterdir()} for kind in ("module", "model")
    ]
    assert files[0] == files[1]
    assert files[0].keys() == {"config.json", "model.safetensors", "README.md"}
    loaded = from_pretrained(tmp_path / "module" / "mine")
    assert same_weights(loaded, module.model)
    assert loaded.solve([[(3, 1), (2, 2)]]) == module.solve([[(3, 1), (2, 2)]])
    with pytest.raises(ValueError, match=re.escape("Expected pictures named learning_curve.png or attention.png")):
        module.save_pretrained(tmp_path / "other", pictures={"cat.png": b""})
    assert not (tmp_path / "other").exists()


def test_a_checkpoint_from_before_there_were_engines_loads(tmp_path):
    module, path = make_module(engine="reference"), tmp_path / "old.ckpt"
    train(module).trainer.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["hyper_parameters"]["engine"]
    torch.save(checkpoint, path)
    again = HAMModule.load_from_checkpoint(path, weights_only=True)
    assert same_weights(again, module)
    assert again.hparams["engine"] == "auto"
    assert same_weights(from_pretrained(path), module.model)
    make_trainer(max_epochs=4).fit(again, make_data(), ckpt_path=path, weights_only=True)


@pytest.mark.parametrize(
    ("attention", "reinforce", "message"),
    [
        (
            "soft",
            None,
            "Expected a checkpoint whose options stand in groups, but `learning_rate` is now `schedule.lear",
        ),
        ("reinforce", {"reward": "log_likelihood"}, "Expected ReinforceOptions to be made of discount, baseline, rol"),
    ],
)
def test_a_checkpoint_from_before_there_were_groups_is_refused_but_for_its_model(
    tmp_path, attention, reinforce, message
):
    """Lightning leaves out what it does not know: the module would train on with other options."""
    module, path = make_module(attention=attention), tmp_path / "old.ckpt"
    train(module).trainer.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    for group in GROUPS:
        checkpoint["hyper_parameters"] |= checkpoint["hyper_parameters"].pop(group)
    checkpoint["hyper_parameters"]["reinforce"] = reinforce
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        HAMModule.load_from_checkpoint(path, weights_only=True)
    assert same_weights(from_pretrained(path), module.model)
    make_trainer(max_epochs=4).fit(module, make_data(), ckpt_path=path, weights_only=True)


@pytest.mark.parametrize("kind", [*GROUPS.values(), ReinforceOptions])
def test_options_do_not_change_once_they_are_checked(kind):
    for name in names_of(kind):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(kind(), name, -1)


# Half precision.


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_trains_in_mixed_precision_much_as_in_float32(attention):
    batch = get_task("reverse").sample(32, (1, 4), generator=torch.Generator().manual_seed(0))
    losses = {}
    for precision in ("32-true", "bf16-mixed"):
        module = make_module("reverse", attention=attention, learning_rate=0.03)
        trained = train(module, DataLoader([batch] * 10, batch_size=None), precision=precision)
        assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
        assert all(parameter.isfinite().all() for parameter in module.parameters())
        losses[precision] = trained.epochs("nll")
    assert losses["bf16-mixed"] != losses["32-true"]
    assert losses["bf16-mixed"] == pytest.approx(losses["32-true"], rel=0.01)
    for nll in losses.values():
        assert nll[-1] < 0.97 * nll[0]


# Checkpoints.


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"controller_options": TINY | {"join": "mlp", "readout": "read"}, "seed": 3, "learning_rate": 0.1},
        {"attention": "reinforce"},
        {
            "attention": "reinforce",
            "reinforce": ReinforceOptions(0.5, "leave_one_out", rollouts=2, normalize=False),
        },
        {"attention": "soft"},
        {"engine": "reference"},
    ],
    ids=["defaults", "controller", "reinforce", "reinforce-options", "soft", "engine"],
)
def test_a_checkpoint_is_plain_data_and_rebuilds_the_module(tmp_path, options):
    module = make_module(**options)
    path = tmp_path / "model.ckpt"
    train(module).trainer.save_checkpoint(path)

    checkpoint = torch.load(path, weights_only=True)
    assert json.loads(json.dumps(checkpoint["hyper_parameters"])) == checkpoint["hyper_parameters"]
    again = HAMModule.load_from_checkpoint(path, weights_only=True)
    assert again.hparams == module.hparams
    assert again.reinforce == module.reinforce
    assert same_weights(again, module)
    batch = get_task("sort").sample(4, (1, 4), generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(batch), module(batch))
    # Its training, too, is the same.
    assert train(again).epochs("loss") == train(module).epochs("loss")


def test_a_resumed_training_ends_at_the_same_weights(tmp_path):
    def parts():
        return make_module(attention="reinforce"), make_data(batches_per_epoch=2)

    whole, data = parts()
    train(whole, data, max_epochs=4)

    class SaveAfterTwo(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    make_trainer(SaveAfterTwo(), max_epochs=4).fit(*parts())
    resumed, data = parts()
    trainer = make_trainer(max_epochs=4)
    trainer.fit(resumed, data, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert trainer.global_step == 8
    assert same_weights(resumed, whole)


@pytest.mark.parametrize("precisions", [("32-true", "bf16-mixed"), ("bf16-mixed", "32-true")])
def test_a_training_that_clips_gradients_resumes_in_another_precision(tmp_path, precisions):
    first, second = (
        make_trainer(max_epochs=n, precision=p, gradient_clip_val=0.5) for n, p in enumerate(precisions, 1)
    )
    first.fit(make_module(), make_data())
    first.save_checkpoint(tmp_path / "first.ckpt")
    module = make_module()
    second.fit(module, make_data(), ckpt_path=tmp_path / "first.ckpt", weights_only=True)
    assert second.global_step == 2 * first.global_step
    assert all(parameter.isfinite().all() for parameter in module.parameters())


# What is logged.

ERRORS = {"sequence_error", "symbol_error", "bit_error"}
TRAINED = {"nll", "entropy", "entropy_bonus", "loss", "gradient_norm", *ERRORS}


def expected_names(attention: str) -> set[str]:
    trained = TRAINED | ({"policy", "baseline"} if attention == "reinforce" else set())
    validated = {f"val/{name}/{error}" for name in ("current", "1-4", "5-8") for error in ERRORS}
    return {f"train/{name}" for name in trained} | validated | {"val/score"}


def without_buckets(names) -> set[str]:
    return {name for name in names if not re.search(r"sequence_error/\d+-\d+$", name)}


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_logged_names(attention):
    trainer = train(make_module(attention=attention)).trainer
    assert without_buckets(trainer.callback_metrics) == expected_names(attention)
    by_length = {f"val/5-8/sequence_error/{lengths}" for lengths in ("5-8",)}
    by_length |= {f"val/1-4/sequence_error/{lengths}" for lengths in ("1-2", "3-4")}
    assert by_length <= trainer.callback_metrics.keys()


def test_score_counts_the_doublings_ahead():
    trainer = train(make_module(), make_data(capacity=16)).trainer
    errors = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert "val/1-4/sequence_error" not in errors  # the sets wait for the end of the curriculum
    assert errors["val/score"] == pytest.approx(errors["val/current/sequence_error"] + 2)


def test_score_is_the_mean_error_once_none_is_ahead():
    trainer = train(make_module(), make_data(validation_episodes=50)).trainer
    errors = {name: float(value) for name, value in trainer.callback_metrics.items()}
    names = [f"val/{name}/sequence_error" for name in ("current", "1-4", "5-8")]
    assert errors["val/score"] == pytest.approx(sum(errors[name] for name in names) / 3)


def test_logged_errors_are_those_of_the_whole_set():
    """Counted again, without batches, from the same episodes."""
    module, data = make_module(), make_data(validation_episodes=21)
    trainer = train(module, data).trainer
    for name, loader in zip(("current", "1-4", "5-8"), data.val_dataloader(), strict=True):
        wrong = [
            bool((((module(batch) > 0) != (batch.targets > 0.5)) & batch.scored)[row].any())
            for batch in loader
            for row in range(len(batch.lengths))
        ]
        assert len(wrong) == 21
        assert float(trainer.callback_metrics[f"val/{name}/sequence_error"]) == pytest.approx(sum(wrong) / 21)


def test_gradient_norm_is_logged_before_clipping():
    clipped, free = (train(make_module(), gradient_clip_val=clip).epochs("gradient_norm") for clip in (1e-6, None))
    assert clipped[0] == free[0]
    assert min(clipped) > 1e-3
    assert all(map(math.isfinite, clipped))


SCRIPT = """
import json, sys
from pathlib import Path
import torch
from pytorch_lightning import Trainer
from lightning_ham.training import EpisodeCounter, HAMModule, LengthCurriculum, TaskDataModule

devices, folder = int(sys.argv[1]), Path(sys.argv[2])
options = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
strategy = "ddp" if devices > 1 else "auto"
results = {}
for episodes in (30, 3):  # eight batches, and one
    torch.manual_seed(0)
    module = HAMModule("sort", controller_options={"controller_size": 4, "leaf_size": 4})
    data = TaskDataModule(
        "sort", batch_size=4, batches_per_epoch=3, capacity=4, start_capacity=1, smaller_fraction=0.5,
        validation_episodes=episodes, validation_lengths=[(1, 4), (5, 8)],
    )
    counter = EpisodeCounter()
    trainer = Trainer(
        accelerator="cpu", devices=devices, strategy=strategy, max_epochs=4, num_sanity_val_steps=0,
        callbacks=[LengthCurriculum(threshold=1.0), counter], **options,
    )
    data.capacity = data.final_capacity
    trainer.validate(module, data, verbose=False)
    before = {name: float(value) for name, value in trainer.callback_metrics.items()}
    data.capacity = 1
    trainer.fit(module, data)
    results[episodes] = {
        "before": before,
        "after": {name: float(value) for name, value in trainer.callback_metrics.items()},
        "weights": {name: value.tolist() for name, value in module.state_dict().items()},
        "capacity": data.capacity,
        "episodes": counter.episodes,
    }

class RightOnOne(HAMModule):
    def forward(self, episodes):
        return (2 * episodes.targets - 1) * (1 if self.global_rank == 0 else -1)

# Two batches, one on each process: half of all is wrong, and all of one process, which must not stay behind.
module = RightOnOne("sort", controller_options={"controller_size": 4, "leaf_size": 4})
data = TaskDataModule(
    "sort", batch_size=4, batches_per_epoch=1, capacity=8, validation_episodes=8, validation_lengths=[(1, 8)]
)
trainer = Trainer(
    accelerator="cpu", devices=devices, strategy=strategy, max_epochs=2, num_sanity_val_steps=0,
    callbacks=[LengthCurriculum(threshold=0.9)], **options,
)
trainer.fit(module, data)
results["half"] = [float(trainer.callback_metrics["val/current/sequence_error"]), data.capacity]
(folder / f"{devices}-{trainer.global_rank}.json").write_text(json.dumps(results))
"""


@pytest.mark.slow
def test_two_processes_are_reduced_to_the_errors_of_one(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    results = {}
    for devices in (1, 2):
        command = [sys.executable, script, str(devices), tmp_path]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        results[devices] = [json.loads((tmp_path / f"{devices}-{rank}.json").read_text()) for rank in range(devices)]
    (alone,), (first, second) = results[1], results[2]
    assert first.pop("half") == second.pop("half") == [0.5, 8]
    assert alone.pop("half") == [0.0, 8]
    for episodes in ("30", "3"):
        assert first[episodes]["before"] == second[episodes]["before"] == alone[episodes]["before"]
        assert alone[episodes]["before"].keys() >= {"val/current/sequence_error", "val/5-8/sequence_error"}
        assert first[episodes]["weights"] == second[episodes]["weights"]
        for name in ("val/score", "val/current/symbol_error", "train/symbol_error"):
            assert first[episodes]["after"][name] == second[episodes]["after"][name]
        assert without_buckets(first[episodes]["after"]) == without_buckets(alone[episodes]["after"])
        assert first[episodes]["capacity"] == second[episodes]["capacity"] == alone[episodes]["capacity"]
        assert (alone[episodes]["episodes"], first[episodes]["episodes"]) == (4 * 3 * 4, 2 * 4 * 3 * 4)
