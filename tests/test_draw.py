"""The picture of a model's attention matches the trace, and errors are one line."""

import json
import re
from itertools import pairwise
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_ham import draw
from lightning_ham.hub import TrainedModel
from lightning_ham.pictures import attention
from lightning_ham.pictures.canvas import Canvas, Ink
from lightning_ham.pictures.formats import to_svg

pytestmark = pytest.mark.usefixtures("restored_threads")

SVG = "{http://www.w3.org/2000/svg}"
INSTANCES = {
    "reverse": [7, 1000, 42, 5, 6],
    "search": ([(2, 7), (9, 4), (9, 1), (30, 7)], 9),
    "merge": ([(0.125, 7), (0.5, 21), (0.75, 3)], [(0.25, 30)]),
    "sort": [(9, 4), (2, 7), (9, 1)],
    "add": (6, 3),
}
SMALL = {"controller_size": 4, "leaf_size": 4}


def make_model(task, **options):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return TrainedModel(task, controller_options={**SMALL, **options}).eval()


def parse(svg):
    return ElementTree.fromstring(svg)


def drawn(model, instance, steps=None):
    return parse(to_svg(attention.draw_attention(model, instance, steps)))


def named(root, pattern):
    """The elements whose whole id matches a pattern, in drawing order."""
    return [group for group in root.iter(f"{SVG}g") if re.fullmatch(pattern, group.get("id", ""))]


def steps_of(root):
    return [int(re.findall(r"\d+", group.get("id"))[0]) for group in named(root, r"step-\d+(-again-\d+)?")]


def texts(element):
    return ["".join(text.itertext()) for text in element.iter(f"{SVG}text")]


def written(root, pattern):
    return [text for group in named(root, pattern) for text in texts(group)]


class Leaf(NamedTuple):
    states: set[str]
    labels: list[str]


def leaves_of(root, step):
    """The leaves of a step by their numbers."""
    found = {}
    for group in named(root, rf"step-{step}\.leaf-[\w.]+"):
        _, leaf, *states = group.get("id").split(".")
        labels = found.setdefault(int(leaf.removeprefix("leaf-")), Leaf(set(states), [])).labels
        labels.extend(texts(group))
    return found


def points(group):
    """The corners of what is drawn, in the pixels of the page, by shapes."""
    return [
        [(float(x) / 0.72, float(y) / 0.72) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path.get("d"))]
        for path in group.iter(f"{SVG}path")
    ]


def size(root):
    return tuple(float(root.get(side).removesuffix("pt")) / 0.72 for side in ("width", "height"))


def title(root):
    return root.find(f"{SVG}title").text


def description(root):
    return next(root.iter("{http://purl.org/dc/elements/1.1/}description")).text


class Planted:
    """A model that did what the test says it did."""

    def __init__(self, task, leaves, outputs, answer, accesses_per_output=1):
        self.task = make_model(task).task
        self.accesses_per_output = accesses_per_output
        self.steps = [
            {"leaf": leaf, "branch_probabilities": [0.75 * (leaf >> 1 & 1), 0.996 * (leaf & 1)], "output": output}
            for leaf, output in zip(leaves, outputs, strict=True)
        ]
        self.answer = answer

    def trace(self, instance):
        return {"num_leaves": 4, "steps": self.steps, "answer": self.answer}


def merged(*leaves, answer=(7, 30, 21, 3), outputs=None, **options):
    values = outputs or [7, 30, 21, 3]
    bits = [[*(value >> place & 1 for place in (4, 3, 2, 1, 0)), 0] for value in values]
    return Planted("merge", leaves, [*bits, [0, 0, 0, 0, 0, 1]], list(answer), **options)


