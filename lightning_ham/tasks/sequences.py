"""The five tasks of the HAM paper's LSTM+HAM (arXiv 1602.03218), in the order of its table of results."""

import heapq
import math
from bisect import bisect_left
from collections.abc import Mapping
from operator import itemgetter
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_ham.tasks.checks import expect_integer, expect_list, expect_two, mismatch
from lightning_ham.tasks.episode import Episodes, from_bits, to_bits
from lightning_ham.tasks.task import CellLabel, Task

Pair = tuple[int, int]
PrioritisedPair = tuple[float, int]
SearchInstance = tuple[list[Pair], int]
MergeInstance = tuple[list[PrioritisedPair], list[PrioritisedPair]]

KEY_BITS = 5
VALUE_BITS = 5
PAIR_BITS = KEY_BITS + VALUE_BITS
NUM_KEYS = 1 << KEY_BITS
NUM_VALUES = 1 << VALUE_BITS
NUM_PAIRS = 1 << PAIR_BITS


class Reverse(Task[list[int], list[int]]):
    """Put the integers out in reverse order (the paper's Reverse).

    An instance is a list of integers from 0 to 1023, each a cell of 10 bits, most significant first::

        cells    7  1000  42
        outputs  42  1000  7  end
    """

    name = "reverse"
    unit = "numbers"
    input_size = PAIR_BITS
    output_size = PAIR_BITS + 1
    num_guided = 1

    def check(self, instance: object) -> None:
        for index, number in enumerate(expect_list(instance, "integers"), 1):
            expect_integer(number, "numbers", f"number {index}", limit=NUM_PAIRS)

    def oracle(self, instance: list[int]) -> list[int]:
        return list(reversed(instance))

    def instance_to_cells(self, instance: list[int]) -> Tensor:
        return to_bits(torch.tensor(instance), PAIR_BITS)

    def cells_to_instance(self, cells: Tensor) -> list[int]:
        return _integers(cells)

    def answer_to_symbols(self, answer: list[int], length: int) -> Tensor:
        return to_bits(torch.tensor(answer), PAIR_BITS)

    def symbols_to_answer(self, symbols: Tensor) -> list[int]:
        return _integers(symbols)

    def guide(self, episodes: Episodes) -> Tensor:
        last_first = -torch.arange(episodes.inputs.shape[1], device=episodes.inputs.device).expand_as(episodes.occupied)
        return _guide_by(last_first, episodes)

    def draw(self, lengths: Tensor, hard: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        integers = torch.randint(NUM_PAIRS, (len(lengths), int(lengths.max())), generator=generator)
        last_first = lengths.unsqueeze(1) - 1 - torch.arange(integers.shape[1])
        answers = integers.gather(1, last_first.clamp(min=0))
        return to_bits(integers, PAIR_BITS), to_bits(answers, PAIR_BITS)


class Search(Task[SearchInstance, int]):
    """Find the value of the first pair that has the query as its key (the paper's Search).

    An instance is a list of (key, value) pairs, both from 0 to 31, sorted by key, and a query that is one of
    the keys. A cell is the key's 5 bits and the value's 5 bits, most significant first; the query takes the
    last cell, with a value of zero. There are two timesteps whatever the length, and only the second is
    scored, so that the pair must be found in a single descent::

        cells    (2, 7)  (9, 4)  (9, 1)  (30, 7)  (9, -)
        outputs  -  4

    Keys are uniform, and the query is the key of a uniformly chosen pair; the paper leaves both open. In a
    hard case all keys are from 2 to 8 adjacent ones, so that there are more ties among them.

    The last output bits are hints for training: in both timesteps, the key that is asked for.
    """

    name = "search"
    unit = "pairs"
    cell_labels = "key above, value below; query"
    input_size = PAIR_BITS
    output_size = VALUE_BITS + KEY_BITS
    min_length = 2
    silent_timesteps = 1
    num_hints = KEY_BITS
    num_guided = 1
    predicts_end = False
    has_hard_cases = True

    def check(self, instance: object) -> None:
        pairs, query = expect_two(instance, "a list of (key, value) pairs and a query")
        keys: list[int] = []
        for index, pair in enumerate(expect_list(pairs, "pairs"), 1):
            key = _expect_pair(pair, f"pair {index}")
            if keys and key < keys[-1]:
                raise mismatch("pairs sorted by key", f"key {key} after {keys[-1]}", f"pair {index}")
            keys.append(key)
        if expect_integer(query, "keys", "query", limit=NUM_KEYS) not in keys:
            raise mismatch("a query that is one of the keys", query)

    def oracle(self, instance: SearchInstance) -> int:
        pairs, query = instance
        return pairs[bisect_left(pairs, query, key=itemgetter(0))][1]

    def size(self, length: int) -> int:
        return max(length - 1, 0)

    def num_symbols(self, length: int) -> int:
        return 1

    def instance_to_cells(self, instance: SearchInstance) -> Tensor:
        pairs, query = instance
        return _pairs_to_bits([*pairs, (query, 0)])

    def cells_to_instance(self, cells: Tensor) -> SearchInstance:
        *pairs, (query, _) = _bits_to_pairs(cells)
        return pairs, query

    def answer_to_symbols(self, answer: int, length: int) -> Tensor:
        return to_bits(torch.tensor([answer]), VALUE_BITS)

    def symbols_to_answer(self, symbols: Tensor) -> int:
        (answer,) = _integers(symbols)
        return answer

    def hints(self, cells: Tensor, lengths: Tensor) -> Tensor:
        query = cells[torch.arange(len(cells)), lengths - 1, :KEY_BITS]
        return query.unsqueeze(1).expand(-1, 2, -1)

    def guide(self, episodes: Episodes) -> Tensor:
        keys, last = episodes.inputs[..., :KEY_BITS], episodes.first_cells + episodes.lengths - 1
        query = keys[torch.arange(len(last), device=last.device), last].unsqueeze(1)
        found = ((keys == query).all(dim=-1) & episodes.occupied).int().argmax(dim=1)  # the first of them
        return torch.stack([last, found], dim=1).unsqueeze(-1)

    def label_cells(self, instance: SearchInstance) -> list[CellLabel]:
        pairs, query = instance
        return [*(CellLabel(pair, "pairs") for pair in pairs), CellLabel(query, "query")]

    def draw(self, lengths: Tensor, hard: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        num_pairs = lengths - 1
        keys = _draw_keys(num_pairs, hard, generator).sort(1).values
        values = torch.randint(NUM_VALUES, keys.shape, generator=generator)
        query = keys.gather(1, _draw_below(num_pairs, generator).unsqueeze(1))  # [batch, 1]
        answers = values.gather(1, torch.searchsorted(keys, query))
        cells = pad(keys * NUM_VALUES + values, (0, 1)).scatter(1, num_pairs.unsqueeze(1), query * NUM_VALUES)
        return to_bits(cells, PAIR_BITS), to_bits(answers, VALUE_BITS)


class Merge(Task[MergeInstance, list[int]]):
    """Merge two sequences that are sorted by priority, and put out the values (the paper's Merge).

    An instance is two lists of (priority, value) pairs, of which one may be empty. Priorities are above 0 and
    up to 1, ascend within each list, and are all distinct (as 32-bit numbers); values are from 0 to 31. A
    cell is the priority as it is, the value's 5 bits, most significant first, and a flag that is 1 in the
    second sequence::

        cells    (0.2, 7, 0)  (0.9, 1, 0)  (0.1, 30, 1)  (0.5, 2, 1)  (0.6, 7, 1)
        outputs  30  7  2  7  1  end

    Sampled priorities are 32-bit numbers, uniform among those that are at least 1e-5 apart. The first sequence
    is a random part of the pairs, of a length that is uniform from none to all: the paper leaves that open. In a
    hard case the priorities come from a narrow window: in half of the hard cases neighbours are 1e-5 to 3e-5 apart
    on average, in the others anything from 1e-5 to what they are in all (uniform on a logarithmic scale).

    The variant ``grid`` has the paper's priorities: multiples of 1/300, or of 1/length for lengths above 300; in a
    hard case from a window of one to three times as many multiples as there are pairs.
    """

    name = "merge"
    unit = "pairs"
    cell_labels = "priority above, value below"
    input_size = 1 + VALUE_BITS + 1
    output_size = VALUE_BITS + 1
    num_guided = 1
    has_hard_cases = True

    variants: ClassVar[Mapping[str, str]] = {"grid": "priorities are multiples of 1/300, as in the paper"}

    grid_steps = 300
    widest_window = 3
    least_distance: ClassVar[float] = 1e-5
    """Between any two sampled priorities, but for rounding; less in instances that do not have the room for it."""

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
        if least >= 0.99 * self.least_distance:  # as rounded to 32 bits
            return None
        return f"two priorities are {least:.1g} apart, and those of samples at least {self.least_distance:g}"

    def oracle(self, instance: MergeInstance) -> list[int]:
        return [value for _, value in heapq.merge(*instance, key=itemgetter(0))]

    def instance_to_cells(self, instance: MergeInstance) -> Tensor:
        rows = [(priority, value, flag) for flag, pairs in enumerate(instance) for priority, value in pairs]
        priorities, values, flags = map(torch.tensor, zip(*rows, strict=True))
        return _merge_cells(priorities, values, flags)

    def cells_to_instance(self, cells: Tensor) -> MergeInstance:
        pairs = list(zip(cells[:, 0].tolist(), _integers(cells[:, 1:-1]), strict=True))
        num_first = int((cells[:, -1] == 0).sum())
        return pairs[:num_first], pairs[num_first:]

    def answer_to_symbols(self, answer: list[int], length: int) -> Tensor:
        return to_bits(torch.tensor(answer), VALUE_BITS)

    def symbols_to_answer(self, symbols: Tensor) -> list[int]:
        return _integers(symbols)

    def guide(self, episodes: Episodes) -> Tensor:
        return _guide_by(episodes.inputs[..., 0], episodes)

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
        windows = lengths + _draw_below((self.widest_window - 1) * lengths + 1, generator)
        windows = torch.where(hard, windows.minimum(steps), steps)
        starts = 1 + _draw_below(steps - windows + 1, generator)
        # The places of the smallest random scores are a random subset of the window.
        scores = torch.rand(len(lengths), int(steps.max()), generator=generator)
        scores.masked_fill_(torch.arange(scores.shape[1]) >= windows.unsqueeze(1), torch.inf)
        multiples = starts.unsqueeze(1) + scores.topk(longest, largest=False).indices
        multiples.masked_fill_(torch.arange(longest) >= lengths.unsqueeze(1), 2 * scores.shape[1])
        return self._share_out(multiples.sort(1).values / steps.unsqueeze(1), lengths, generator)

    def _share_out(
        self, priorities: Tensor, lengths: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Draw values for ascending priorities [batch, longest], and share the pairs out between two sequences."""
        position = torch.arange(priorities.shape[1])
        beyond = position >= lengths.unsqueeze(1)
        scores = torch.rand(priorities.shape, generator=generator).masked_fill(beyond, torch.inf)
        place = scores.argsort(1).argsort(1)  # of each pair in a random order, those beyond the length at its end
        flags = (place >= _draw_below(lengths + 1, generator).unsqueeze(1)).long()
        by_cell = (flags + 2 * beyond).argsort(dim=1, stable=True)
        values = torch.randint(NUM_VALUES, priorities.shape, generator=generator)
        cells = _merge_cells(priorities.gather(1, by_cell), values.gather(1, by_cell), flags.gather(1, by_cell))
        return cells, to_bits(values, VALUE_BITS)

    def _draw_priorities(self, lengths: Tensor, hard: Tensor, generator: torch.Generator | None) -> Tensor:
        """Ascending priorities, float32 of shape [batch, longest]; what lies beyond a row's length is any number."""
        longest = int(lengths.max())
        rounding = 1.01  # of 32-bit numbers, which could bring two of them closer together
        least = torch.full(lengths.shape, rounding * self.least_distance, dtype=torch.float64).minimum(0.5 / lengths)
        widest = 1 / lengths.double()
        fine = torch.rand(lengths.shape, generator=generator) < 0.5
        share = torch.rand(lengths.shape, dtype=torch.float64, generator=generator)
        mean = torch.where(fine, (1 + 2 * share) * least, least * (widest / least) ** share).minimum(widest)
        mean = torch.where(hard, mean, widest)  # distance of neighbours, on average
        start = torch.rand(lengths.shape, dtype=torch.float64, generator=generator) * (1 - mean * lengths)

        # Uniform among all priorities in the window that are no closer than the least distance.
        position = torch.arange(longest)
        room = torch.rand(len(lengths), longest, dtype=torch.float64, generator=generator)
        room = room.masked_fill(position >= lengths.unsqueeze(1), 1.0).sort(1).values
        room = room * ((mean - least) * lengths).unsqueeze(1)
        return (start.unsqueeze(1) + room + (position + 1) * least.unsqueeze(1)).float()


class Sort(Task[list[Pair], list[Pair]]):
    """Put the pairs out by key, and pairs of equal keys in the order in which they came (the paper's Sort).

    An instance is a list of (key, value) pairs, both from 0 to 31. A cell is the key's 5 bits and the value's
    5 bits, most significant first::

        cells    (9, 4)  (2, 7)  (9, 1)  (0, 7)
        outputs  (0, 7)  (2, 7)  (9, 4)  (9, 1)  end

    Keys and values are uniform. In a hard case all keys are from 2 to 8 adjacent ones, so that the order
    hangs on small differences and on ties.
    """

    name = "sort"
    unit = "pairs"
    cell_labels = "key above, value below"
    input_size = PAIR_BITS
    output_size = PAIR_BITS + 1
    num_guided = 1
    has_hard_cases = True

    def check(self, instance: object) -> None:
        for index, pair in enumerate(expect_list(instance, "pairs"), 1):
            _expect_pair(pair, f"pair {index}")

    def oracle(self, instance: list[Pair]) -> list[Pair]:
        return [(key, value) for key, value in sorted(instance, key=itemgetter(0))]

    def instance_to_cells(self, instance: list[Pair]) -> Tensor:
        return _pairs_to_bits(instance)

    def cells_to_instance(self, cells: Tensor) -> list[Pair]:
        return _bits_to_pairs(cells)

    def answer_to_symbols(self, answer: list[Pair], length: int) -> Tensor:
        return _pairs_to_bits(answer)

    def symbols_to_answer(self, symbols: Tensor) -> list[Pair]:
        return _bits_to_pairs(symbols)

    def guide(self, episodes: Episodes) -> Tensor:
        return _guide_by(from_bits(episodes.inputs[..., :KEY_BITS]), episodes)

    def draw(self, lengths: Tensor, hard: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        keys = _draw_keys(lengths, hard, generator)
        pairs = keys * NUM_VALUES + torch.randint(NUM_VALUES, keys.shape, generator=generator)
        by_key = keys.argsort(dim=1, stable=True)
        return to_bits(pairs, PAIR_BITS), to_bits(pairs.gather(1, by_key), PAIR_BITS)


class Add(Task[tuple[int, int], int]):
    """Add two numbers, given and answered in binary, least significant bit first (the paper's Add).

    An instance is two non-negative integers. Both are written with the m bits that the larger one needs, the sum
    with m + 1. A cell is a bit, a flag for '+' and a flag for '='; this is 6 + 3 = 9::

        cells    0  1  1  +  1  1  0  =
        outputs  1  0  0  1  end

    So the length is 2m + 2 cells: lengths of 1-32 are numbers of up to 15 bits, of 33-128 up to 63, of 129-1024 up
    to 511. Numbers of any size are taken; how often a model is right depends on it.

    Sampled numbers are m uniform bits each, so both may have leading zeros. Half of the hard cases have
    a stretch of m/2 to m digits in which the two numbers have one digit in common, the first, and are each
    other's complement in the rest: that first digit is the carry into all of them. In the other half, only
    a share of the ones in either number is left, uniform from none to all: of uniform bits, one says nothing of
    the sum unless the other is known as well, but where ones are rare it does.

    The two output bits behind the sum's digit are hints for training: the digits that are to be added.
    """

    name = "add"
    unit = "bits"
    cell_labels = "digit or sign"
    input_size = 3
    output_size = 4
    min_length = 4
    length_step = 2
    num_hints = 2
    num_guided = 2
    has_hard_cases = True

    def check(self, instance: object) -> None:
        for ordinal, number in zip(("first", "second"), expect_two(instance, "two integers"), strict=True):
            expect_integer(number, "numbers", f"{ordinal} number")

    def oracle(self, instance: tuple[int, int]) -> int:
        first, second = instance
        return first + second

    def size(self, length: int) -> int:
        return max(length // 2 - 1, 0)

    def num_symbols(self, length: int) -> int:
        return length // 2

    def instance_to_cells(self, instance: tuple[int, int]) -> Tensor:
        first, second = instance
        num_digits = max(first.bit_length(), second.bit_length(), 1)
        cells = torch.zeros(2 * num_digits + 2, self.input_size)
        cells[:num_digits, 0] = _digits(first, num_digits)
        cells[num_digits, 1] = 1
        cells[num_digits + 1 : -1, 0] = _digits(second, num_digits)
        cells[-1, 2] = 1
        return cells

    def cells_to_instance(self, cells: Tensor) -> tuple[int, int]:
        num_digits = len(cells) // 2 - 1
        return _number(cells[:num_digits, 0]), _number(cells[num_digits + 1 : -1, 0])

    def answer_to_symbols(self, answer: int, length: int) -> Tensor:
        return _digits(answer, self.num_symbols(length)).unsqueeze(-1)

    def symbols_to_answer(self, symbols: Tensor) -> int:
        return _number(symbols[:, 0])

    def hints(self, cells: Tensor, lengths: Tensor) -> Tensor:
        digits = cells[..., 0]
        place = torch.arange(digits.shape[1] // 2)
        second = (lengths // 2).unsqueeze(1) + place  # as long as the first, and '+' and '=' are zeros
        return torch.stack([digits[:, : len(place)], digits.gather(1, second)], dim=-1)

    def guide(self, episodes: Episodes) -> Tensor:
        # One digit of each number, then '+' and '='.
        half = (episodes.lengths // 2).unsqueeze(1)  # cells of a number and the sign behind it
        places = torch.minimum(torch.arange(episodes.targets.shape[1], device=half.device), half - 1)
        first = episodes.first_cells.unsqueeze(1) + places
        return torch.stack([first, first + half], dim=-1)

    def label_cells(self, instance: tuple[int, int]) -> list[CellLabel]:
        digits = self.instance_to_cells(instance)[:, 0].int().tolist()
        half = len(digits) // 2
        signs = {half - 1: "+", len(digits) - 1: "="}
        return [CellLabel(signs.get(place, digit)) for place, digit in enumerate(digits)]

    def draw(self, lengths: Tensor, hard: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        num_digits = lengths // 2 - 1
        longest = int(num_digits.max())
        place = torch.arange(longest)
        first, second = torch.randint(2, (2, len(lengths), longest), generator=generator)

        sparse = hard & (torch.rand(lengths.shape, generator=generator) < 0.5)
        kept = torch.rand(2, len(lengths), 1, generator=generator).masked_fill(~sparse.unsqueeze(1), 1.0)
        first, second = torch.stack([first, second]) * (torch.rand(2, *first.shape, generator=generator) < kept)

        chain = num_digits - _draw_below(num_digits // 2 + 1, generator)
        start = _draw_below(num_digits - chain + 1, generator)
        start, stop = start.unsqueeze(1), (start + chain).unsqueeze(1)
        in_chain = (place >= start) & (place < stop) & (hard & ~sparse).unsqueeze(1)
        second = torch.where(in_chain, first ^ (place > start), second)

        num_digits = num_digits.unsqueeze(1)
        numbers = (place < num_digits).unsqueeze(1) * torch.stack([first, second], dim=1)
        first, second = numbers.unbind(1)

        # Equal digits settle the carry out of their place: it is the digit itself. Unequal ones pass it on.
        settled_by = torch.where(first == second, place + 1, 0).cummax(1).values
        carries = pad(first, (1, 0)).gather(1, settled_by)
        total = pad(first ^ second, (0, 1)) ^ pad(carries, (1, 0))  # [batch, longest + 1]

        # A zero digit after each number stands where '+' and '=' are.
        digits = pad(numbers, (0, 1)).flatten(1)  # [batch, 2 * longest + 2]
        position = torch.arange(digits.shape[1])
        source = torch.where(position <= num_digits, position, position + longest - num_digits)
        digits = digits.gather(1, source.clamp(max=digits.shape[1] - 1))
        cells = torch.stack([digits, position == num_digits, position == 2 * num_digits + 1], dim=-1)
        return cells.float(), total.unsqueeze(-1).float()


def _guide_by(order: Tensor, episodes: Episodes) -> Tensor:
    """The guide that reads the cells in ascending order, equal ones from the left, and at the end the last one again.

    Args:
        order: Of the cells, blank ones among them, [batch, capacity].
        episodes: Whose cells they are.
    """
    cells = order.double().masked_fill(~episodes.occupied, math.inf).argsort(dim=1, stable=True)
    timesteps = torch.arange(episodes.targets.shape[1], device=order.device)
    place = torch.minimum(timesteps, episodes.lengths.unsqueeze(1) - 1)
    return cells.gather(1, place).unsqueeze(-1)


def _draw_below(limits: Tensor, generator: torch.Generator | None) -> Tensor:
    """For each limit, an integer that is uniform from 0 to below it."""
    # In 64 bits, as a product in 32 bits can round up to the limit itself.
    return (torch.rand(limits.shape, dtype=torch.float64, generator=generator) * limits).long()


def _draw_keys(lengths: Tensor, hard: Tensor, generator: torch.Generator | None) -> Tensor:
    """Keys [batch, longest], uniform or, in hard cases, from 2 to 8 adjacent keys only.

    What lies beyond a row's length is larger than every key, and so stays there when the row is sorted.
    """
    widths = torch.where(hard, torch.randint(2, 9, lengths.shape, generator=generator), NUM_KEYS)
    starts = _draw_below(NUM_KEYS - widths + 1, generator)
    longest = int(lengths.max())
    offsets = torch.rand(len(lengths), longest, generator=generator) * widths.unsqueeze(1)
    keys = starts.unsqueeze(1) + offsets.long()
    return keys.masked_fill(torch.arange(longest) >= lengths.unsqueeze(1), NUM_KEYS)


def _merge_cells(priorities: Tensor, values: Tensor, flags: Tensor) -> Tensor:
    """Cells [..., 7] from priorities, values, and flags of the second sequence, each of shape [...]."""
    return torch.cat([priorities.unsqueeze(-1), to_bits(values, VALUE_BITS), flags.unsqueeze(-1)], dim=-1)


def _integers(bits: Tensor) -> list[int]:
    """Bits [symbols, bits], most significant first, as a list of integers."""
    integers: list[int] = from_bits(bits).tolist()
    return integers


def _pairs_to_bits(pairs: list[Pair]) -> Tensor:
    """(key, value) pairs as bits [pairs, 10]: those of the integer whose high bits are the key."""
    return to_bits(torch.tensor([key * NUM_VALUES + value for key, value in pairs]), PAIR_BITS)


def _bits_to_pairs(bits: Tensor) -> list[Pair]:
    """The inverse of `_pairs_to_bits`."""
    return [divmod(integer, NUM_VALUES) for integer in _integers(bits)]


def _digits(number: int, num_digits: int) -> Tensor:
    """The binary digits of a number of any size, least significant first, float32 of shape [num_digits]."""
    return torch.tensor([float(number >> place & 1) for place in range(num_digits)])


def _number(digits: Tensor) -> int:
    """The inverse of `_digits`."""
    return sum(int(digit) << place for place, digit in enumerate(digits.tolist()))


def _expect_pair(candidate: object, place: str) -> int:
    """The key of the candidate, if it is a (key, value) pair."""
    key, value = expect_two(candidate, "a (key, value) pair", place)
    expect_integer(value, "values", place, limit=NUM_VALUES)
    return expect_integer(key, "keys", place, limit=NUM_KEYS)


def _expect_priority(candidate: object, place: str) -> float:
    """The candidate as a cell stores it, in 32 bits, if it is a priority."""
    if isinstance(candidate, bool) or not isinstance(candidate, int | float):
        raise mismatch("priorities that are numbers", type(candidate).__name__, place)
    stored = torch.tensor(candidate, dtype=torch.float32).item() if 0 < candidate <= 1 else 0.0
    if stored == 0:
        raise mismatch("priorities above 0 and up to 1", candidate, place)
    return stored
