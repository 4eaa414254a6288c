"""The path of attention through one instance: a small tree for each access to the memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from lightning_ham.models import TaskModel, Trace, TraceStep
from lightning_ham.pictures.canvas import Canvas, Ink, Pen, Point
from lightning_ham.pictures.formats import Picture
from lightning_ham.tasks.plain import plain
from lightning_ham.tasks.structures import Operations, Structure

MAX_LEAVES = 64
"""Most leaves of a drawn tree: labels of more would be unreadable."""

MAX_HEIGHT = 3000.0
"""Greatest height in pixels of a picture without given steps; if all do not fit, only some are drawn."""

_PITCH, _LEAF_WIDTH, _LEAF_HEIGHT, _LEVEL, _RADIUS = 40.0, 34.0, 38.0, 47.0, 13.0
_MARGIN, _GUTTER, _PANEL_TOP = 28.0, 36.0, 44.0
_LEAST_WIDTH, _MOST_WIDTH, _TOP = 500.0, 1150.0, 84.0
_LABEL_LENGTH = 5  # characters that fit in a leaf

_DARK, _GREY, _GREEN, _WHITE = "#1c2430", "#5b6675", "#0b6e69", "#ffffff"
_PAGE = Pen("#fbfbf9", "#dfe3e8")
_HEADING = Ink(17, bold=True, anchor="left")
_NOTE = Ink(12, _GREY, anchor="left")
_TIME = Ink(13, bold=True, anchor="left")
_GROUP = Ink(10, _GREY)
_EDGE, _EDGE_TAKEN = Pen(stroke="#d5dbe2", width=1.5), Pen(stroke=_GREEN, width=2.5)
_NODE_COLOUR, _PROBABILITY = "#c3cbd5", Ink(9.5, _WHITE, bold=True)
_OUTPUT_LINE, _OUTPUT_BOX = Pen(stroke=_GREEN, width=1.5), Pen("#fdf0dc", "#c77d11")
_OUTPUT = Ink(12.5, "#7a4a04", bold=True)


def draw_attention(
    model: TaskModel, instance: Any, steps: Sequence[int] | None = None, trace: Trace | None = None
) -> Picture:
    """Draw what a model attends to while it answers an instance.

    Args:
        model: A trained model.
        instance: An instance of its task.
        steps: Accesses to the memory to draw, counted from 0 as in :meth:`~lightning_ham.models.TaskModel.trace`. By
            default all, or an even selection from first to last that fits in :data:`MAX_HEIGHT` pixels.
        trace: The model's trace of the instance, if it is known.

    Returns:
        The picture, with its own background; :mod:`.formats` makes a file of it.

    Raises:
        InstanceError: If the instance does not belong to the task.
        ValueError: If the instance is too long to draw, a step is out of range, or the model has no memory.
    """
    task = model.task
    instance = task.accept(instance)
    length = task.instance_length(instance)
    if length > MAX_LEAVES:
        limit, got = (task.size_in_words(cells) for cells in (MAX_LEAVES, length))
        raise ValueError(
            f"Expected an instance of at most {MAX_LEAVES} cells to draw, but got {length} ({got}; {limit} at most)."
        )
    trace = model.trace(instance) if trace is None else trace
    last = len(trace["steps"]) - 1
    if steps is None:
        panels = _Drawing(model, instance, trace, range(last + 1)).most_panels
        return _Drawing(model, instance, trace, spread(last + 1, panels), is_selection=True).render()
    shown = [plain(step) for step in plain(steps)]
    if not shown:
        raise ValueError("Expected at least one step to draw, but got none.")
    for step in shown:
        if type(step) is not int or not 0 <= step <= last:
            raise ValueError(f"Expected steps from 0 to {last}, but got {step}.")
    return _Drawing(model, instance, trace, shown).render()


def spread(total: int, most: int) -> list[int]:
    """Return at most ``most`` of the numbers below ``total``, spread evenly from the first to the last.

    >>> spread(4, 9), spread(65, 5), spread(65, 1)
    ([0, 1, 2, 3], [0, 16, 32, 48, 64], [0])
    """
    if total <= most:
        return list(range(total))
    return sorted({round(place * (total - 1) / max(most - 1, 1)) for place in range(most)})


class _Drawing:
    """Small trees in a grid, below a heading and above a legend.

    Elements in SVG have ids such as ``step-2``, and ``step-2.leaf-5.attended`` for a leaf and its label.
    """

    def __init__(
        self, model: TaskModel, instance: Any, trace: Trace, shown: Sequence[int], *, is_selection: bool = False
    ) -> None:
        self.task = task = model.task
        self.trace = trace
        self.shown = shown
        self.is_selection = is_selection
        by_operation = isinstance(task, Structure) and model.controller_name == "raw_ham"
        self.operations: Operations | None = [tuple(operation) for operation in instance] if by_operation else None
        self.cells = [] if by_operation else task.label_cells(instance)
        self.symbols = _symbols(model, trace, instance)
        self.expected = task.oracle(instance)
        self.clock = "t =" if model.accesses_per_output == 1 else "access"
        self.depth = trace["num_leaves"].bit_length() - 1
        self.grouped = any(cell.group for cell in self.cells)
        self.panel_width = trace["num_leaves"] * _PITCH
        self.leaf_top = _PANEL_TOP + self.depth * _LEVEL
        self.output_top = self.leaf_top + _LEAF_HEIGHT + 9
        self.panel_height = self.output_top + 22 + (24 if self.grouped else 0)
        self.most_columns = max(1, int((_MOST_WIDTH - 2 * _MARGIN + _GUTTER) // (self.panel_width + _GUTTER)))

    @property
    def most_panels(self) -> int:
        """Most trees in a picture of the greatest height."""
        rows = int((MAX_HEIGHT - _TOP - 2 * _MARGIN) // (self.panel_height + _GUTTER))
        return max(1, rows) * self.most_columns

    def render(self) -> Picture:
        rows = math.ceil(len(self.shown) / self.most_columns)
        columns = math.ceil(len(self.shown) / rows)
        content = columns * (self.panel_width + _GUTTER) - _GUTTER
        width = max(_LEAST_WIDTH, content + 2 * _MARGIN)
        left = (width - content) / 2
        legend = self._legend(width, _TOP + rows * (self.panel_height + _GUTTER))
        height = legend[-1].y + 7 + _MARGIN
        self.canvas = canvas = Canvas(width, height)
        canvas.box((0.5, 0.5), width - 1, height - 1, 10, _PAGE, "background")
        canvas.text(_MARGIN, 38, self._heading(), _HEADING)
        canvas.text(_MARGIN, 58, self._verdict(), _NOTE)
        for position, step in enumerate(self.shown):
            self.x = left + position % columns * (self.panel_width + _GUTTER)
            self.y = _TOP + position // columns * (self.panel_height + _GUTTER)
            self.name = f"step-{step}" if self.shown.index(step) == position else f"step-{step}-again-{position}"
            self._panel(step)
        for entry in legend:
            self._mark(entry)
        return Picture(canvas.figure, width, height, self._heading(), self._description())

    def _heading(self) -> str:
        total = len(self.trace["steps"])
        number = f" in {len(self.shown)} of {total} steps" if self.is_selection and len(self.shown) < total else ""
        return f"One episode of {self.task.name}: the path of attention{number}"

    def _verdict(self) -> str:
        answer, expected = (_abbreviated(str(value), 80) for value in (self.trace["answer"], self.expected))
        if self.trace["answer"] == self.expected:
            return f"The model's answer, which is right: {answer}"
        return f"The model's answer, which is wrong: {answer} instead of {expected}"

    def _description(self) -> str:
        sentences = [f"A binary tree over {self.trace['num_leaves']} leaves, drawn for {len(self.shown)} accesses."]
        if self.operations is None:
            begun = "; ".join(f"leaf {leaf}: {cell.value}" for leaf, cell in enumerate(self.cells))
            sentences.append(f"The leaves begin with {begun}.")
        for step in self.shown:
            attended = self.trace["steps"][step]
            sentences.append(
                f"Access {step} reads leaf {attended['leaf']}; put out: {self.symbols[step] or 'nothing yet'}."
            )
        return " ".join([*sentences, f"{self._verdict()}."])

    def _panel(self, step: int) -> None:
        access = self.trace["steps"][step]
        operation = f": {_operation_in_words(self.operations[step])}" if self.operations else ""
        self.canvas.text(self.x + 3, self.y + 12, f"{self.clock} {step}{operation}", _TIME, self.name)
        self._edges(access)
        self._nodes(access)
        if self.grouped:
            self._groups()
        if self.symbols[step]:
            self._output(access, self.symbols[step])
        contents = self._contents(step)
        rewritten = (
            {earlier["leaf"] for earlier in self.trace["steps"][:step]} if not self.operations else set(contents)
        )
        for leaf in range(self.trace["num_leaves"]):
            self._leaf(leaf, contents, leaf == access["leaf"], leaf in rewritten)

    def _contents(self, step: int) -> dict[int, object]:
        """Return the labels of the leaves at a step: their initial cells, or the elements they hold."""
        if self.operations is None:
            return {leaf: cell.value for leaf, cell in enumerate(self.cells)}
        held: dict[int, object] = {}
        for number, (operation, access) in enumerate(zip(self.operations, self.trace["steps"], strict=True)):
            if number > step:
                break
            operands = operation[1:]
            if operands:
                held[access["leaf"]] = operands if len(operands) > 1 else operands[0]
            elif number < step:  # an element is still shown while it is popped
                held.pop(access["leaf"], None)
        return held

    def _place(self, level: int, index: int) -> Point:
        """Return the centre of a node, or the end of the edge to a leaf."""
        span = self.panel_width / (1 << level)
        down = _PANEL_TOP + level * _LEVEL - (_RADIUS if level < self.depth else 0)
        return self.x + (index + 0.5) * span, self.y + down

    def _edges(self, access: TraceStep) -> None:
        taken: list[tuple[Point, Point]] = []
        others: list[tuple[Point, Point]] = []
        for level in range(self.depth):
            for child in range(2 << level):
                edge = self._place(level, child >> 1), self._place(level + 1, child)
                on_path = access["leaf"] >> (self.depth - level - 1) == child
                (taken if on_path else others).append(edge)
        if self.depth:
            self.canvas.lines(others, _EDGE, f"{self.name}.edges")
        for edge in taken:
            self.canvas.lines([edge], _EDGE_TAKEN, f"{self.name}.path")

    def _nodes(self, access: TraceStep) -> None:
        taken: list[Point] = []
        others: list[Point] = []
        for level in range(self.depth):
            for node in range(1 << level):
                on_path = access["leaf"] >> (self.depth - level) == node
                (taken if on_path else others).append(self._place(level, node))
        if others:
            self.canvas.circles(others, 3, _NODE_COLOUR, f"{self.name}.nodes")
        for centre in taken:
            self.canvas.circle(centre, _RADIUS, _GREEN, f"{self.name}.nodes-taken")
        for level, (x, y) in enumerate(taken):
            probability = _probability(access["branch_probabilities"][level])
            self.canvas.text(x, y + 3.5, probability, _PROBABILITY, f"{self.name}.probability-{level}")

    def _leaf(self, leaf: int, contents: dict[int, object], attended: bool, rewritten: bool) -> None:
        x, y = self.x + (leaf + 0.5) * _PITCH, self.y + self.leaf_top
        blank = leaf not in contents
        states = {"blank": blank, "rewritten": rewritten, "attended": attended}
        name = ".".join([f"{self.name}.leaf-{leaf}", *(state for state, holds in states.items() if holds)])
        corner = (x - _LEAF_WIDTH / 2, y)
        self.canvas.box(corner, _LEAF_WIDTH, _LEAF_HEIGHT, 5, _leaf_pen(**states), name)
        lines = ["blank"] if blank else _lines(contents[leaf])
        places = [("first", 15), ("second", 30)] if len(lines) == 2 else [("first", 23)]
        for line, (ordinal, down) in zip(lines, places, strict=True):
            colour = _WHITE if attended else "#6b7685" if blank else _GREY if ordinal == "second" else _DARK
            ink = Ink(9.5 if blank else 10.5, colour, bold=not blank and ordinal == "first")
            self.canvas.text(x, y + down, line, ink, name)

    def _groups(self) -> None:
        y = self.y + self.output_top + 31
        for name in dict.fromkeys(cell.group for cell in self.cells):
            places = [leaf for leaf, cell in enumerate(self.cells) if cell.group == name]
            left, right = self.x + places[0] * _PITCH + 4, self.x + (places[-1] + 1) * _PITCH - 4
            self.canvas.lines([((left, y), (right, y))], _EDGE)
            self.canvas.text((left + right) / 2, y + 13, name, _GROUP, f"{self.name}.group-{places[0]}")

    def _output(self, access: TraceStep, symbol: str) -> None:
        symbol = _abbreviated(symbol, 9)
        width = max(_LEAF_WIDTH, 8.2 * len(symbol) + 14)
        leaf_x = (access["leaf"] + 0.5) * _PITCH
        x = min(max(leaf_x, width / 2), max(self.panel_width - width / 2, width / 2))
        x, leaf_x, y = self.x + x, self.x + leaf_x, self.y + self.output_top
        name = f"{self.name}.output"
        self.canvas.lines([((leaf_x, self.y + self.leaf_top + _LEAF_HEIGHT), (leaf_x, y))], _OUTPUT_LINE, name)
        self.canvas.box((x - width / 2, y), width, 22, 11, _OUTPUT_BOX, name)
        self.canvas.text(x, y + 15.5, symbol, _OUTPUT, name)

    def _legend(self, width: float, top: float) -> list[_Entry]:
        """Return the legend's entries for marks that occur, with their places."""
        entries = [
            (self.depth > 0, "node", "probability of going right; taken above 1/2"),
            (bool(self.task.cell_labels), "leaf", self.task.cell_labels),
            (True, "attended", "leaf read, then rewritten"),
            (
                max(self.shown) > 0,
                "rewritten",
                "holds an element" if self.operations else "rewritten earlier; label as at the start",
            ),
            (
                len(self.cells) < self.trace["num_leaves"],
                "blank",
                "holds nothing" if self.operations else "no input",
            ),
            (any(self.symbols[step] for step in self.shown), "output", "put out"),
        ]
        x, y, found = _MARGIN, top, []
        for mark, meaning in (entry for occurs, *entry in entries if occurs):
            advance = 26 + 6.0 * len(meaning) + 18
            if x > _MARGIN and x + advance - 18 > width - _MARGIN:
                x, y = _MARGIN, y + 22
            found.append(_Entry(mark, meaning, x, y))
            x += advance
        return found

    def _mark(self, entry: _Entry) -> None:
        """Draw a mark of the legend and its meaning."""
        mark, meaning, x, y = entry
        if mark == "node":
            self.canvas.circle((x + 9, y), 9, _GREEN)
            self.canvas.text(x + 9, y + 3, "p", _PROBABILITY)
        else:
            states = {state: mark == state for state in ("blank", "rewritten", "attended")}
            pen, radius = (_OUTPUT_BOX, 7) if mark == "output" else (_leaf_pen(**states), 3)
            self.canvas.box((x, y - 7), 18, 14, radius, pen)
        self.canvas.text(x + 26, y + 4, meaning, _NOTE, f"legend.{mark}")


