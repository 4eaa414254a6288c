"""Settings that cannot work: one line that names the key, status 2, and nothing written. What passes, trains."""

import copy
import dataclasses
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from lightning_ham.runs.recipe.catalog import find_recipe, recipe_names
from lightning_ham.runs.recipe.cli import RecipeCLI
from lightning_ham.runs.recipe.trainer_options import LEFT_OUT
from lightning_ham.training.former_options import MOVED, REMOVED

# Runs `fit` up to the moment at which a training would begin, in one process for all, with one parser for all: that
# takes a twentieth of a second.
PROBE = """
import contextlib, io, json, os, shutil, sys, tempfile, traceback
from lightning_ham import fit
from lightning_ham.runs import train
from lightning_ham.runs.recipe.cli import RecipeCLI

class Begins(BaseException):
    pass

def begin(*arguments):
    raise Begins

train._start = begin
set_up, parsers = RecipeCLI.setup_parser, []

def setup_parser(cli, *arguments):
    if not parsers:
        set_up(cli, *arguments)
        parsers.append(cli.parser)
    cli.parser = parsers[0]

RecipeCLI.setup_parser = setup_parser
environment = dict(os.environ)
for line in sys.stdin:
    job, stdout, stderr = json.loads(line), io.StringIO(), io.StringIO()
    os.environ.clear()
    os.environ.update(environment | job["environment"])
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    with open("mine.yaml", "wb") as file:
        file.write(bytes.fromhex(job["recipe"]))
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            status = fit.main(["mine.yaml", *job["arguments"]])
        except Begins:
            status = 0
        except SystemExit as end:
            status = end.code
        except BaseException:
            status = 1
            traceback.print_exc()
    left = [] if status == 0 else sorted(set(os.listdir()) - {"mine.yaml"})
    os.chdir("/")
    shutil.rmtree(folder)
    print(json.dumps({"status": status, "stdout": stdout.getvalue(), "stderr": stderr.getvalue(), "left": left}))
    sys.stdout.flush()
"""


@dataclasses.dataclass
class Outcome:
    """How far a run came."""

    status: int
    """0 if its training would have begun."""
    stdout: str
    stderr: str
    left: list[str]
    """What it wrote before it ended."""

    def is_told(self) -> bool:
        """Whether it begins, or is refused in one line that a terminal can show, with nothing written."""
        if self.status == 0:
            return True
        line = self.stderr.removesuffix("\n")
        quiet = self.stdout == "" and self.left == []
        return self.status == 2 and quiet and line.startswith("error: ") and line.isprintable() and len(line) < 900