@pytest.mark.parametrize(("task", "instance"), INSTANCES.items())
def test_every_step_shows_what_the_trace_says(task, instance):
    model = make_model(task)
    trace = model.trace(instance)
    root = drawn(model, instance)
    assert steps_of(root) == list(range(len(trace["steps"])))
    for number, step in enumerate(trace["steps"]):
        leaves = leaves_of(root, number)
        assert [leaf for leaf, shown in leaves.items() if "attended" in shown.states] == [step["leaf"]]
        probabilities = [float(text) for text in written(root, rf"step-{number}\.probability-\d+")]
        assert probabilities == pytest.approx(step["branch_probabilities"], abs=0.005)
        assert len(leaves) == trace["num_leaves"]


@pytest.mark.parametrize("leaf", range(4))
def test_highlighted_path_leads_from_the_root_to_the_attended_leaf(leaf):
    root = drawn(merged(leaf, leaf, leaf, leaf, leaf), INSTANCES["merge"], [0])
    (path,), (nodes,), (box,) = (
        named(root, rf"step-0\.{name}") for name in ("path", "nodes-taken", r"leaf-\d\.[\w.]*attended")
    )
    edges = points(path)
    centres = [tuple(np.mean([np.min(circle, 0), np.max(circle, 0)], axis=0)) for circle in points(nodes)]
    (corners,) = points(box)
    leaf_x, leaf_y = (min(x for x, _ in corners) + max(x for x, _ in corners)) / 2, min(y for _, y in corners)
    assert len(edges) == len(centres) == 2
    assert [edge[0] for edge in edges] == [pytest.approx(centre, abs=0.1) for centre in centres]
    assert edges[0][1] == edges[1][0]
    assert edges[1][1] == pytest.approx((leaf_x, leaf_y), abs=0.1)
    leaves = [x for group in named(root, r"step-0\.leaf-.*") for shape in points(group) for x, _ in shape]
    assert edges[0][0][0] == pytest.approx((min(leaves) + max(leaves)) / 2, abs=0.1), "the root stands above the middle"


def test_leaves_show_their_cells_and_what_happened_to_them():
    root = drawn(merged(0, 3, 1, 2, 0), ([(0.125, 7), (0.5, 21)], [(0.25, 30)]), [2])
    assert leaves_of(root, 2) == {
        0: ({"rewritten"}, ["0.125", "7"]),
        1: ({"attended"}, ["0.5", "21"]),
        2: (set(), ["0.25", "30"]),
        3: ({"blank", "rewritten"}, ["blank"]),
    }
    assert written(root, r"step-2\.group-\d") == ["first", "second"]


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        ("reverse", [["7"], ["1000"], ["42"], ["5"], ["6"]]),
        ("search", [["2", "7"], ["9", "4"], ["9", "1"], ["30", "7"], ["9"]]),
        ("sort", [["9", "4"], ["2", "7"], ["9", "1"]]),
        ("add", [["0"], ["1"], ["1"], ["+"], ["1"], ["1"], ["0"], ["="]]),
    ],
)
def test_labels(task, labels):
    leaves = leaves_of(drawn(make_model(task), INSTANCES[task], [0]), 0)
    assert [leaves[leaf].labels for leaf in range(len(labels))] == labels


def test_leaves_of_a_raw_ham_show_the_elements_that_they_hold():
    torch.manual_seed(3)
    model = TrainedModel("priority_queue", "raw_ham", {"leaf_size": 6}).eval()
    operations = [("push", 9, 4), ("push", 2, 7), ("pop",)]
    trace = model.trace(operations)
    at = [step["leaf"] for step in trace["steps"]]
    root = drawn(model, operations)
    expected = [{at[0]: ["9", "4"]}, {at[0]: ["9", "4"], at[1]: ["2", "7"]}]
    expected.append(expected[1])
    for step, (held, heading) in enumerate(zip(expected, ("push 9, 4", "push 2, 7", "pop"), strict=True)):
        leaves = {leaf: shown.labels for leaf, shown in leaves_of(root, step).items()}
        assert leaves == {leaf: held.get(leaf, ["blank"]) for leaf in range(4)}
        assert written(root, f"step-{step}")[0].endswith(f": {heading}")
    put_out = [len(named(root, rf"step-{step}\.output")) for step in range(3)]
    assert put_out == [0, 0, 1], "nothing comes out at a push"


