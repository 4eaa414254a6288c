"""In a notebook: a training shows one output, and models, traces and runs show themselves as pictures."""

import copy
import json
import re
import sys
import xml.etree.ElementTree as ElementTree

import nbclient
import nbformat
import pytest
from PIL import Image

from lightning_ham import from_pretrained, learning_curve
from lightning_ham.hub import TrainedModel
from lightning_ham.pictures.formats import Picture
from lightning_ham.runs.progress import TrainingBar, TrainingLines, make_progress
from lightning_ham.training import HAMModule

CELLS = {
    "model": "from lightning_ham import from_pretrained, learning_curve\nmodel = from_pretrained('ham-reverse')\nmodel",
    "picture": "model.draw([7, 1000, 42])",
    "trace": "model.trace([7, 1000, 42])",
    "training": "from lightning_ham.fit import main\n"
    "main(['tiny.yaml', '--run_dir=run', '--trainer.max_epochs=9', '--wandb.mode=disabled'])",
    "curve": "learning_curve('run')",
    "command": "!{sys.executable} -c 'import sys; from lightning_ham.notebook import *; "
    "print(is_notebook(), is_from_notebook(), sys.stdout.isatty())'",
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory, tiny_recipe, environment):
    """The outputs of the cells, by their names."""
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "tiny.yaml").write_text(tiny_recipe.read_text())
    cells = ["import sys", *CELLS.values()]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    client.execute(env={**environment, "IPYTHONDIR": str(folder)})
    return dict(zip(CELLS, [cell["outputs"] for cell in notebook["cells"][1:]], strict=True))


def svg_of(outputs):
    (shown,) = outputs
    return ElementTree.fromstring(shown["data"]["image/svg+xml"])


