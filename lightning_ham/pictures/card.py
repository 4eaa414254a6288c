"""Pictures as files: those that a card shows, the learning curve and the path of attention, and what `draw` draws.

The path of attention is the SVG that :mod:`lightning_ham.pictures.attention` makes, drawn with matplotlib, which brings
its own fonts. No more of SVG and CSS is understood than is used there; anything else is an error.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from xml.etree import ElementTree

from lightning_ham.hub.card import CurvePoint, example
from lightning_ham.models import TaskModel
from lightning_ham.pictures.attention import MAX_LEAVES, attention_svg
from lightning_ham.pictures.curve import draw_curve
from lightning_ham.pictures.png import png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SVG = "{http://www.w3.org/2000/svg}"
_PIXELS_PER_INCH = 100.0
_SCALE = 1.2  # pixels of the PNG for one of the SVG
_POINTS = 72.0 / _PIXELS_PER_INCH
_ANCHORS: dict[str, Literal["left", "center", "right"]] = {"start": "left", "middle": "center", "end": "right"}


class Rule(NamedTuple):
    """A rule of a style sheet."""

    selector: list[set[str]]
    """From the outermost ancestor to the element: what each must have, its tag's name or classes with a dot."""
    properties: dict[str, str]


class Shape(NamedTuple):
    """An element to be drawn."""

    tag: str
    attributes: dict[str, str]
    """Its own, and what the style sheet says of it."""
    text: str
    x: float
    """Where the group that it is in begins."""
    y: float


def card_pictures(model: TaskModel, curve: list[CurvePoint]) -> dict[str, bytes]:
    """Return the pictures of a model's card by their names.

    Without a curve there is none of it, and none of attention where there is no memory, or too large an example.
    """
    pictures = {}
    if curve:
        pictures["learning_curve.png"] = draw_curve(curve, f"{model.task_name}, {model.num_parameters:,} parameters")
    instance = example(model)
    if model.accesses_per_output > 0 and model.task.instance_length(instance) <= MAX_LEAVES:
        trace = model.trace(instance)
        if not trace["steps"][0]["branch_probabilities"]:  # a controller of another package may have no tree
            return pictures
        # Not the probabilities, whose last digit is another one on another processor.
        drawn = [str(instance), [step["leaf"] for step in trace["steps"]], str(trace["answer"])]
        pictures["attention.png"] = svg_to_png(attention_svg(model, instance, range(len(trace["steps"]))), drawn)
    return pictures


def svg_to_png(svg: str, data: object) -> bytes:
    """Return one of our SVG pictures as a PNG file.

    Args:
        svg: The picture.
        data: What it was made from; see :func:`lightning_ham.pictures.png.png`.

    Raises:
        ValueError: If the picture has something that only other SVG files have.
    """
    return png(_figure(svg), data)


def svg_to_pdf(svg: str) -> bytes:
    """Return one of our SVG pictures as a PDF file of one page, the same at every time.

    Raises:
        ValueError: If the picture has something that only other SVG files have.
    """
    drawn = io.BytesIO()
    title = ElementTree.fromstring(svg).findtext(f"{_SVG}title")
    _figure(svg).savefig(drawn, format="pdf", metadata={"Title": title, "CreationDate": None})
    return drawn.getvalue()


def _figure(svg: str) -> Figure:
    """Return one of our SVG pictures as matplotlib draws it."""
    from matplotlib.figure import Figure

    root = ElementTree.fromstring(svg)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    figure = Figure((width / _PIXELS_PER_INCH, height / _PIXELS_PER_INCH), dpi=_PIXELS_PER_INCH * _SCALE)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    for order, shape in enumerate(shapes(root)):
        _draw(axes, shape, order)
    return figure


def shapes(root: ElementTree.Element) -> Iterator[Shape]:
    """Yield what is to be drawn, from the back to the front."""
    style = root.findtext(f"{_SVG}style") or ""
    yield from _shapes_in(root, rules(style), [], 0.0, 0.0)


def rules(style: str) -> list[Rule]:
    """Return the rules of a style sheet, the more specific ones later.

    >>> rules(".leaf.blank rect { fill: none; stroke-dasharray: 3 3 }")[0].properties
    {'fill': 'none', 'stroke-dasharray': '3 3'}
    """
    found = []
    for selector, body in re.findall(r"([^{}]+)\{([^{}]*)\}", style):
        parts = [set(re.findall(r"\.?[\w-]+", part)) for part in selector.split()]
        pairs = (declaration.split(":", 1) for declaration in body.split(";") if declaration.strip())
        found.append(Rule(parts, {name.strip(): value.strip() for name, value in pairs}))
    return sorted(found, key=lambda rule: sum(name.startswith(".") for part in rule.selector for name in part))