def test_long_labels_are_abbreviated_and_whole_values_kept_in_the_description():
    instance = ([(0.0001, 7), (1 / 3, 21), (1.0, 3)], [])
    root = drawn(merged(0, 1, 2, 3, 0), instance, [0])
    assert {leaf: shown.labels[0] for leaf, shown in leaves_of(root, 0).items()} == {
        0: "1e-04",
        1: "0.333",
        2: "1",
        3: "blank",
    }
    assert f"leaf 1: ({1 / 3}, 21)" in description(root)


def outputs_of(root):
    return [(group.get("id").partition(".")[0], texts(group)[0]) for group in named(root, r"step-\d+\.output")]


def test_outputs_are_symbols_until_the_end():
    model = merged(0, 3, 1, 2, 0)
    model.steps[3]["output"] = [0, 0, 0, 0, 0, 1]
    root = drawn(model, INSTANCES["merge"])
    expected = ["7", "30", "21", "end", "after end"]
    assert outputs_of(root) == [(f"step-{step}", text) for step, text in enumerate(expected)]


def test_silent_timesteps_put_nothing_out_that_counts():
    first, second = (text for _, text in outputs_of(drawn(make_model("search"), INSTANCES["search"])))
    assert first == "unscored"
    assert second == str(make_model("search").solve([INSTANCES["search"]])[0])


def test_output_stands_at_the_last_access_before_it():
    model = make_model("sort", accesses_per_output=2)
    root = drawn(model, INSTANCES["sort"])
    assert [step for step, _ in outputs_of(root)] == ["step-1", "step-3", "step-5", "step-7"]
    assert steps_of(root) == list(range(8))
    assert "access 1" in texts(root)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ([7, 30, 21, 3], "The model's answer, which is right: [7, 30, 21, 3]"),
        ([7, 30], "The model's answer, which is wrong: [7, 30] instead of [7, 30, 21, 3]"),
    ],
)
def test_heading_says_whether_the_answer_is_right(answer, expected):
    root = drawn(merged(0, 3, 1, 2, 0, answer=answer), INSTANCES["merge"])
    assert expected in texts(root)
    assert expected in description(root)


def test_picture_is_described_and_has_its_own_background():
    root = drawn(merged(0, 3, 1, 2, 0), INSTANCES["merge"], [1])
    assert title(root) == "One episode of merge: the path of attention"
    assert title(root) in texts(root)
    assert "Access 1 reads leaf 3; put out: 30." in description(root)
    (background,) = named(root, "background")
    (corners,) = points(background)
    width, height = size(root)
    assert np.min(corners, axis=0) == pytest.approx((0.5, 0.5), abs=0.1)
    assert np.max(corners, axis=0) == pytest.approx((width - 0.5, height - 0.5), abs=0.1)
    assert "fill: #fbfbf9" in next(background.iter(f"{SVG}path")).get("style")


@pytest.mark.parametrize(("task", "length"), [("reverse", 1), ("merge", 2), ("sort", 17), ("merge", 64)])
def test_everything_stands_inside_the_picture(task, length):
    model = make_model(task)
    episodes = model.task.sample(1, (length, length), generator=torch.Generator().manual_seed(0))
    instance = model.task.decode_inputs(episodes.inputs[0], episodes.occupied[0])
    picture = attention.draw_attention(model, instance, [0, 1, 1, 0])
    root = parse(to_svg(picture))
    assert steps_of(root) == [0, 1, 1, 0]
    assert size(root) == pytest.approx((picture.width, picture.height), abs=0.1)
    for group in named(root, r"step-.*"):
        for shape in points(group):
            assert np.min(shape) >= 0
            assert (np.max(shape, axis=0) <= (picture.width, picture.height)).all()


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.00"), (0.996, "1.00"), (0.504, "0.504"), (0.5, "0.5000"), (0.4961, "0.496")]
)
def test_probability_is_seen_on_its_side_of_one_half(value, text):
    assert attention._probability(value) == text