def words(svg):
    return ["".join(text.itertext()).strip() for text in svg.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.slow
def test_pictures_are_shown(outputs):
    drawn, traced = words(svg_of(outputs["picture"])), words(svg_of(outputs["trace"]))
    assert "One episode of reverse: the path of attention" in drawn
    assert "The model's answer, which is right: [42, 1000, 7]" in drawn
    assert drawn == traced
    assert "'answer': [42, 1000, 7]" in outputs["trace"][0]["data"]["text/plain"]
    curve = words(svg_of(outputs["curve"]))
    assert {"run", "updates", "wrong sequences in validation", "lengths 2-8", "8 leaves"} <= set(curve)


@pytest.mark.slow
def test_a_training_is_one_output_that_changes(outputs):
    progress = [output for output in outputs["training"] if output["output_type"] == "display_data"]
    (shown,) = progress
    first, second = shown["data"]["text/plain"].splitlines()
    assert first == "epoch 9/9"
    assert re.match(r"leaves 8  nll \d\.\d+  wrong \d+\.\d\d%", second)
    assert '<progress value="9" max="9">' in shown["data"]["text/html"]
    everything = json.dumps(outputs["training"])
    assert len(re.findall(r"epoch \d+/9", everything)) == 2, "as text and as HTML"
    assert len(everything) < 4000


@pytest.mark.slow
def test_a_command_knows_that_a_notebook_started_it(outputs):
    said = "".join(output["text"] for output in outputs["command"])
    assert said.split() == ["False", "True", "True"], "it looks like a terminal, in which a bar would flood the cell"


def test_a_command_in_a_notebook_prints_few_lines(fit, tiny_recipe, tmp_path):
    short = ["--data.batches_per_epoch=1", "--data.validation_episodes=8", "--trainer.max_epochs=12"]
    done = fit(tmp_path, tiny_recipe, *short, JPY_PARENT_PID="1")
    assert done.returncode == 0, done.stderr
    told = re.findall(r"^epoch (\d+)/12  leaves", done.stdout, re.MULTILINE)
    assert told == [*map(str, range(1, 11)), "12"]


def test_few_lines_are_those_that_tell_something_new(capsys):
    class Trainer:
        max_epochs = 40
        is_global_zero = True

    lines = TrainingLines(few=True)
    for number in range(37):
        Trainer.current_epoch = number
        lines.show(Trainer, {"leaves": "8" if number < 14 else "16"})
    lines.on_train_end(Trainer, None)
    told = [int(number) for number in re.findall(r"^epoch (\d+)/40", capsys.readouterr().out, re.MULTILINE)]
    assert told == [*range(1, 11), 15, 20, 30, 37]


def test_outside_a_notebook_there_is_a_bar_where_it_is_asked_for(monkeypatch):
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    assert isinstance(make_progress(True), TrainingBar)
    assert isinstance(make_progress(False), TrainingLines)
    monkeypatch.setattr(sys, "stdout", None)
    assert isinstance(make_progress(None), TrainingLines)


# What models, traces and runs say of themselves.


def test_a_model_says_its_task_sizes_supervision_and_errors(tmp_path):
    lines = [line.strip() for line in repr(from_pretrained("ham-add")).splitlines()]
    assert lines[:5] == [
        "TrainedModel(",
        "task: add, with lstm_ham",
        "sizes: 29,861 parameters, controller_size 32, leaf_size 32, hidden_size 64",
        "supervision: echo and guide",
        "wrong sequences: 0 % at lengths 1-32, 0.01 % at lengths 33-128, 75 % at lengths 129-1024",
    ]
    model = TrainedModel("sort")
    assert "supervision: unknown\n  wrong sequences: not measured\n" in repr(model)
    model.save_pretrained(tmp_path / "saved")
    assert "wrong sequences: not measured" in repr(from_pretrained(tmp_path / "saved"))
    (tmp_path / "saved" / "README.md").unlink()
    assert "task: sort, with lstm_ham" in repr(from_pretrained(tmp_path / "saved"))
    assert "task: sort, with lstm_ham" in repr(HAMModule("sort"))


def test_a_trace_is_plain_data_and_a_picture():
    model = from_pretrained("ham-reverse")
    trace = model.trace(iter([7, 1000, 42]))
    assert json.loads(json.dumps(trace)) == trace == dict(trace)
    assert copy.deepcopy(dict(trace)) == trace
    assert trace._repr_svg_() == model.draw([7, 1000, 42])._repr_svg_()
    assert model.trace([1] * 65)._repr_svg_() is None, "it is too long to draw"


def test_a_picture_is_saved_by_the_end_of_its_name(tmp_path):
    picture = HAMModule("reverse").draw([7, 1000, 42], steps=[0, 2])
    assert isinstance(picture, Picture)
    picture.save(tmp_path / "attention.svg")
    assert (tmp_path / "attention.svg").read_text() == picture._repr_svg_()
    picture.save(str(tmp_path / "attention.png"))
    with Image.open(tmp_path / "attention.png") as image:
        assert image.size == (round(picture.width * 1.2), round(picture.height * 1.2))
    with pytest.raises(ValueError, match=r"Expected a file that ends in .svg, .png or .pdf, but got .*\.gif"):
        picture.save(tmp_path / "attention.gif")
    with pytest.raises(ValueError, match="Expected a file in a folder that is there"):
        picture.save(tmp_path / "nowhere" / "attention.svg")


METRICS = """epoch,step,curriculum/capacity,train/episodes,val/current/sequence_error,val/1-32/sequence_error
0,49,2,12800,0.25,
1,99,4,25600,0.05,0.125
"""


def test_the_learning_curve_of_a_run_in_one_call(tmp_path):
    folder = tmp_path / "run" / "metrics" / "version_0"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text(METRICS)
    curve = learning_curve(tmp_path / "run")
    assert [(point["update"], point["errors"]) for point in curve.points] == [
        (50, {"current": 0.25}),
        (100, {"current": 0.05, "1-32": 0.125}),
    ]
    assert repr(curve) == (
        f"<LearningCurve of {tmp_path / 'run'}: 2 validations in 100 updates; "
        "wrong sequences at last: 5 % at up to 4 leaves, 12.5 % at lengths 1-32>"
    )
    svg = ElementTree.fromstring(curve._repr_svg_())
    assert {"lengths 1-32", "lengths of the curriculum", "4 leaves"} <= set(words(svg))
    assert "fill: #ffffff" in curve._repr_svg_(), "it can be read on a dark page"
    curve.save(tmp_path / "curve.pdf")
    assert (tmp_path / "curve.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_a_validation_has_no_learning_curve(name, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"Expected a run folder with a validation .* has none"):
        learning_curve(tmp_path / name)