def _shapes_in(
    parent: ElementTree.Element, sheet: Sequence[Rule], above: list[set[str]], x: float, y: float
) -> Iterator[Shape]:
    for element in parent:
        tag = element.tag.removeprefix(_SVG)
        if tag in {"title", "desc", "style"}:
            continue
        names = {tag, *(f".{name}" for name in element.get("class", "").split())}
        if tag == "g":
            moved = re.fullmatch(r"translate\((\S+) (\S+)\)", element.get("transform", "translate(0 0)"))
            if moved is None:
                raise ValueError(f"Expected a group that is moved only, but got {element.get('transform')!r}.")
            yield from _shapes_in(element, sheet, [*above, names], x + float(moved[1]), y + float(moved[2]))
            continue
        attributes = dict(element.attrib)
        for rule in sheet:
            if rule.selector[-1] <= names and _inside(rule.selector[:-1], above):
                attributes |= rule.properties
        yield Shape(tag, attributes, element.text or "", x, y)


def _inside(selector: Sequence[set[str]], above: Sequence[set[str]]) -> bool:
    """Return whether the ancestors match the rest of a selector, each part somewhere within the one before."""
    ancestors = iter(above)
    return all(any(part <= names for names in ancestors) for part in selector)


def _draw(axes: Axes, shape: Shape, order: int) -> None:
    from matplotlib.patches import Circle, FancyBboxPatch
    from matplotlib.text import Text

    def number(name: str) -> float:
        return float(shape.attributes.get(name, 0))

    get = shape.attributes.get
    if shape.tag == "text":
        size = float(get("font-size", "11px").removesuffix("px")) * _POINTS
        weight = int(get("font-weight", "400"))
        text = Text(
            shape.x + number("x"),
            shape.y + number("y"),
            shape.text,
            color=get("fill", "#000000"),
            size=size,
            weight="bold" if weight >= 600 else "normal",
            horizontalalignment=_ANCHORS[get("text-anchor", "start")],
            verticalalignment="baseline",
            zorder=order,
        )
        axes.add_artist(text)
        return
    stroke: dict[str, Any] = {
        "edgecolor": get("stroke", "none"),
        "linewidth": float(get("stroke-width", "1")) * _POINTS,
        "linestyle": "-" if get("stroke-dasharray", "none") == "none" else (0, (3, 3)),
        "zorder": order,
    }
    if shape.tag == "circle":
        centre = shape.x + number("cx"), shape.y + number("cy")
        axes.add_patch(Circle(centre, number("r"), facecolor=get("fill", "#000000"), **stroke))
    elif shape.tag == "rect":
        box = FancyBboxPatch(
            (shape.x + number("x"), shape.y + number("y")),
            number("width"),
            number("height"),
            boxstyle=f"round,pad=0,rounding_size={number('rx')}",
            facecolor=get("fill", "#000000"),
            **stroke,
        )
        axes.add_patch(box)
    elif shape.tag in {"line", "path"}:
        (x1, y1), (x2, y2) = _ends(shape)
        line: dict[str, Any] = {"color": stroke["edgecolor"], "linewidth": stroke["linewidth"], "zorder": order}
        axes.plot([shape.x + x1, shape.x + x2], [shape.y + y1, shape.y + y2], solid_capstyle="butt", **line)
    else:
        raise ValueError(f"Expected a shape that our pictures have, but got {shape.tag!r}.")


def _ends(shape: Shape) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return where a line begins and ends."""
    if shape.tag == "line":
        x1, y1, x2, y2 = (float(shape.attributes[name]) for name in ("x1", "y1", "x2", "y2"))
        return (x1, y1), (x2, y2)
    path = re.fullmatch(r"M(\S+) (\S+?)(?:L(\S+) (\S+)|H(\S+))", shape.attributes["d"])
    if path is None:
        raise ValueError(f"Expected a path that is one line, but got {shape.attributes['d']!r}.")
    end = float(path[3] or path[5]), float(path[4] or path[2])
    return (float(path[1]), float(path[2])), end