class Probe:
    """Runs ``fit`` on recipes, up to where the training would begin."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __call__(self, recipe: dict[str, Any] | str | bytes, *arguments: str, **environment: str) -> Outcome:
        text = yaml.safe_dump(recipe) if isinstance(recipe, dict) else recipe
        content = text.encode() if isinstance(text, str) else text
        job = {"recipe": content.hex(), "arguments": arguments, "environment": environment}
        print(json.dumps(job), file=self.process.stdin, flush=True)
        return Outcome(**json.loads(self.process.stdout.readline()))


@pytest.fixture(scope="module")
def probe(environment) -> Iterator[Probe]:
    command = [sys.executable, "-c", PROBE]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Probe(process)
        process.stdin.close()


@pytest.fixture(scope="module")
def tiny(tiny_recipe) -> dict[str, Any]:
    """A recipe that trains in a second."""
    return yaml.safe_load(tiny_recipe.read_text())


def with_key(recipe: dict[str, Any], key: str, value: str) -> str:
    """A recipe as text in which a key has a value as YAML."""
    recipe = copy.deepcopy(recipe)
    section = recipe
    *sections, name = key.split(".")
    for part in sections:
        section = section.setdefault(part, {})
    section[name] = "THE VALUE"
    if key.startswith("model.reinforce."):
        recipe["model"]["attention"] = "reinforce"
    return yaml.safe_dump(recipe, sort_keys=False).replace("THE VALUE", value)


# Sections and keys without a value.


@pytest.fixture(scope="module")
def defaults(tmp_path_factory) -> str:
    """The recipe of a task and nothing else, with all keys."""
    recipe = tmp_path_factory.mktemp("defaults") / "recipe.yaml"
    recipe.write_text("task: search\n")
    return RecipeCLI(recipe, []).resolved()


SECTIONS = ("model", "data", "curriculum", "stop", "wandb", "evaluation", "hub", "trainer")


@pytest.mark.parametrize(
    "written",
    [
        *(f"{section}:\n" for section in SECTIONS),
        *(f"{section}: {{}}\n" for section in SECTIONS),
        "data:\n  # a comment\n",
        "data: null\n",
    ],
)
def test_an_empty_section_is_its_defaults(tmp_path, defaults, written):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"task: search\n{written}")
    assert RecipeCLI(recipe, []).resolved() == defaults


@pytest.mark.parametrize(
    "key", ["model.reinforce", "model.controller_options", "stop.errors", "hub.repo_id", "run_dir"]
)
def test_null_is_a_value_where_it_has_a_meaning(probe, tiny, key):
    assert probe(with_key(tiny, key, "null")).status == 0


# Named cases.

NUMBERS = {
    "model.schedule.learning_rate": "positive",
    "model.schedule.final_learning_rate": "above 0 and at most 1",
    "model.exploration.entropy_bonus": "at least 0",
    "model.exploration.final_entropy_bonus": "above 0 and at most 1",
    "model.exploration.branch_prior": "above 0 and below 1",
    "model.exploration.final_noise": "above 0 and at most 1",
    "model.exploration.noise_per_doubling": "above 0 and at most 1",
    "model.query_share": "between 0 and 1",
    "model.supervision.hint_weight": "at least 0",
    "model.exploration.cell_noise": "at least 0",
    "model.supervision.guided_fraction": "between 0 and 1",
    "model.reinforce.discount": "between 0 and 1",
    "data.smaller_fraction": "between 0 and 1",
    "data.hard_fraction": "between 0 and 1",
    "curriculum.threshold": "above 0 and at most 1",
    "weight_average": "at least 0 and below 1",
    "trainer.gradient_clip_val": "at least 0",
}


@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_that_is_none_or_out_of_bounds_is_refused_by_its_key(probe, tiny, key):
    for value, expected, got in (
        (".nan", "a finite number", "nan"),
        (".inf", "a finite number", "inf"),
        ("-.inf", "a finite number", "-inf"),
        ("-1", NUMBERS[key], "-1"),
    ):
        outcome = probe(with_key(tiny, key, value))
        assert outcome.is_told()
        assert outcome.status == 2
        assert outcome.stderr.startswith(f"error: Expected key '{key}' to be {expected}")
        assert f", but got {got}" in outcome.stderr
    outcome = probe(with_key(tiny, key, "true"))
    assert outcome.is_told()
    assert outcome.stderr.startswith(f"error: Expected key '{key}' to be ")
    assert outcome.stderr.endswith("but got true.\n")


UNTIL_1 = "to be a whole number of batches, or a share of them above 0 and up to 1.0"
TIME = "to be a time above 0 as DD:HH:MM:SS, or as a mapping such as {hours: 1}"
PRECISION = "to be one of ('32-true', 'bf16-mixed', '16-mixed')"

REFUSED = [
    ("threads", "null", "to be an integer, but got null."),
    ("task", "null", "to be a string, but got null."),
    ("model.controller", "null", "to be a string, but got null."),
    ("model.supervision.until_error", "null", "to be true or false, but got null."),
    ("data.batch_size", "null", "to be an integer, but got null."),
    ("evaluation.seed", "null", "to be an integer, but got null."),
    ("trainer.accumulate_grad_batches", "null", "to be an integer, but"),
    ("trainer.detect_anomaly", "null", "to be true or false, but got null."),
    ("model.reinforce.discount", "null", "to be a number, but got null."),
    (
        "model.controller_options.leaf_size",
        "null",
        "Expected key 'model.controller_options.leaf_size' to be an integer",
    ),
    ("seed_everything", "null", "to be an integer, but got null."),
    ("seed_everything", "-1", "to be at least 0, but got -1."),
    ("seed_everything", "true", "to be an integer, but got true."),
    (
        "seed_everything",
        "4294967296",
        "Expected key 'seed_everything' to be at most 4,294,967,295, but got 4294967296.",
    ),
    ("wandb.project", ".nan", "to be a string, but got 'nan'."),
    ("stop.errors", "{2-8: .nan}", "Expected key 'stop.errors.2-8' to be a finite number, but got nan."),
    ("stop.errors", "{2-8: -1}", "Expected key 'stop.errors.2-8' to be between 0 and 1, but got -1.0."),
    ("stop.patience", "0", "to be at least 1, but got 0."),
    ("data.capacity", "12", "to be a power of two, but got 12."),
    (
        "data.capacity",
        "1125899906842624",
        "Expected key 'data.capacity' to be at most 1,048,576, but got 11258999068426",
    ),
    (
        "data.batch_size",
        "100000000000000000000",
        "Expected key 'data.batch_size' to be at most 1,048,576, but got 1000",
    ),
    (
        "data.batches_per_epoch",
        "100000000000000000000",
        "Expected key 'data.batches_per_epoch' to be at most 2,147,483",
    ),
    ("data.num_workers", "100000", "to be at most 1,024, but got 100000."),
    ("data.validation_lengths", "[[2, 1000000000]]", "to hold lengths of at m"),
    (
        "model.reinforce.rollouts",
        "100000000000000000000",
        "Expected key 'model.reinforce.rollouts' to be at most 1,048",
    ),
    (
        "model.controller_options.temperature",
        "0.5",
        "Option 'temperature' of controller 'lstm_ham' is gone: expected",
    ),
    (
        "model.controller_options.real_inputs",
        "1000",
        "Expected key 'model.controller_options.real_inputs' to be betwee",
    ),
    ("evaluation.episodes", "100000000000000000000", "to be at most 2,147,483,647,"),
    ("threads", "100000000000", "to be at most 1,024, but got 100000000000."),
    ("trainer.max_epochs", "0", "to be at least 1, or -1 for no limit, but got 0."),
    ("trainer.max_steps", "0", "to be at least 1, or -1 for no limit, but got 0."),
    ("trainer.max_steps", "-2", "to be at least 1, or -1 for no limit, but got -2."),
    ("trainer.min_epochs", "-1", "to be at least 0, but got -1."),
    ("trainer.limit_train_batches", "0", f"{UNTIL_1}, but got 0."),
    ("trainer.limit_train_batches", "0.0", f"{UNTIL_1}, but got 0.0."),
    (
        "trainer.limit_train_batches",
        "0.01",
        "Expected key 'trainer.limit_train_batches' to leave one of 4 batches, but",
    ),
    ("trainer.limit_train_batches", "1.5", f"{UNTIL_1}, but got 1.5."),
    ("trainer.limit_train_batches", "-1", f"{UNTIL_1}, but got -1."),
    (
        "trainer.limit_val_batches",
        "0.01",
        "Expected key 'trainer.limit_val_batches' to leave one of 6 batches, but got",
    ),
    (
        "trainer.limit_val_batches",
        ".nan",
        "Expected key 'trainer.limit_val_batches' to be a finite number, but got nan.",
    ),
    ("trainer.check_val_every_n_epoch", "0", "to be at least 1, but"),
    ("trainer.val_check_interval", "100", "to be at most the batches of an"),
    ("trainer.val_check_interval", "0", f"{UNTIL_1}, but got 0."),
    ("trainer.val_check_interval", "{a: 1}", f"{TIME}, but got {{'a': 1}}."),
    ("trainer.max_time", "00:00:00:00", f"{TIME}, but got '00:00:00:00'."),
    ("trainer.max_time", "soon", f"{TIME}, but got 'soon'."),
    ("trainer.max_time", "{second: 1}", f"{TIME}, but got {{'second': 1}}."),
    ("trainer.accumulate_grad_batches", "0", "to be at least 1, but"),
    (
        "trainer.num_sanity_val_steps",
        "-2",
        "Expected key 'trainer.num_sanity_val_steps' to be at least -1, but got -2.",
    ),
    ("trainer.log_every_n_steps", "-1", "to be at least 0, but got -1."),
    ("trainer.reload_dataloaders_every_n_epochs", "-1", "to be at least 0, but got -1."),
    (
        "trainer.precision",
        "64-true",
        f"Expected key 'trainer.precision' {PRECISION}, but got '64-true': the nodes of a",
    ),
    ("trainer.precision", "bf16-true", f"{PRECISION}, but got 'bf16-true': the nodes"),
    (
        "trainer.precision",
        "16-true",
        f"Expected key 'trainer.precision' {PRECISION}, but got '16-true': the nodes of a",
    ),
    (
        "trainer.plugins",
        "pytorch_lightning.plugins.DoublePrecision",
        f"Expected key 'trainer.precision' {PRECISION}, but",
    ),
    (
        "trainer.devices",
        "-1",
        "Expected options of 'trainer' that Lightning takes, but got: 'trainer.devices'",
    ),
    ("trainer.devices", "100000", "to be at most 1,024, but got 100000."),
    ("trainer.devices", "100", "Expected key 'data.validation_episodes' to be at least the number of processes ("),
    ("trainer.num_nodes", "0", "to be at least 1, but got 0."),
    ("trainer.strategy", "single_xla", "Expected options of 'trainer' that Lightning takes, but got: "),
    ("trainer.profiler", "xla", "to be another than 'xla', as torch_xla is not"),
    ("trainer.gradient_clip_algorithm", "sharp", "'trainer.gradient_clip_algorithm' sharp is invalid."),
    ("trainer.callbacks", "[1]", "to be a mapping or null, but got '1'."),
    (
        "trainer.callbacks",
        "{class_path: ModelCheckpoint, init_args: {every_n_epochs: -1}}",
        "Invalid value for every_n_ep",
    ),
    (
        "trainer.callbacks",
        "lightning_ham.training.MovingAverage",
        "Found more than one stateful callback of type `MovingAverage`",
    ),
    ("wandb.project", "a/b", "Key 'wandb.project': Invalid project name 'a/b': cannot contain characters"),
    ("wandb.project", "''", "to be a name, but got ''."),
    ("wandb.entity", "a/b", "to be the name of a team or user, but got 'a/b'."),
    ("model.engine", "fused\n  attention: soft", "The engine 'fused' cannot run this: "),
]


@pytest.mark.parametrize(("key", "value", "expected"), REFUSED, ids=[f"{key}={value}" for key, value, _ in REFUSED])
def test_refused_before_anything_is_written(probe, tiny, key, value, expected):
    outcome = probe(with_key(tiny, key, value))
    assert outcome.is_told(), outcome
    assert outcome.status == 2
    told = f"Expected key '{key}' {expected}" if expected.startswith("to ") else expected
    assert outcome.stderr.startswith(f"error: {told}")


def test_a_controller_that_cannot_do_the_task_is_refused(probe):
    outcome = probe("task: sort\nmodel: {controller: raw_ham}\n")
    assert outcome.is_told()
    assert outcome.stderr.startswith(
        "error: Expected at most as many timesteps as cells (1), but got 2: raw_ham carries"
    )


@pytest.mark.parametrize("name", LEFT_OUT)
def test_an_option_of_lightning_that_is_none_of_recipes_says_why_and_what_there_is_instead(probe, tiny, name):
    expected = f"error: Key 'trainer.{name}' cannot be set in a recipe: "
    for outcome in (
        probe(tiny, f"--trainer.{name}", "1"),
        probe(tiny, f"--{name}=1"),
        probe(with_key(tiny, f"trainer.{name}", "1")),
    ):
        assert outcome.is_told()
        assert outcome.stderr.startswith(expected)
        assert "; use " in outcome.stderr or "; leave it out." in outcome.stderr or "; for " in outcome.stderr


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("trainer.max_epoch", "did you mean 'trainer.max_epochs'?"),
        ("trainr.max_epochs", "did you mean 'trainer.max_epochs'?"),
        ("learning_rate", "did you mean 'model.schedule.learning_rate'?"),
        ("data.learning_rat", "did you mean 'model.schedule.learning_rate'?"),
        ("trainer.gpus", "see --help for those there are."),
    ],
)
def test_an_unknown_key_names_the_nearest_if_one_is_near(probe, tiny, key, hint):
    outcome = probe(tiny, f"--{key}=1")
    assert outcome.is_told()
    assert outcome.stderr == f"error: Unknown key {key!r} in the recipe or on the command line; {hint}\n"


# Keys from before.


@pytest.mark.parametrize("name", MOVED)
def test_a_key_that_has_another_name_now_is_told_by_it(probe, tiny, name):
    expected = f"error: Key 'model.{name}' is now 'model.{MOVED[name]}'.\n"
    for outcome in (probe(with_key(tiny, f"model.{name}", "1")), probe(tiny, f"--model.{name}", "1")):
        assert outcome.is_told()
        assert outcome.stderr == expected


@pytest.mark.parametrize("name", REMOVED)
def test_a_key_that_is_gone_says_what_holds_instead(probe, tiny, name):
    expected = f"error: Key 'model.{name}' is gone: {REMOVED[name]}.\n"
    for outcome in (probe(with_key(tiny, f"model.{name}", "1")), probe(tiny, f"--model.{name}", "1")):
        assert outcome.is_told()
        assert outcome.stderr == expected


@pytest.mark.parametrize("group", ["schedule", "exploration", "supervision"])
def test_a_group_of_options(probe, tiny, group):
    assert probe(with_key(tiny, f"model.{group}", "")).status == 0
    assert probe(with_key(tiny, f"model.{group}", "{}")).status == 0
    for value, got in (("3", "3"), ("[1]", "[1]")):
        outcome = probe(with_key(tiny, f"model.{group}", value))
        assert outcome.is_told()
        assert outcome.stderr == f"error: Expected key 'model.{group}' to hold keys of its own, but got {got}.\n"
    for value in ("null", "3", "[1]", "{nothing: 1}"):
        outcome = probe(tiny, f"--model.{group}", value)
        assert outcome.is_told()
        assert outcome.status == 2
        assert group in outcome.stderr or "nothing" in outcome.stderr


# What is no recipe.


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("hub:\n", "Expected key 'task' to be a string, but got null."),
        ("task: search\nmodel: {}\nmodel: {}\n", "mine.yaml: Expected every key once, but got 'model' twice."),
        (
            "task: search\nmodel: {controller_options: {leaf_size: 8, leaf_size: 9}}\n",
            "mine.yaml: Expected every key once, but got 'model.controller_options.leaf_size' twice.",
        ),
        ("task: search\ndata: &a {x: *a}\n", "mine.yaml: Expected a few levels, but got far deeper nesting."),
        ("{" * 5000, "mine.yaml: Expected a few levels, but got far deeper nesting."),
        ("task: !!binary aGVsbG8=\n", "mine.yaml: Expected plain values, but got 'binary' for 'task'."),
        ("task: !!python/name:os.system\n", "mine.yaml: Expected plain values, but got 'python/name:os.system' for"),
        ("? [1]\n: 2\n", "mine.yaml: Expected keys that are words, but got a list or a mapping in ''."),
        ("task: search\n---\ntask: sort\n", "Expected mine.yaml to be YAML, but got: expected a single document"),
        ("task: search\nthreads: " + "9" * 5000, "mine.yaml: Expected plain values, but got: Exceeds the limit"),
        ("task: search\nthreads: " + "9" * 3000, "Expected key 'threads' to be at most 1,024, but got 9999"),
        ("x" * 100_000, "Expected mine.yaml to hold keys and values, but got 'xxxx"),
        ("task: search\n#" + "x" * (1 << 20), "Expected a recipe of at most 1,048,576 bytes, but mine.yaml is larger."),
        ('task: "\\e[31m\\n"\n', "key 'task': Unknown task '\\x1b[31m\\n'. Known tasks: "),
        ('task: search\n"\\e[31m": 1\n', "Unknown key '\\x1b[31m' in the recipe or on the command line; see --help"),
    ],
    ids=lambda text: text[:24],
)
def test_what_is_no_recipe(probe, content, expected):
    outcome = probe(content)
    assert outcome.is_told(), outcome
    assert outcome.stderr.startswith(f"error: {expected}")


def test_aliases_that_multiply_cost_nothing(probe):
    levels = [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 30)]
    outcome = probe("\n".join(["a0: &a0 [x]", *levels]))
    assert outcome.stderr == "error: mine.yaml: Expected at most 10,000 values, but got more.\n"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1e-3", 0.001),
        (".5", 0.5),
        ("0.1", 0.1),
        ("1e30", 1e30),
    ],
)
def test_numbers_are_read_as_they_are_written(tmp_path, written, read):
    (tmp_path / "mine.yaml").write_text(
        f"\ufefftask: search\nmodel: {{schedule: {{learning_rate: {written}}}}}\n", encoding="utf-8"
    )
    assert RecipeCLI(tmp_path / "mine.yaml", []).model.schedule.learning_rate == read


@pytest.mark.parametrize("name", ["1e3", "null", "2026-01-01", "\U0001f600 \x7f", "true", "a: b", "'\"\\"])
def test_text_stays_text(tmp_path, name):
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump({"task": "search", "wandb": {"project": name}}, default_style='"')
    )
    assert RecipeCLI(tmp_path / "mine.yaml", []).config.wandb.project == name


@pytest.mark.parametrize("argument", ["--config=other.yaml", "--config", "-c"])
def test_one_recipe_is_enough(probe, tiny, argument):
    outcome = probe(tiny, argument, "other.yaml")
    assert outcome.is_told()
    assert outcome.stderr == f"error: Expected one recipe and options after it, but got {argument!r}.\n"


# Weights & Biases.


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (
            {"WANDB_MODE": "ofline"},
            "the variable WANDB_MODE to be online, offline or disabled, but got 'ofline'; did you ",
        ),
        ({"WANDB_MODE": "shared"}, "the variable WANDB_MODE to be online, offline or disabled, but got 'shared'."),
        (
            {"WANDB_MODE": "offline", "WANDB_INIT_TIMEOUT": "soon"},
            "the variable WANDB_INIT_TIMEOUT to be one that W&B takes, but got: Input should be a valid number",
        ),
        (
            {"WANDB_MODE": "offline", "WANDB_PROJECT": "a/b"},
            "the variable WANDB_PROJECT to be one that W&B takes, but got: Invalid project name 'a/b'",
        ),
    ],
    ids=str,
)
def test_wrong_variables_of_wandb(probe, tiny, variables, expected):
    outcome = probe(tiny, **variables)
    assert outcome.is_told(), outcome
    assert outcome.stderr.startswith(f"error: Expected {expected}")


def test_variables_of_wandb_do_not_matter_where_nothing_is_logged(probe, tiny):
    assert probe(tiny, WANDB_MODE="disabled", WANDB_INIT_TIMEOUT="soon").status == 0
    assert probe(tiny, "--wandb.mode", "disabled", WANDB_MODE="ofline").status == 0


# Options without effect.


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], {}),
        (["--model.exploration.final_noise", "0.5"], {}),
        (
            ["--model.exploration.final_noise", "0.5", "--model.query_share", "0.3", "--model.attention", "soft"],
            dict.fromkeys(
                ("exploration.final_noise", "query_share"), "only straight-through attentions use it, not 'soft'"
            ),
        ),
        (
            ["--model.query_share", "0.5", "--model.attention", "reinforce"],
            {"query_share": "only straight-through attentions use it, not 'reinforce'"},
        ),
        (
            ["--model.supervision.guided_fraction", "1", "--model.exploration.entropy_bonus", "0.2"],
            {"exploration.entropy_bonus": "all batches are guided"},
        ),
        (["--model.supervision.guided_fraction", "0.5", "--model.exploration.entropy_bonus", "0.2"], {}),
        (
            ["--model.exploration.entropy_bonus", "0", "--model.exploration.branch_prior", "0.2"],
            {"exploration.branch_prior": "the entropy bonus is 0"},
        ),
        (
            ["--task", "sort", "--model.supervision.hint_weight", "2"],
            {"supervision.hint_weight": "task 'sort' has no hints"},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_of_the_model_without_effect(tiny_recipe, arguments, told):
    unused = RecipeCLI(tiny_recipe, arguments).unused_keys()
    assert unused == {f"model.{name}": reason for name, reason in told.items()}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--stop.patience", "3"], {"stop.patience": "there is no bar to meet in 'stop.errors'"}),
        (["--hub.private", "true"], {"hub.private": "nothing is published"}),
        (["--data.start_capacity", "8"], {"curriculum.threshold": "training begins at the whole capacity"}),
        (
            ["--trainer.gradient_clip_val", "null", "--trainer.gradient_clip_algorithm", "value"],
            {"trainer.gradient_clip_algorithm": "no gradient is clipped"},
        ),
        (
            ["--trainer.limit_val_batches", "0", "--stop.errors", "{2-8: 0.1}"],
            {
                "stop.errors": "nothing is validated",
                "data.capacity": "nothing is validated, so that training stays at the capacity at which it begins",
            },
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_other_keys_without_effect(tiny_recipe, arguments, told):
    assert RecipeCLI(tiny_recipe, arguments).unused_keys() == told


def test_options_without_effect_are_told_once_as_the_training_begins(fit, tmp_path, tiny_recipe):
    options = ["--model.exploration.final_noise", "0.5", "--stop.patience", "3", "--trainer.max_epochs", "1"]
    done = fit(tmp_path, tiny_recipe, "--model.attention", "soft", *options)
    assert done.returncode == 0
    assert done.stderr.splitlines()[1] == (
        "Without effect: 'model.exploration.final_noise' (only straight-through attentions use it, not 'soft'); "
        "'stop.patience' (there is no bar to meet in 'stop.errors')."
    )
    assert done.stderr.count("Without effect") == 1


@pytest.mark.parametrize("name", recipe_names())
def test_no_shipped_recipe_has_options_without_effect(name):
    assert RecipeCLI(find_recipe(name), []).unused_keys() == {}


@pytest.mark.parametrize("name", ["merge", "reverse", "sort", "paper/sort"])
@pytest.mark.parametrize("controller", ["lstm", "lstm_attention"])
def test_a_shipped_recipe_with_a_comparison_model_begins(probe, name, controller):
    options = ["--model.controller", controller, "--model.controller_options", "{controller_size: 8}"]
    assert probe(find_recipe(name).read_text(), *options).status == 0


# What passes, trains.

TRAINS = [  # options that do not meet share a training
    ["--trainer.limit_val_batches", "0.5", "--trainer.gradient_clip_algorithm", "value"],
    ["--trainer.limit_val_batches", "1", "--trainer.detect_anomaly", "true"],
    ["--trainer.val_check_interval", "2", "--trainer.deterministic", "true"],
    ["--trainer.val_check_interval", "0.01"],
    ["--trainer.val_check_interval", "100", "--trainer.check_val_every_n_epoch", "null"],
    ["--trainer.val_check_interval", "{seconds: 1}", "--trainer.num_sanity_val_steps", "-1"],
    ["--trainer.check_val_every_n_epoch", "2", "--trainer.gradient_clip_val", "0"],
    ["--trainer.max_steps", "3", "--trainer.reload_dataloaders_every_n_epochs", "1"],
    ["--trainer.max_epochs", "-1", "--trainer.max_steps", "3", "--trainer.profiler", "simple"],
    ["--trainer.max_time", "00:00:00:02", "--trainer.max_epochs", "-1"],
    ["--trainer.accumulate_grad_batches", "100", "--trainer.log_every_n_steps", "0"],
    ["--trainer.precision", "bf16-mixed", "--data.validation_lengths", "[]"],
]


@pytest.mark.slow
@pytest.mark.parametrize("options", TRAINS, ids=" ".join)
def test_what_passes_trains_to_its_end(fit, tmp_path, tiny_recipe, options):
    done = fit(tmp_path, tiny_recipe, *options)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    run = tmp_path / "runs" / "tiny"
    assert json.loads((run / "evaluation.json").read_text())["results"]
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


# Fuzz. Every case is drawn from its number: a failure can be run again alone.

VALUES = ["null", ".nan", ".inf", "-.inf", "-1", "0", "1.5", "1e30", "100000000000000000000", "9" * 400]
VALUES += ["x", "''", "'" + "x" * 2000 + "'", "2026-01-01", "true", "[]", "[1]", "[null]", "[[1, 2]]", "{}", "{a: 1}"]
MAY_BE_NEGATIVE = {"evaluation.seed", "trainer.max_epochs", "trainer.max_steps", "trainer.num_sanity_val_steps"}
MAY_BE_NULL = {"trainer.max_epochs", "trainer.check_val_every_n_epoch", "trainer.gradient_clip_val"}
MAY_BE_NULL |= {"trainer.num_sanity_val_steps", "trainer.log_every_n_steps"}


def flattened(section: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        yield f"{prefix}{name}", value
        if isinstance(value, dict):
            yield from flattened(value, f"{prefix}{name}.")


@pytest.fixture(scope="module")
def keys(tiny_recipe) -> list[tuple[str, Any]]:
    """Every key that a recipe has, each with its default or an example."""
    options = ["--model.attention", "reinforce", "--model.reinforce", "{}"]
    cli = RecipeCLI(tiny_recipe, options)
    every = dict(flattened(yaml.safe_load(cli.resolved())))
    more = {f"model.controller_options.{name}": value for name, value in cli.model.model.controller_options.items()}
    return sorted((every | more).items())


def check_setting(probe: Probe, tiny: dict[str, Any], key: str, default: Any, value: str) -> None:
    outcome = probe(with_key(tiny, key, value))
    assert outcome.is_told(), (key, value, outcome)
    number = type(default) in (int, float)
    never = number and value in (".nan", ".inf", "-.inf", "true", "x", "{}", "[]")
    never |= number and value == "-1" and key not in MAY_BE_NEGATIVE
    never |= number and value == "null" and key not in MAY_BE_NULL
    never |= type(default) is bool and value not in ("true", "null") and key != "trainer.deterministic"
    if never:
        assert outcome.status == 2, (key, value)
        assert f"'{key}" in outcome.stderr or "'trainer.devices'" in outcome.stderr, (key, value, outcome.stderr)


def mutated(text: str, draw: random.Random) -> bytes:
    """A recipe with one to three changes: of values, keys and lines, and of single characters."""
    for _ in range(draw.randint(1, 3)):
        lines = text.split("\n")
        place = draw.randrange(len(lines))
        line = lines[place]
        kind = draw.randrange(8)
        if kind <= 2 and ":" in line:
            lines[place] = f"{line.partition(':')[0]}: {draw.choice(VALUES)}"
        elif kind == 3:
            del lines[place]
        elif kind == 4:
            lines.insert(draw.randrange(len(lines) + 1), line)
        elif kind == 5:
            lines[place] = " " * draw.randrange(6) + line.lstrip()
        elif kind == 6 and line:  # no digit: sizes of a hundred times as much would only be slow
            at = draw.randrange(len(line))
            lines[place] = line[:at] + draw.choice("-:{}[]&*!|>'\"%@`#,?~ \t\0\x1b\u2028é") + line[at + 1 :]
        elif kind == 7 and len(line) > 1:
            lines[place] = line[: draw.randrange(len(line))]
        text = "\n".join(lines)
    content = bytearray(text.encode())
    if draw.random() < 0.1 and content:
        content[draw.randrange(len(content))] = draw.choice([0x00, 0x80, 0xFF])
    return bytes(content)


def check_recipe(probe: Probe, number: int) -> None:
    draw = random.Random(number)
    names = ["merge", "queue", "search", "paper/sort", "priority_queue"]
    text = find_recipe(draw.choice(names)).read_text().partition("\nseed_everything")[2]
    content = mutated("seed_everything" + text, draw)
    outcome = probe(content)
    assert outcome.is_told(), (number, content.decode(errors="replace"), outcome)


def test_a_sample_of_settings(probe, tiny, keys):
    draw = random.Random(0)
    for _ in range(40):
        check_setting(probe, tiny, *draw.choice(keys), draw.choice(VALUES))


def test_a_sample_of_recipes(probe):
    for number in range(40):
        check_recipe(probe, number)


@pytest.mark.slow
@pytest.mark.parametrize("value", VALUES, ids=lambda value: value[:20])
def test_every_other_key_with(probe, tiny, keys, value):
    """Every key meets every other value; the keys beside it, most of them of its kind, meet the rest."""
    for key, default in keys[VALUES.index(value) % 2 :: 2]:
        check_setting(probe, tiny, key, default, value)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 1000, 100))
def test_a_hundred_recipes_from(probe, first):
    for number in range(first, first + 100):
        check_recipe(probe, number)