def test_text_is_safe_in_xml_and_never_a_formula():
    canvas = Canvas(100, 50)
    canvas.text(50, 25, "a<b&\x00 $x$", Ink(10))
    assert texts(parse(to_svg(attention.Picture(canvas.figure, 100, 50, "<&", "<&")))) == ["a<b&� $x$"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "sort"
    make_model("sort").save_pretrained(folder)
    return str(folder)


def test_command_writes_a_file_or_to_standard_output(saved, tmp_path, capsys):
    target = tmp_path / "picture.svg"
    arguments = [saved, "--instance", json.dumps(INSTANCES["sort"]), "--steps", "0,2"]
    assert draw.main([*arguments, "-o", str(target)]) == 0
    assert capsys.readouterr().out == ""
    assert draw.main(arguments) == 0
    assert capsys.readouterr().out == target.read_text(encoding="utf-8")
    assert steps_of(parse(target.read_text(encoding="utf-8"))) == [0, 2]


def test_command_writes_svg_png_or_pdf_by_the_name_of_the_file(saved, tmp_path, capsys):
    arguments = [saved, "--instance", json.dumps(INSTANCES["sort"])]
    assert draw.main(arguments) == 0
    svg = capsys.readouterr().out
    for name in ("a.svg", "b.png", "c.pdf", "D.PNG", "e.f.Pdf", "g.SVG"):
        assert draw.main([*arguments, "-o", str(tmp_path / name)]) == 0
    assert (tmp_path / "a.svg").read_text(encoding="utf-8") == (tmp_path / "g.SVG").read_text(encoding="utf-8") == svg
    root = parse(svg)
    with Image.open(tmp_path / "b.png") as png:
        assert png.format == "PNG"
        assert png.size == pytest.approx([1.2 * side for side in size(root)], abs=1)
        assert len(png.convert("RGB").getcolors()) > 5, "something is drawn"
    assert (tmp_path / "D.PNG").read_bytes() == (tmp_path / "b.png").read_bytes()
    pdf = (tmp_path / "c.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert b"One episode of sort: the path of attention" in pdf
    assert re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", pdf).groups() == tuple(
        root.get(side).removesuffix("pt").encode() for side in ("width", "height")
    )
    assert (tmp_path / "e.f.Pdf").read_bytes() == pdf, "it has no date"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["x.jpg", "x", "x.svgz", "x.pgn", ".png", "x.png.bak", ""])
