"""The pictures of a card: what is drawn is what the SVG says, and each tells what it was drawn from."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_ham import pictures
from lightning_ham.draw import attention_svg
from lightning_ham.hub import TrainedModel
from lightning_ham.hub.card import example
from lightning_ham.learning_curve import draw_curve, drawn_from, first_at
from lightning_ham.pictures import card_pictures, rules, shapes, svg_to_png

CURVE = [
    {"update": 50, "episodes": 800, "seconds": 9, "capacity": 2, "errors": {"current": 0.05}},
    {"update": 100, "episodes": 1600, "seconds": 20, "capacity": 4, "errors": {"current": 0.01, "1-4": 0.02}},
    {"update": 150, "episodes": 2400, "seconds": 31, "capacity": 4, "errors": {"current": 0.0, "1-4": 0.0}},
]


def make_model(task="sort", controller="lstm_ham", **options):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return TrainedModel(task, controller, options or {"controller_size": 4}).eval()


def opened(content):
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB")), image.info


STRUCTURES = ("stack", "queue", "priority_queue")


@pytest.mark.parametrize("task", ["add", "merge", "reverse", "search", "sort", *STRUCTURES])
def test_a_card_has_both_pictures_and_each_says_what_of(task):
    model = make_model(task, "raw_ham", leaf_size=4) if task in STRUCTURES else make_model(task)
    found = card_pictures(model, CURVE)
    assert list(found) == ["learning_curve.png", "attention.png"]
    assert opened(found["learning_curve.png"])[1]["Description"] == drawn_from(CURVE)
    leaves = [step["leaf"] for step in model.trace(example(model))["steps"]]
    drawn = [str(example(model)), leaves, str(model.solve([example(model)])[0])]
    assert opened(found["attention.png"])[1]["Description"] == drawn_from(drawn)
    assert all(len(content) < 60_000 for content in found.values())


def test_no_picture_of_what_is_not_there(monkeypatch):
    assert list(card_pictures(make_model(controller="lstm"), CURVE)) == ["learning_curve.png"]
    assert list(card_pictures(make_model(), [])) == ["attention.png"]
    monkeypatch.setattr(pictures, "MAX_LEAVES", 3)
    assert card_pictures(make_model(), []) == {}


def test_the_curve_drawn_depends_on_the_errors():
    changed = [*CURVE[:-1], CURVE[-1] | {"errors": {"current": 0.5, "1-4": 0.5}}]
    one, same, other = (opened(draw_curve(curve, "sort"))[0] for curve in (CURVE, CURVE, changed))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_first_point_at_an_error():
    assert first_at(CURVE, "1-4", 0.02) == CURVE[1]
    assert first_at(CURVE, "1-4", 0.01) == CURVE[2]
    assert first_at(CURVE, "5-8", 1.0 - 1e-9) is None


def test_colours_and_places_are_those_of_the_svg():
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="100" height="50"><style>\n'
        ".box rect { fill: #ff0000; stroke: none }\n.box.on rect { fill: #0000ff }\ncircle { fill: #00ff00 }\n"
        ".edge { stroke: #000000; stroke-width: 4 }\n</style>"
        '<title>no shape</title><rect x="0" y="0" width="100" height="50" fill="#ffffff"/>'
        '<g class="box" transform="translate(10 10)"><rect x="0" y="0" width="20" height="20"/>'
        '<g class="on"><circle cx="50" cy="10" r="8"/></g></g>'
        '<g class="box on"><rect x="80" y="10" width="10" height="20"/></g>'
        '<path class="edge" d="M40 0L40 50"/><path class="edge" d="M45 40H75"/></svg>'
    )
    pixels, info = opened(svg_to_png(svg, "data"))
    assert info["Description"] == drawn_from("data")
    scale = pixels.shape[1] / 100
    assert pixels.shape[0] == round(50 * scale)

    def colour(x, y):
        return tuple(int(level) for level in pixels[round(y * scale), round(x * scale)])

    assert colour(20, 20) == (255, 0, 0)
    assert colour(60, 20) == (0, 255, 0)
    assert colour(85, 20) == (0, 0, 255)
    assert colour(40, 25) == colour(60, 40) == (0, 0, 0)
    assert colour(50, 5) == (255, 255, 255)


def test_a_text_is_drawn_where_it_stands():
    def svg(text):
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" width="60" height="40">'
            f'<text x="30" y="30" font-size="20px" text-anchor="middle">{text}</text></svg>'
        )

    pixels, _ = opened(svg_to_png(svg("H"), 0))
    dark = np.argwhere(pixels.sum(axis=2) < 300) * 60 / pixels.shape[1]
    (top, left), (bottom, right) = dark.min(axis=0), dark.max(axis=0)
    assert bottom == pytest.approx(30, abs=1.5)  # on its base line
    assert 12 < top < 18
    assert (left + right) / 2 == pytest.approx(30, abs=1.5)


def test_the_more_specific_rule_holds():
    sheet = rules(".a.b rect { fill: red } .a rect { fill: blue } rect { fill: green }")
    assert [rule.properties["fill"] for rule in sheet] == ["green", "blue", "red"]


def test_every_shape_of_our_pictures_is_known():
    from xml.etree import ElementTree

    model = make_model("merge")
    drawn = list(shapes(ElementTree.fromstring(attention_svg(model, example(model)))))
    assert {shape.tag for shape in drawn} == {"rect", "text", "path", "circle", "line"}
    assert sum(shape.attributes.get("fill") == "#0b6e69" and shape.tag == "rect" for shape in drawn) == 5 + 1


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ('<ellipse cx="1"/>', "Expected a shape that our pictures have, but got 'ellipse'"),
        ('<path d="M0 0C1 1 2 2 3 3"/>', "Expected a path that is one line, but got 'M0 0C1 1 2 2 3 3'"),
        ('<g transform="scale(2)"/>', r"Expected a group that is moved only, but got 'scale\(2\)'"),
    ],
)
def test_other_svg_is_refused(inside, message):
    with pytest.raises(ValueError, match=message):
        svg_to_png(f'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">{inside}</svg>', 0)
