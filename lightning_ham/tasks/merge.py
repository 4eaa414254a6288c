"""Merge: merge two sequences that are sorted by priority."""

import heapq
import math
from collections.abc import Mapping
from operator import itemgetter
from typing import ClassVar

import torch
from torch import Tensor

from lightning_ham.tasks.checks import expect_integer, expect_list, expect_two, mismatch
from lightning_ham.tasks.csv_form import CsvForm, integer, number, reader
from lightning_ham.tasks.episode import Episodes, to_bits
from lightning_ham.tasks.sequences import NUM_VALUES, VALUE_BITS, draw_below, guide_in_order, to_integers
from lightning_ham.tasks.task import CellLabel, Task

PrioritisedPair = tuple[float, int]
MergeInstance = tuple[list[PrioritisedPair], list[PrioritisedPair]]


class Merge(Task[MergeInstance, list[int]]):
    """Merge two sequences that are sorted by priority, and output the values (the paper's Merge).

    An instance is two lists of (priority, value) pairs; one list may be empty. Priorities are above 0 and
    up to 1, ascend within each list, and are all distinct (as 32-bit numbers); values are from 0 to 31. A
    cell is the priority as a real number, the value's 5 bits, most significant first, and a flag that is 1 in the
    second sequence::

        cells    (0.2, 7, 0)  (0.9, 1, 0)  (0.1, 30, 1)  (0.5, 2, 1)  (0.6, 7, 1)
        outputs  30  7  2  7  1  end

    Sampled priorities are 32-bit numbers, uniform given that any two are at least 1e-5 apart. The first sequence is a
    random subset of the pairs, its size uniform from none to all; the paper leaves this open. In a hard case the
    priorities come from a narrow window: in half of the hard cases neighbours are 1e-5 to 3e-5 apart on average, in the
    other half from 1e-5 up to the usual distance (uniform on a logarithmic scale).

    The variant ``grid`` has the paper's priorities: multiples of 1/300, or of 1/length for lengths above 300. In a hard
    case they come from a window of adjacent multiples, one to three times as many as there are pairs.
    """

    name = "merge"
    unit = "pairs"
    input_size = 1 + VALUE_BITS + 1
    output_size = VALUE_BITS + 1
    num_guided = 1
    has_hard_cases = True

    variants: ClassVar[Mapping[str, str]] = {"grid": "priorities are multiples of 1/300, as in the paper"}

    grid_steps = 300
    widest_window = 3
    least_distance: ClassVar[float] = 1e-5
    """Least distance of two sampled priorities, up to rounding; less in instances too long for it."""
    cell_labels = "priority above, value below"
    example = "[[[0.2, 7], [0.9, 1]], [[0.5, 2]]]"

    paper_errors: ClassVar = {
        "1-32 (grid)": {"lstm": "88", "lstm_attention": "16", "ham": "0"},
        "33-128 (grid)": {"lstm_attention": "100", "ham": "2.48"},
    }
    bar: ClassVar = {"1-32": 0.0, "33-128": 0.002}

    def check(self, instance: object) -> None:
        places: dict[float, str] = {}
        sequences = expect_two(instance, "two lists of (priority, value) pairs")
        for ordinal, sequence in zip(("first", "second"), sequences, strict=True):
            pairs = expect_list(sequence, "pairs", f"{ordinal} sequence", may_be_empty=True)
            previous = 0.0
            for index, pair in enumerate(pairs, 1):
                place = f"pair {index} of the {ordinal} sequence"
                priority, value = expect_two(pair, "a (priority, value) pair", place)
                expect_integer(value, "values", place, limit=NUM_VALUES)
                stored = _expect_priority(priority, place)
                if stored in places:
                    both = f"{places[stored]}, {place}"
                    raise mismatch("priorities that differ as 32-bit numbers", f"{stored:g} twice", both)
                if stored < previous:
                    raise mismatch("priorities that ascend", f"{stored:g} after {previous:g}", place)
                places[stored] = place
                previous = stored
        if not places:
            raise mismatch("at least one pair", "two empty sequences")

    def outside_samples(self, instance: MergeInstance) -> str | None:
        priorities = torch.tensor([priority for pairs in instance for priority, _ in pairs], dtype=torch.float32)
        distances = priorities.double().sort().values.diff()
        least = float(distances.min()) if len(distances) else math.inf
        if least >= 0.99 * self.least_distance:  # 0.99 allows for rounding to 32 bits
            return None
        return f"two priorities are {least:.1g} apart, and those of samples at least {self.least_distance:g}"

    def oracle(self, instance: MergeInstance) -> list[int]:
        return [value for _, value in heapq.merge(*instance, key=itemgetter(0))]

    def csv_form(self) -> CsvForm:
        return CsvForm(
            columns=("priority", "value"),
            row="a number and an integer priority,value",
            read_row=reader(number, integer),
            to_instance=lambda first, second: (first, second),
            files=("pair {} of the first sequence", "pair {} of the second sequence"),
            contents="two files, each sorted",
            answers="the values, a line each",
        )

    def instance_to_cells(self, instance: MergeInstance) -> Tensor:
        rows = [(priority, value, flag) for flag, pairs in enumerate(instance) for priority, value in pairs]
        priorities, values, flags = map(torch.tensor, zip(*rows, strict=True))
        return _merge_cells(priorities, values, flags)

    def cells_to_instance(self, cells: Tensor) -> MergeInstance:
        pairs = list(zip(cells[:, 0].tolist(), to_integers(cells[:, 1:-1]), strict=True))
        num_first = int((cells[:, -1] == 0).sum())
        return pairs[:num_first], pairs[num_first:]

    def answer_to_symbols(self, answer: list[int], length: int) -> Tensor:
        return to_bits(torch.tensor(answer), VALUE_BITS)

    def symbols_to_answer(self, symbols: Tensor) -> list[int]:
        return to_integers(symbols)

    def guide(self, episodes: Episodes) -> Tensor:
        return guide_in_order(episodes.inputs[..., 0], episodes)

    def label_cells(self, instance: MergeInstance) -> list[CellLabel]:
        groups = zip(("first", "second"), instance, strict=True)
        return [CellLabel(pair, group) for group, pairs in groups for pair in pairs]

    def draw(self, lengths: Tensor, hard: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        return self._share_out(self._draw_priorities(lengths, hard, generator), lengths, generator)

    def draw_variant(
        self, variant: str, lengths: Tensor, hard: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        longest = int(lengths.max())
        steps = lengths.clamp(min=self.grid_steps)
        windows = lengths + draw_below((self.widest_window - 1) * lengths + 1, generator)
        windows = torch.where(hard, windows.minimum(steps), steps)
        starts = 1 + draw_below(steps - windows + 1, generator)
        # The places of the smallest random scores are a random subset of the window.
        scores = torch.rand(len(lengths), int(steps.max()), generator=generator)
        scores.masked_fill_(torch.arange(scores.shape[1]) >= windows.unsqueeze(1), torch.inf)
        multiples = starts.unsqueeze(1) + scores.topk(longest, largest=False).indices
        multiples.masked_fill_(torch.arange(longest) >= lengths.unsqueeze(1), 2 * scores.shape[1])
        return self._share_out(multiples.sort(1).values / steps.unsqueeze(1), lengths, generator)

    def _share_out(
        self, priorities: Tensor, lengths: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Draw values for ascending priorities [batch, longest], and divide the pairs between two sequences."""
        position = torch.arange(priorities.shape[1])
        beyond = position >= lengths.unsqueeze(1)
        scores = torch.rand(priorities.shape, generator=generator).masked_fill(beyond, torch.inf)
        place = scores.argsort(1).argsort(1)  # rank of each pair in a random order; padding comes last
        flags = (place >= draw_below(lengths + 1, generator).unsqueeze(1)).long()
        by_cell = (flags + 2 * beyond).argsort(dim=1, stable=True)
        values = torch.randint(NUM_VALUES, priorities.shape, generator=generator)
        cells = _merge_cells(priorities.gather(1, by_cell), values.gather(1, by_cell), flags.gather(1, by_cell))
        return cells, to_bits(values, VALUE_BITS)

    def _draw_priorities(self, lengths: Tensor, hard: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draw ascending priorities, float32 of shape [batch, longest]; numbers beyond a row's length are arbitrary."""
        longest = int(lengths.max())
        rounding = 1.01  # allows for rounding to 32 bits, which may bring two numbers closer together
        least = torch.full(lengths.shape, rounding * self.least_distance, dtype=torch.float64).minimum(0.5 / lengths)
        widest = 1 / lengths.double()
        fine = torch.rand(lengths.shape, generator=generator) < 0.5
        share = torch.rand(lengths.shape, dtype=torch.float64, generator=generator)
        mean = torch.where(fine, (1 + 2 * share) * least, least * (widest / least) ** share).minimum(widest)
        mean = torch.where(hard, mean, widest)  # average distance of neighbours
        start = torch.rand(lengths.shape, dtype=torch.float64, generator=generator) * (1 - mean * lengths)

        # Uniform over the window, given the least distance.
        position = torch.arange(longest)
        room = torch.rand(len(lengths), longest, dtype=torch.float64, generator=generator)
        room = room.masked_fill(position >= lengths.unsqueeze(1), 1.0).sort(1).values
        room = room * ((mean - least) * lengths).unsqueeze(1)
        return (start.unsqueeze(1) + room + (position + 1) * least.unsqueeze(1)).float()


def _merge_cells(priorities: Tensor, values: Tensor, flags: Tensor) -> Tensor:
    """Return cells [..., 7] from priorities, values, and flags of the second sequence, each of shape [...]."""
    return torch.cat([priorities.unsqueeze(-1), to_bits(values, VALUE_BITS), flags.unsqueeze(-1)], dim=-1)


def _expect_priority(candidate: object, place: str) -> float:
    """Return the candidate, rounded to 32 bits as in a cell, if it is a priority."""
    if isinstance(candidate, bool) or not isinstance(candidate, int | float):
        raise mismatch("priorities that are numbers", type(candidate).__name__, place)
    stored = torch.tensor(candidate, dtype=torch.float32).item() if 0 < candidate <= 1 else 0.0
    if stored == 0:
        raise mismatch("priorities above 0 and up to 1", candidate, place)
    return stored