def test_other_endings_are_refused_before_anything_is_loaded(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(draw, "from_pretrained", None)
    with pytest.raises(SystemExit) as exit_:
        draw.main(["ham-sort", "-o", name])
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: Expected a file that ends in .svg, .png or .pdf, but got {name}")
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_name_gets_svg(saved, capsys):
    for output in ("-", "/dev/stdout"):
        assert draw.main([saved, "-o", output]) == 0
        assert parse(capsys.readouterr().out).tag == f"{SVG}svg"
    assert draw.main([saved, "-o", "/dev/null"]) == 0


@pytest.mark.parametrize(("length", "drawn"), [(8, 9), (16, 8), (32, 7), (64, 6)])
def test_of_a_long_instance_some_steps_are_drawn_from_the_first_to_the_last(saved, capsys, length, drawn):
    assert draw.main([saved, "--length", str(length)]) == 0
    root = parse(capsys.readouterr().out)
    steps = steps_of(root)
    assert len(steps) == drawn
    assert steps[0] == 0
    assert steps[-1] == length
    gaps = {after - before for before, after in pairwise(steps)}
    assert max(gaps) - min(gaps) <= 1
    assert size(root)[1] <= attention.MAX_HEIGHT
    says = f"the path of attention in {drawn} of {length + 1} steps"
    assert (says in title(root)) == (drawn <= length)


def test_steps_that_are_asked_for_are_drawn_but_for_a_picture_that_no_program_opens(saved, tmp_path, capsys):
    every = ",".join(map(str, range(65)))
    assert draw.main([saved, "--length", "64", "--steps", every, "-o", str(tmp_path / "a.svg")]) == 0
    assert len(steps_of(parse((tmp_path / "a.svg").read_text(encoding="utf-8")))) == 65
    for name in ("a.png", "a.pdf"):
        with pytest.raises(SystemExit) as exit_:
            draw.main([saved, "--length", "64", "--steps", every, "-o", str(tmp_path / name)])
        assert exit_.value.code == 2
        assert re.fullmatch(
            r"error: Expected a picture of at most 40,000,000 pixels, but got 2,616 x [\d,]+; ask for fewer --steps, "
            r"or for \.svg\.\n",
            capsys.readouterr().err,
        )
        assert not (tmp_path / name).exists()


def test_arrays_are_instances_and_steps():
    model = make_model("sort")
    expected = to_svg(attention.draw_attention(model, [[9, 4], [2, 7]], [0, 2]))
    arrays = np.array([[9, 4], [2, 7]]), np.array([0, 2])
    assert to_svg(attention.draw_attention(model, *arrays)) == expected
    tensors = torch.tensor([[9.0, 4.0], [2.0, 7.0]]), range(0, 3, 2)
    assert to_svg(attention.draw_attention(model, *tensors)) == expected
    with pytest.raises(ValueError, match=r"Expected steps from 0 to 2, but got 1\.5"):
        attention.draw_attention(model, [(9, 4), (2, 7)], [1.5])


def test_no_access_is_divided_among_threads(saved, tmp_path):
    torch.set_num_threads(3)
    assert draw.main([saved, "-o", str(tmp_path / "picture.svg")]) == 0
    assert torch.get_num_threads() == 1


def test_command_draws_an_instance_by_its_seed_and_length(saved, capsys):
    pictures = {}
    for options in ((), ("--seed", "0"), ("--seed", "1"), ("--length", "3")):
        assert draw.main([saved, *options]) == 0
        pictures[options] = capsys.readouterr().out
    assert pictures[()] == pictures["--seed", "0"] != pictures["--seed", "1"]
    assert len(steps_of(parse(pictures["--length", "3"]))) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--instance", "[[9, 4"], "Expected --instance to be JSON, but got '[[9, 4'"),
        (["--instance", "[[9, 40]]"], "Expected values from 0 to 31, but got 40 (pair 1)"),
        (["--instance", "[[9, 4]]", "--seed", "1"], "Expected either --instance, or --length and --seed"),
        (["--steps", "0,99"], "Expected steps from 0 to 8, but got 99"),
        (["--steps=-1"], "Expected steps from 0 to 8, but got -1"),
        (["--steps", "one"], "Expected numbers such as 0,1,2, but got 'one'"),
        (
            ["--length", "65"],
            "Expected an instance of at most 64 cells to draw, but got 65 (65 pairs; 64 pairs at most).",
        ),
        (["--length", "0"], "Expected a whole number of at least 1, but got '0'"),
        (["-o", "no/such/folder.svg"], "Expected a file in a folder that is there, but got no/such/folder.svg"),
        (
            ["--instance", "[[[9, 4]], [[2, 7]]]"],
            "Expected one instance of sort, but got a list of 2; give one at a time",
        ),
        (["--stepts", "0"], "did you mean --steps?"),
    ],
)
def test_mistakes_are_one_line(saved, capsys, arguments, message):
    with pytest.raises(SystemExit) as exit_:
        draw.main([saved, *arguments])
    captured = capsys.readouterr()
    assert exit_.value.code == 2
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_unknown_model_is_one_line(capsys):
    with pytest.raises(SystemExit) as exit_:
        draw.main(["ham-sorted"])
    assert exit_.value.code == 2
    assert "ham-sort" in (error := capsys.readouterr().err)
    assert error.count("\n") == 1


def test_no_step_to_draw_is_an_error():
    with pytest.raises(ValueError, match="at least one step"):
        attention.draw_attention(make_model("sort"), INSTANCES["sort"], [])
