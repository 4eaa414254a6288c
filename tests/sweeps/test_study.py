"""What is kept in Optuna's storage: settings, values, and trials whose process has died."""

import datetime
from pathlib import Path

import optuna
import pytest

from lightning_ham.runs.recipe.space import read_option
from lightning_ham.sweeps.objective import Goal
from lightning_ham.sweeps.plan import Plan, Search, keep_recipe
from lightning_ham.sweeps.study import STARTED, draw, fail_abandoned, latest, make_sampler, open_storage, open_study
from lightning_ham.sweeps.trials import _NOT_FINITE
from lightning_ham.training import EndIfNotFinite, HAMModule

SEARCH = Search("random", seed=0, pruner="none", startup=5, warmup=10)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "mine.yaml").write_text("task: reverse\n")
    return Plan(
        name="mine",
        folder=tmp_path / "here",
        storage=f"sqlite:///{tmp_path}/here/study.db",
        recipe=tmp_path / "here" / "recipe" / "mine.yaml",
        source=tmp_path / "mine.yaml",
        content={"task": "reverse"},
        overrides=(),
        space=dict([read_option("model.schedule.learning_rate=loguniform(1e-4, 1e-2)")]),
        seeds=(1,),
        search=SEARCH,
        goal=Goal(2, {}, 1),
        trials=3,
        jobs=1,
        threads=1,
        budget=None,
        grace=60,
        words=(),
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"content": {"task": "reverse", "threads": 2}}, "threads was None, and is 2"),
        ({"content": {"task": "reverse", "data": {"batch_size": 8}}}, "data was None, and is {'batch_size': 8}"),
        ({"seeds": (1, 2)}, r"seeds was \[1\], and is \[1, 2\]"),
        ({"budget": datetime.timedelta(seconds=90)}, "budget was None, and is 90.0"),
        ({"overrides": ("--data.batch_size=9",)}, r"overrides was \[\], and is \['--data.batch_size=9'\]"),
        (
            {"space": dict([read_option("model.schedule.learning_rate=loguniform(1e-4, 2e-2)")])},
            "space.model.schedule.learning_rate.high was 0.01, and is 0.02",
        ),
    ],
)
def test_a_sweep_goes_on_only_with_its_own_settings(plan, changes, message):
    storage = open_storage(plan)
    open_study(plan, storage)
    open_study(plan._replace(trials=9, jobs=4, threads=2), storage)  # which may change
    with pytest.raises(ValueError, match=f"Expected the settings with which the sweep 'mine' began, .*: {message}"):
        open_study(plan._replace(**changes), storage)
    open_study(plan._replace(name="another", **changes), storage)


def test_a_folder_of_another_recipe_is_refused(plan):
    keep_recipe(plan)
    assert plan.recipe.read_text() == "task: reverse\n"
    plan.source.write_text("task: sort\n")
    with pytest.raises(ValueError, match=r"Expected a folder of this sweep, but .* is another recipe than"):
        keep_recipe(plan._replace(content={"task": "sort"}))
    assert plan.recipe.read_text() == "task: reverse\n"


def drawn(plan, study, number):
    trial = study.ask()
    trial.study.sampler = make_sampler(plan.search, number)
    return draw(trial, plan.space)["model.schedule.learning_rate"]


def test_random_values_depend_on_the_number_of_the_trial_alone(plan):
    first = [drawn(plan, optuna.create_study(), number) for number in (0, 1, 2)]
    assert [drawn(plan, optuna.create_study(), number) for number in (2, 1, 0)] == first[::-1]
    assert len(set(first)) == 3
    other = plan._replace(search=SEARCH._replace(seed=1))
    assert drawn(other, optuna.create_study(), 0) != first[0]


def test_a_trial_whose_process_died_before_its_first_sign_of_life_is_retried(plan):
    storage = open_storage(plan)
    study = open_study(plan, storage)
    params = {"model.schedule.learning_rate": 1e-3}
    study.enqueue_trial(params)
    taken, nothing, running = study.ask(), study.ask(), study.ask()
    draw(taken, plan.space)
    running.set_user_attr(STARTED, running.number)
    fail_abandoned(study, grace=60)
    assert [trial.state.name for trial in study.trials] == ["RUNNING"] * 3
    fail_abandoned(study, grace=0)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL", "RUNNING", "WAITING"]
    assert study.trials[3].params == params
    assert {number: trial.number for number, trial in latest(study.trials).items()} == {0: 3, 2: 2}
    assert nothing.number == 1


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nonsense", "Could not parse SQLAlchemy URL"),
        ("sqlite:////nowhere/study.db", "unable to open database file"),
        ("postgresql+psycopg://ada:secret@127.0.0.1:9/x", "connection failed"),
        ("oracle://ada:secret@127.0.0.1:9/x", "Failed to import DB access module.*install its driver"),
    ],
)
def test_a_storage_that_cannot_be_used_is_told_without_its_password(plan, url, reason):
    with pytest.raises(ValueError, match=f"Expected a storage that can be used, .*{reason}") as raised:
        open_storage(plan._replace(storage=url))
    assert "secret" not in str(raised.value)
    assert not plan.folder.exists()


def test_the_error_of_broken_weights_begins_as_sweeps_know_it():
    class Trainer:
        global_step = current_epoch = 3

    module = HAMModule("reverse", controller_options={"controller_size": 4, "leaf_size": 4})
    next(module.parameters()).data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=f"^{_NOT_FINITE}"):
        EndIfNotFinite().on_train_batch_end(Trainer(), module, None, None, 0)
