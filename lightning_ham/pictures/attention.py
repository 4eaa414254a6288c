"""The path of attention through one instance, drawn as SVG: a small tree for each access to the memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any
from xml.sax.saxutils import escape

import torch

from lightning_ham.models import TaskModel, Trace, TraceStep
from lightning_ham.tasks.plain import plain
from lightning_ham.tasks.structures import Operations, Structure

MAX_LEAVES = 64
"""Most leaves of a tree that is drawn: the labels of more could not be read."""

MAX_HEIGHT = 3000.0
"""Of a picture whose steps were not asked for, in pixels: of more, only some are drawn."""

_PITCH, _LEAF_WIDTH, _LEAF_HEIGHT, _LEVEL, _RADIUS = 40.0, 34.0, 38.0, 47.0, 13.0
_MARGIN, _GUTTER, _PANEL_TOP = 28.0, 36.0, 44.0
_LEAST_WIDTH, _MOST_WIDTH, _TOP = 500.0, 1150.0, 84.0
_LABEL_LENGTH = 5  # characters that fit in a leaf

_STYLE = """\
text { font-family: ui-sans-serif, system-ui, -apple-system, "Segoe UI", Inter, Helvetica, Arial, sans-serif; \
font-size: 11px; fill: #1c2430; text-anchor: middle; font-variant-numeric: tabular-nums }
.heading { font-size: 17px; font-weight: 600; text-anchor: start }
.note { font-size: 12px; fill: #5b6675; text-anchor: start }
.time { font-size: 13px; font-weight: 600; text-anchor: start }
.group { font-size: 10px; fill: #5b6675 }
.edge { stroke: #d5dbe2; stroke-width: 1.5; fill: none }
.edge.taken { stroke: #0b6e69; stroke-width: 2.5 }
.node circle { fill: #c3cbd5 }
.node.taken circle { fill: #0b6e69 }
.node.taken text { fill: #ffffff; font-size: 9.5px; font-weight: 600 }
.leaf rect { fill: #ffffff; stroke: #b9c2cd; stroke-width: 1 }
.leaf text { font-size: 10.5px }
.leaf .first { font-weight: 600 }
.leaf .second { fill: #5b6675 }
.leaf.blank rect { fill: none; stroke-dasharray: 3 3 }
.leaf.blank text { fill: #6b7685; font-size: 9.5px; font-weight: 400 }
.leaf.rewritten rect { fill: #d9ece9; stroke: #8fc1bb }
.leaf.attended rect { fill: #0b6e69; stroke: #0b6e69; stroke-dasharray: none }
.leaf.attended text { fill: #ffffff }
.output line { stroke: #0b6e69; stroke-width: 1.5 }
.output rect { fill: #fdf0dc; stroke: #c77d11; stroke-width: 1 }
.output text { font-size: 12.5px; font-weight: 600; fill: #7a4a04 }"""


def attention_svg(model: TaskModel, instance: Any, steps: Sequence[int] | None = None) -> str:
    """Draw what a model attends to while it answers an instance.

    Args:
        model: A trained model.
        instance: An instance of its task.
        steps: Which accesses to the memory to draw, counted from 0 as in :meth:`~lightning_ham.models.TaskModel.trace`.
            If not given, all, or from the first to the last so many as stand in :data:`MAX_HEIGHT` pixels.

    Returns:
        The text of an SVG file with a background of its own.

    Raises:
        InstanceError: If the instance is not one of the task's.
        ValueError: If it is too long to draw, a step is not one of the trace's, or the model has no memory.
    """
    task = model.task
    instance = task.accept(instance)
    length = task.instance_length(instance)
    if length > MAX_LEAVES:
        limit, got = (task.size_in_words(cells) for cells in (MAX_LEAVES, length))
        raise ValueError(
            f"Expected an instance of at most {MAX_LEAVES} cells to draw, but got {length} ({got}; {limit} at most)."
        )
    trace = model.trace(instance)
    last = len(trace["steps"]) - 1
    if steps is None:
        panels = _Picture(model, instance, trace, range(last + 1)).most_panels
        return _Picture(model, instance, trace, spread(last + 1, panels), is_selection=True).render()
    shown = [plain(step) for step in plain(steps)]
    if not shown:
        raise ValueError("Expected at least one step to draw, but got none.")
    for step in shown:
        if type(step) is not int or not 0 <= step <= last:
            raise ValueError(f"Expected steps from 0 to {last}, but got {step}.")
    return _Picture(model, instance, trace, shown).render()


def spread(total: int, most: int) -> list[int]:
    """Return at most so many of the numbers from 0 to below the total, spread evenly from the first to the last.

    >>> spread(4, 9), spread(65, 5), spread(65, 1)
    ([0, 1, 2, 3], [0, 16, 32, 48, 64], [0])
    """
    if total <= most:
        return list(range(total))
    return sorted({round(place * (total - 1) / max(most - 1, 1)) for place in range(most)})


class _Picture:
    """Small trees in a grid, a heading above them, and below them what the marks mean."""

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
        """How many stand in a picture of the largest height."""
        rows = int((MAX_HEIGHT - _TOP - 2 * _MARGIN) // (self.panel_height + _GUTTER))
        return max(1, rows) * self.most_columns

    def render(self) -> str:
        rows = math.ceil(len(self.shown) / self.most_columns)
        columns = math.ceil(len(self.shown) / rows)
        content = columns * (self.panel_width + _GUTTER) - _GUTTER
        width = max(_LEAST_WIDTH, content + 2 * _MARGIN)
        left = (width - content) / 2
        top = _TOP
        panels = []
        for position, step in enumerate(self.shown):
            x = left + position % columns * (self.panel_width + _GUTTER)
            y = top + position // columns * (self.panel_height + _GUTTER)
            panels += [f'<g class="step" data-step="{step}" transform="translate({x:g} {y:g})">']
            panels += [*self._panel(step), "</g>"]
        legend_top = top + rows * (self.panel_height + _GUTTER)
        legend, height = self._legend(width, legend_top)
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
                f'height="{height:g}" role="img" aria-labelledby="ham-title ham-description">',
                f'<title id="ham-title">{_text(self._heading())}</title>',
                f'<desc id="ham-description">{_text(self._description())}</desc>',
                f"<style>\n{_STYLE}\n</style>",
                f'<rect x="0.5" y="0.5" width="{width - 1:g}" height="{height - 1:g}" rx="10" fill="#fbfbf9" '
                'stroke="#dfe3e8"/>',
                f'<text class="heading" x="{_MARGIN:g}" y="38">{_text(self._heading())}</text>',
                f'<text class="note" x="{_MARGIN:g}" y="58">{_text(self._verdict())}</text>',
                *panels,
                *legend,
                "</svg>\n",
            ]
        )

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
        for step in self.shown:
            attended = self.trace["steps"][step]
            sentences.append(
                f"Access {step} reads leaf {attended['leaf']}; put out: {self.symbols[step] or 'nothing yet'}."
            )
        return " ".join([*sentences, f"{self._verdict()}."])

    def _panel(self, step: int) -> Iterator[str]:
        access = self.trace["steps"][step]
        operation = f": {_operation_in_words(self.operations[step])}" if self.operations else ""
        yield f'<text class="time" x="3" y="12">{self.clock} {step}{operation}</text>'
        yield from self._edges(access)
        yield from self._nodes(access)
        if self.grouped:
            yield from self._groups()
        if self.symbols[step]:
            yield from self._output(access, self.symbols[step])
        contents = self._contents(step)
        rewritten = (
            {earlier["leaf"] for earlier in self.trace["steps"][:step]} if not self.operations else set(contents)
        )
        for leaf in range(self.trace["num_leaves"]):
            yield from self._leaf(leaf, contents, leaf == access["leaf"], leaf in rewritten)

    def _contents(self, step: int) -> dict[int, object]:
        """Return what the labels of the leaves say at a step: what they began with, or the elements that they hold."""
        if self.operations is None:
            return {leaf: cell.value for leaf, cell in enumerate(self.cells)}
        held: dict[int, object] = {}
        for number, (operation, access) in enumerate(zip(self.operations, self.trace["steps"], strict=True)):
            if number > step:
                break
            operands = operation[1:]
            if operands:
                held[access["leaf"]] = operands if len(operands) > 1 else operands[0]
            elif number < step:  # what is popped is shown where it is found
                held.pop(access["leaf"], None)
        return held

    def _place(self, level: int, index: int) -> tuple[float, float]:
        """Return the centre of a node, or where the edge to a leaf ends."""
        span = self.panel_width / (1 << level)
        return (index + 0.5) * span, _PANEL_TOP + level * _LEVEL - (_RADIUS if level < self.depth else 0)

    def _edges(self, access: TraceStep) -> Iterator[str]:
        taken = []
        for level in range(self.depth):
            for child in range(2 << level):
                (x, y), (child_x, child_y) = self._place(level, child >> 1), self._place(level + 1, child)
                line = f'd="M{x:g} {y:g}L{child_x:g} {child_y:g}"/>'
                if access["leaf"] >> (self.depth - level - 1) == child:
                    taken.append(f'<path class="edge taken" {line}')
                else:
                    yield f'<path class="edge" {line}'
        yield from taken  # above the others

    def _nodes(self, access: TraceStep) -> Iterator[str]:
        for level in range(self.depth):
            for index in range(1 << level):
                x, y = self._place(level, index)
                if access["leaf"] >> (self.depth - level) == index:
                    probability = _probability(access["branch_probabilities"][level])
                    yield f'<g class="node taken"><circle cx="{x:g}" cy="{y:g}" r="{_RADIUS:g}"/>'
                    yield f'<text x="{x:g}" y="{y + 3.4:g}">{probability}</text></g>'
                else:
                    yield f'<g class="node"><circle cx="{x:g}" cy="{y:g}" r="3"/></g>'

    def _leaf(self, leaf: int, contents: dict[int, object], attended: bool, rewritten: bool) -> Iterator[str]:
        x, y = (leaf + 0.5) * _PITCH, self.leaf_top
        blank = leaf not in contents
        states = {"blank": blank, "rewritten": rewritten, "attended": attended}
        classes = " ".join(["leaf", *(state for state, holds in states.items() if holds)])
        lines = ["blank"] if blank else _lines(contents[leaf])
        full = "blank" if blank else str(contents[leaf])
        yield f'<g class="{classes}" data-leaf="{leaf}"><title>{_text(f"leaf {leaf}: {full}")}</title>'
        yield f'<rect x="{x - _LEAF_WIDTH / 2:g}" y="{y:g}" width="{_LEAF_WIDTH:g}" height="{_LEAF_HEIGHT:g}" rx="5"/>'
        places = [("first", 15), ("second", 30)] if len(lines) == 2 else [("first", 23)]
        for line, (ordinal, down) in zip(lines, places, strict=True):
            yield f'<text class="{ordinal}" x="{x:g}" y="{y + down:g}">{_text(line)}</text>'
        yield "</g>"

    def _groups(self) -> Iterator[str]:
        y = self.output_top + 31
        names = list(dict.fromkeys(cell.group for cell in self.cells))
        for name in names:
            members = [leaf for leaf, cell in enumerate(self.cells) if cell.group == name]
            left, right = members[0] * _PITCH + 4, (members[-1] + 1) * _PITCH - 4
            yield f'<path class="edge" d="M{left:g} {y:g}H{right:g}"/>'
            yield f'<text class="group" x="{(left + right) / 2:g}" y="{y + 13:g}">{_text(name)}</text>'

    def _output(self, access: TraceStep, symbol: str) -> Iterator[str]:
        symbol = _abbreviated(symbol, 9)
        width = max(_LEAF_WIDTH, 7.2 * len(symbol) + 14)
        leaf_x = (access["leaf"] + 0.5) * _PITCH
        x = min(max(leaf_x, width / 2), max(self.panel_width - width / 2, width / 2))
        leaf_y, y = self.leaf_top + _LEAF_HEIGHT, self.output_top
        yield f'<g class="output"><line x1="{leaf_x:g}" y1="{leaf_y:g}" x2="{leaf_x:g}" y2="{y:g}"/>'
        yield f'<rect x="{x - width / 2:g}" y="{y:g}" width="{width:g}" height="22" rx="11"/>'
        yield f'<text x="{x:g}" y="{y + 15.5:g}">{_text(symbol)}</text></g>'

    def _legend(self, width: float, top: float) -> tuple[list[str], float]:
        """Return the marks and what they mean, and the height of the picture that ends with them."""
        entries = [
            (self.depth > 0, "node taken", "probability of going right; taken above 1/2"),
            (bool(self.task.cell_labels), "leaf", self.task.cell_labels),
            (True, "leaf attended", "leaf read, then rewritten"),
            (
                max(self.shown) > 0,
                "leaf rewritten",
                "holds an element" if self.operations else "rewritten earlier; label as at the start",
            ),
            (
                len(self.cells) < self.trace["num_leaves"],
                "leaf blank",
                "holds nothing" if self.operations else "no input",
            ),
            (any(self.symbols[step] for step in self.shown), "output", "put out"),
        ]
        x, y, parts = _MARGIN, top, []
        for mark, meaning in (entry for occurs, *entry in entries if occurs):
            advance = 26 + 5.7 * len(meaning) + 18
            if x > _MARGIN and x + advance - 18 > width - _MARGIN:
                x, y = _MARGIN, y + 22
            shape = f'<circle cx="{x + 9:g}" cy="{y:g}" r="9"/><text x="{x + 9:g}" y="{y + 3:g}">p</text>'
            if mark != "node taken":
                shape = f'<rect x="{x:g}" y="{y - 7:g}" width="18" height="14" rx="{7 if mark == "output" else 3}"/>'
            parts.append(
                f'<g class="{mark}">{shape}</g><text class="note" x="{x + 26:g}" y="{y + 4:g}">{meaning}</text>'
            )
            x += advance
        return parts, y + 7 + _MARGIN


def _symbols(model: TaskModel, trace: Trace, instance: Any) -> list[str]:
    """Return what was put out at each access, in words or numbers.

    There is nothing before the last access of a timestep, and at a symbol that does not count.
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
    """Return the answer that a single symbol spells, without the brackets around it."""
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
    """Return a probability in two digits, or in as many as it takes to be seen on its side of 1/2."""
    digits = next((digits for digits in (2, 3) if round(value, digits) != 0.5), 4)
    return f"{value:.{digits}f}"


def _abbreviated(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _text(text: str) -> str:
    """Return text as XML may hold it."""
    return escape("".join(character if character.isprintable() else "�" for character in text))
