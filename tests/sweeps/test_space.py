"""The space of a sweep: its forms, and what wrong ones are told."""

import datetime

import pytest
import yaml

from lightning_ham.runs.recipe.catalog import find_recipe
from lightning_ham.runs.recipe.cli import RecipeCLI
from lightning_ham.runs.recipe.space import Dimension, read_option, read_space
from lightning_ham.sweep import main, make_parser
from lightning_ham.sweeps import plan
from lightning_ham.sweeps.plan import make_plan, without_password

RATE = "model.schedule.learning_rate"


def of(text: str) -> Dimension:
    return read_option(text)[1]._replace(place="")


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (f"{RATE}=loguniform(1e-4, 1e-2)", Dimension(1e-4, 1e-2, log=True)),
        (f"{RATE}={{low: 1e-4, high: 1e-2, log: true}}", Dimension(1e-4, 1e-2, log=True)),
        (f"{RATE}=uniform(0, 1)", Dimension(0.0, 1.0)),
        ("data.batch_size=uniform(32, 128, 32)", Dimension(32, 128, step=32, is_integer=True)),
        ("data.batch_size={low: 32, high: 128, log: true}", Dimension(32, 128, log=True, is_integer=True)),
        ("model.controller_options.leaf_size=uniform(8, 16)", Dimension(8, 16, is_integer=True)),
        ("model.controller_options.join=choice(choice, mlp)", Dimension(choices=("choice", "mlp"))),
        ("model.supervision.until_error=choice(true, false)", Dimension(choices=(True, False))),
        ("model.reinforce={choices: [null, {rollouts: 2}]}", Dimension(choices=(None, "{rollouts: 2}"))),
    ],
)
def test_forms(option, expected):
    if option.startswith("model.reinforce="):
        with pytest.raises(ValueError, match="but got the whole section"):
            of(option)
        return
    found = of(option)
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


@pytest.mark.parametrize(
    ("section", "line", "message"),
    [
        (
            {"model.learning_rate": "uniform(1, 2)"},
            4,
            "is now 'model.schedule.learning_rate'",
        ),
        ({"model.schedule.rate": "uniform(1, 2)"}, 4, "Unknown key 'model.schedule.rate' in the recipe"),
        (
            {"weight_average": "uniform(0, 0.9)", RATE: "uniform(2, 1)"},
            5,
            "low to be below high, but got 2 and 1",
        ),
        ({"model": {"schedule": {"learning_rate": {"low": 1}}}}, 6, "Expected {low: 1e-4, high: 1e-2, log: true}, "),
        ({RATE: "loguniform(0, 1)"}, 4, "Expected low to be positive for a logarithmic scale, but got 0"),
        ({RATE: "normal(0, 1)"}, 4, "Expected loguniform(LOW, HIGH), uniform(LOW, HIGH), uniform(LOW, HIGH, STEP) or "),
        ({RATE: {"min": 1, "max": 2}}, 4, "Expected only low, high, log, step, choices, but got 'min'"),
        ({RATE: {"low": 1, "hihg": 2}}, 4, "but got 'hihg' (did you mean 'high'?)"),
        ({RATE: {"low": "a", "high": 2}}, 4, "Expected low to be a number, but got 'a'"),
        ({RATE: {"low": 1, "high": float("inf")}}, 4, "Expected high to be a finite number, but got inf"),
        ({RATE: {"low": 1, "high": 2, "log": True, "step": 1}}, 4, "Expected step or log, but got both"),
        ({RATE: {"low": 1, "high": 2, "log": "yes"}}, 4, "Expected log to be true or false, but got 'yes'"),
        ({RATE: {"choices": []}}, 4, "Expected choices to be a list of 1 to 1000 values, but got []"),
        ({RATE: {"choices": [1, 1]}}, 4, "Expected every choice once, but got [1, 1]"),
        ({RATE: {"choices": [1, 2], "low": 1}}, 4, "Expected choices alone, but got low beside them"),
        (
            {RATE: 3},
            4,
            "{low: 1e-4, high: 1e-2, log: true}, {low: 32, high: 128, step: 32} or {choices: [a, b]}",
        ),
        ({"data.batch_size": "uniform(1.5, 2)"}, 4, "Expected whole numbers, as the key takes, but got {"),
        (
            {"data.batch_size": "uniform(8, 64, 10)"},
            4,
            "divide the range from 8 to 64, but got 10; high may be 58",
        ),
        ({"model.attention": "uniform(8, 64)"}, 4, "Expected {choices: [reinforce, straight_through, "),
        (
            {"model.supervision.until_error": "uniform(0, 1)"},
            4,
            "{choices: [true, false]}, as it is no number",
        ),
        ({"data.capacity": "choice(8, 16)"}, 4, "Expected another key, as trials are compared by it"),
        ({"seed_everything": "choice(8, 16)"}, 4, "use --seeds"),
        ({"wandb.project": "choice(a, b)"}, 4, "Expected another key, as it does not change what is learned"),
        (
            {"model.schedule": "choice(8, 16)"},
            4,
            "(model.schedule.final_learning_rate, model.schedule.learning_rate)",
        ),
        ({"print_config": "choice(8, 16)"}, 4, "Expected a key of the recipe, but got 'print_config'"),
        (["model.attention"], 3, "Expected section 'sweep' to hold keys of the recipe, each with {low: 1e-4"),
    ],
)
def test_a_wrong_space_names_the_line_and_what_is_allowed_also_in_a_training(section, line, message, tmp_path):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(f"# A comment\ntask: reverse\n{yaml.safe_dump({'sweep': section}, sort_keys=False)}")
    for read in (lambda: read_space(section, recipe), lambda: RecipeCLI(recipe, [])):
        with pytest.raises(ValueError) as raised:  # noqa: PT011
            read()
        assert str(raised.value).startswith(f"{recipe}, line {line}: ")
        assert message in str(raised.value)