class _Entry(NamedTuple):
    """An entry of the legend."""

    mark: str
    meaning: str
    x: float
    y: float


def _leaf_pen(*, blank: bool, rewritten: bool, attended: bool) -> Pen:
    if attended:
        return Pen(_GREEN, _GREEN)
    if rewritten:
        return Pen("#d9ece9", "#8fc1bb", dashed=blank)
    return Pen("none" if blank else _WHITE, "#b9c2cd", dashed=blank)


def _symbols(model: TaskModel, trace: Trace, instance: Any) -> list[str]:
    """Return the output at each access, as text.

    It is empty before the last access of a timestep, and for a symbol that does not count.
    """
    task = model.task
    num_symbols = len(trace["steps"]) // model.accesses_per_output - task.silent_timesteps - task.predicts_end
    counts = task.symbols_that_count(task.instance_to_cells(instance), num_symbols).tolist()
    symbols, ended = [], False
    for access, step in enumerate(trace["steps"]):
        timestep, rest = divmod(access + 1, model.accesses_per_output)
        bits = torch.tensor(step["output"])
        if rest:
            symbols.append("")
        elif ended:
            symbols.append("after end")
        elif timestep <= task.silent_timesteps:
            symbols.append("unscored")
        elif timestep - task.silent_timesteps <= num_symbols and not counts[timestep - task.silent_timesteps - 1]:
            symbols.append("")
        elif task.predicts_end and bits[-1]:
            symbols.append("end")
            ended = True
        else:
            symbols.append(_in_words(task.symbols_to_answer(task.symbol_bits(bits).unsqueeze(0))))
    return symbols


def _operation_in_words(operation: tuple[Any, ...]) -> str:
    """Return ``push 9, 4``, ``push 7`` or ``pop``."""
    return f"{operation[0]} {', '.join(map(str, operation[1:]))}".rstrip()


def _in_words(answer: object) -> str:
    """Return an answer of one symbol, without the brackets around it."""
    if isinstance(answer, list) and len(answer) == 1:
        (answer,) = answer
    return ", ".join(map(_short, answer)) if isinstance(answer, tuple) else _short(answer)


def _lines(value: object) -> list[str]:
    """Return the one or two lines of a leaf's label."""
    parts = value if isinstance(value, list | tuple) and len(value) == 2 else [value]
    return [_abbreviated(_short(part), _LABEL_LENGTH) for part in parts]


def _short(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    rounded = f"{value:.3f}".rstrip("0").rstrip(".")
    return rounded if float(rounded) or not value else f"{value:.0e}"


def _probability(value: float) -> str:
    """Return a probability with two digits, or up to four to tell it from 1/2."""
    digits = next((digits for digits in (2, 3) if round(value, digits) != 0.5), 4)
    return f"{value:.{digits}f}"


def _abbreviated(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
