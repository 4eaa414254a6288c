"""The pictures of a card show the given data, and carry its digest."""

import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_ham.hub import TrainedModel
from lightning_ham.hub import card_pictures as pictures_of_cards
from lightning_ham.hub.card import example
from lightning_ham.hub.card_pictures import card_pictures
from lightning_ham.pictures.attention import draw_attention
from lightning_ham.pictures.canvas import Canvas, Ink, Pen
from lightning_ham.pictures.curve import curve_figure, draw_curve
from lightning_ham.pictures.formats import to_svg
from lightning_ham.pictures.png import drawn_from, png
from lightning_ham.runs.learning_curve import first_at

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
    monkeypatch.setattr(pictures_of_cards, "MAX_LEAVES", 3)
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


def test_the_labels_of_the_levels_do_not_overlap_and_keep_their_order():
    early = [{**CURVE[0], "update": update, "capacity": 2**level} for level, update in enumerate(range(10, 90, 10))]
    late = [{**CURVE[0], "update": 9990 + level, "capacity": 2 ** (8 + level)} for level in range(4)]
    figure = curve_figure([*early, *late], "sort")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    labels = [text for text in axes.texts if text.get_text().endswith(" leaves")]
    assert [text.get_text() for text in labels] == [f"{2**level} leaves" for level in range(1, 12)]
    boxes = [text.get_window_extent() for text in labels]
    assert all(before.x1 <= after.x0 for before, after in pairwise(boxes))
    assert axes.bbox.x0 <= boxes[0].x0
    assert boxes[-1].x1 <= axes.bbox.x1


def colours_of(canvas, width):
    """What gives the colour at a place in the pixels of a page."""
    pixels, _ = opened(png(canvas.figure, "data"))
    scale = pixels.shape[1] / width
    return lambda x, y: tuple(int(level) for level in pixels[round(y * scale), round(x * scale)])


def test_colours_and_places_are_those_that_were_asked_for():
    canvas = Canvas(100, 50)
    canvas.box((0, 0), 100, 50, 0, Pen("#ffffff"))
    canvas.box((10, 10), 20, 20, 0, Pen("#ff0000"))
    canvas.box((80, 10), 10, 20, 0, Pen("#ff0000"))
    canvas.box((80, 10), 10, 20, 3, Pen("#0000ff", "#0000ff", dashed=True))
    canvas.circles([(60, 20), (70, 40)], 8, "#00ff00")
    canvas.lines([((40, 0), (40, 50)), ((45, 40), (60, 40))], Pen(stroke="#000000", width=4))
    colour = colours_of(canvas, 100)
    assert colour(20, 20) == (255, 0, 0)
    assert colour(60, 20) == colour(70, 40) == (0, 255, 0)
    assert colour(85, 20) == (0, 0, 255), "what is drawn later is above"
    assert colour(40, 25) == colour(50, 40) == (0, 0, 0)
    assert colour(50, 5) == (255, 255, 255)


def test_a_picture_says_what_it_was_drawn_from():
    assert opened(png(Canvas(60, 40).figure, "data"))[1]["Description"] == drawn_from("data")


def test_a_text_is_drawn_where_it_stands():
    canvas = Canvas(60, 40)
    canvas.text(30, 30, "H", Ink(20))
    pixels, _ = opened(png(canvas.figure, 0))
    dark = np.argwhere(pixels.sum(axis=2) < 300) * 60 / pixels.shape[1]
    (top, left), (bottom, right) = dark.min(axis=0), dark.max(axis=0)
    assert bottom == pytest.approx(30, abs=1.5)  # on its base line
    assert 12 < top < 18
    assert (left + right) / 2 == pytest.approx(30, abs=1.5)


def test_the_attended_leaves_and_the_mark_of_the_legend_stand_out():
    model = make_model("merge")
    svg = to_svg(draw_attention(model, example(model)))
    assert svg.count("fill: #0b6e69; stroke: #0b6e69") == 5 + 1


def test_the_same_picture_is_the_same_file_and_its_words_are_text():
    model = make_model("merge")
    one, same = (to_svg(draw_attention(model, example(model))) for _ in range(2))
    assert one == same
    assert ">One episode of merge: the path of attention</text>" in one
    assert "<dc:date>" not in one