def test_a_recipe_with_a_space_trains_as_without(recipe, tmp_path):
    content = yaml.safe_load(recipe.read_text())
    del content["sweep"]
    (tmp_path / "without.yaml").write_text(yaml.safe_dump(content))
    assert RecipeCLI(recipe, []).resolved() == RecipeCLI(tmp_path / "without.yaml", []).resolved()


@pytest.fixture
def unchecked(recipe, monkeypatch):
    """Leaves out trying the values on the recipe, which takes a second."""
    built = RecipeCLI(recipe, [])
    monkeypatch.setattr(plan, "_checked", lambda recipe, overrides, space: built)


def plan_of(*words: str):
    return make_plan(make_parser().parse(words), (), words)


@pytest.mark.parametrize(
    ("values", "place", "message"),
    [
        (
            None,
            "tiny.yaml, line ",
            "in the space of 'data.smaller_fraction': Expected values that the recipe",
        ),
        (
            "data.smaller_fraction=choice(0.1, 3)",
            "--space: ",
            "got 3: Expected key 'data.smaller_fraction' to be between",
        ),
        (
            "model.attention=choice(soft, hard)",
            "--space: ",
            "got 'hard': Expected key 'model.attention' to be one",
        ),
    ],
)
def test_values_that_the_recipe_refuses_are_found_before_anything_is_trained(recipe, values, place, message):
    if values is None:
        recipe.write_text(f"{recipe.read_text()}  data.smaller_fraction: {{low: 0, high: 2}}\n")
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        plan_of(str(recipe), *(["--space", values] if values else []))
    assert place in str(raised.value)
    assert message in str(raised.value)
    assert not list(recipe.parent.glob("runs"))


def test_the_command_line_wins_over_the_recipe(recipe, unchecked):
    found = plan_of(str(recipe), "--space", f"{RATE}=uniform(0.1, 0.2)", "--seeds=3", "--budget=90s", "--name=mine")
    assert found.space == {RATE: Dimension(0.1, 0.2, place="--space")}
    assert (found.seeds, found.budget) == ((1, 2, 3), datetime.timedelta(seconds=90))
    assert (found.goal.capacity, found.goal.bar, found.goal.patience) == (2, {"1-2": 0.0}, 1)
    assert found.storage.endswith("/runs/mine/study.db")


def test_a_recipe_without_a_space_gets_the_usual_one(recipe, caplog, unchecked):
    content = yaml.safe_load(recipe.read_text())
    del content["sweep"]
    recipe.write_text(yaml.safe_dump(content))
    caplog.set_level("INFO", "lightning_ham")
    assert set(plan_of(str(recipe)).space) == {RATE, "model.exploration.entropy_bonus", "data.batch_size"}
    assert "has no section 'sweep', so the usual space is searched" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--name=a/b"], "Expected a --name of letters, digits"),
        (["--run_dir=a{b}"], "Expected a folder without"),
        (["--space", "nothing"], "Expected KEY=VALUES"),
    ],
)
def test_wrong_options(recipe, words, message):
    with pytest.raises(ValueError, match=message):
        plan_of(str(recipe), *words)


def test_no_password_is_shown(recipe, unchecked):
    url = "postgresql+psycopg://ada:secret@localhost/sweeps"
    found = plan_of(str(recipe), f"--storage={url}")
    assert found.storage == url
    assert "secret" not in " ".join(found.words)
    assert without_password("nonsense") == "nonsense"


def test_the_usual_space_suits_a_shipped_recipe():
    plan._checked(find_recipe("reverse"), [], dict(map(read_option, plan.USUAL_SPACE)))


def test_without_optuna_it_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        main(["reverse"])
    assert ended.value.code == 2
    assert "Expected Optuna, which is not installed; install it with: pip install 'lightning-ham[sweep]'" in (
        capsys.readouterr().err
    )
