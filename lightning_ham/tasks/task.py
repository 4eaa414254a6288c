"""The base of tasks: a specification, a vectorised sampler, an oracle, and the code between values and bits."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, cast

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from lightning_ham.tasks.checks import InstanceError, mismatch
from lightning_ham.tasks.csv_form import CsvForm
from lightning_ham.tasks.episode import Episodes, capacity_for
from lightning_ham.tasks.lengths import Lengths
from lightning_ham.tasks.plain import plain

Instance = TypeVar("Instance")
Answer = TypeVar("Answer")


class CellLabel(NamedTuple):
    """The label of a cell, on its leaf in a picture."""

    value: object
    """The content of the cell; a pair takes two lines."""
    group: str = ""
    """The part of the instance that the cell belongs to, if it has parts."""


class Task(ABC, Generic[Instance, Answer]):
    """A family of problems: a memory is filled with an instance, and then answers a symbol a timestep.

    A subclass gives a row of specification (the attributes), a check and an oracle in plain Python, the code
    between Python values and bits (one instance at a time), and `draw`, the sampler (a batch at a time).
    Padding, blanks, end flags and scoring are done here, in the same way for samples and for encoded
    instances.

    A *symbol* is what an output carries: all its bits but hints and the end flag. The *length* of an instance is the
    number of cells that it occupies.
    """

    name: ClassVar[str]
    """The name in recipes and on the hub."""
    input_size: ClassVar[int]
    """Numbers in a cell (b in the HAM paper)."""
    output_size: ClassVar[int]
    """Bits in an output, the end flag included."""
    min_length: ClassVar[int] = 1
    """The length of the shortest instance."""
    length_step: ClassVar[int] = 1
    """Valid lengths are ``min_length``, ``min_length + length_step``, and so on."""
    silent_timesteps: ClassVar[int] = 0
    """Timesteps before the first symbol; nothing is scored in them."""
    predicts_end: ClassVar[bool] = True
    """Whether the last output bit is an end flag, set in one more timestep after the last symbol."""
    num_hints: ClassVar[int] = 0
    """Output bits after a symbol that training may learn from, too (`hints`); neither scored nor part of answers."""
    hint_kinds: ClassVar[tuple[str, ...]] = ()
    """Kinds of hints: ``echo``, if they repeat a part of the input or of the answer, ``state``, if they tell the state
    of the memory, or both. If empty, cards and lists of models call them "hints"."""
    num_guided: ClassVar[int] = 0
    """Accesses before each output whose leaves `guide` names; 0 in a task without a guide."""
    controller_defaults: ClassVar[Mapping[str, Any]] = {}
    """This task's defaults of controllers' options; a controller without such an option ignores them."""
    can_be_shifted: ClassVar[bool] = True
    """Whether an instance may begin at any cell; False if cells are operations, carried out in order."""
    variants: ClassVar[Mapping[str, str]] = {}
    """Other distributions of instances, for `draw_variant`: names and what is particular to them."""
    has_hard_cases: ClassVar[bool] = False
    """Whether `draw` can make instances that are harder than uniform ones."""
    unit: ClassVar[str] = "cells"
    """Unit of the size of an instance (`size`), in the plural."""
    cell_labels: ClassVar[str] = ""
    """Meaning of the labels of `label_cells`, for the legend of a picture, such as ``key above, value below``."""
    example: ClassVar[str] = ""
    """A small instance as JSON, for the help of commands; optional."""
    paper_errors: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    """The HAM paper's wrong sequences in percent, by lengths (``row_name``) and model (``ham``, ``lstm``,
    ``lstm_attention``); figures given in words only are left out."""
    bar: ClassVar[Mapping[str, float]] = {}
    """Largest acceptable share of wrong sequences, by lengths (``1-32``); empty if unknown."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if isinstance(cls.hint_kinds, str):
            raise TypeError(
                f"Expected `hint_kinds` of {cls.__name__} to be a tuple of words, but got {cls.hint_kinds!r}."
            )
        if "name" in vars(cls):  # a derived task with another name does not inherit these figures
            cls.paper_errors, cls.bar = vars(cls).get("paper_errors", {}), vars(cls).get("bar", {})

    @abstractmethod
    def check(self, instance: object) -> None:
        """Raise `InstanceError` unless ``instance`` is a valid instance of this task."""

    @abstractmethod
    def oracle(self, instance: Instance) -> Answer:
        """Return the right answer to a valid instance."""

    def num_symbols(self, length: int) -> int:
        """Return the number of symbols in the answer to an instance of this length; by default one for each cell."""
        return length

    def symbols_that_count(self, cells: Tensor, num_symbols: int) -> Tensor:
        """Return which symbols belong to the answer, bool of shape [..., num_symbols].

        By default all do. The others are not scored, and `symbols_to_answer` does not get them.

        Args:
            cells: The instances' cells, [..., at least the longest length, input_size].
            num_symbols: The number of symbols put out, including those that do not count.
        """
        return torch.ones(*cells.shape[:-2], num_symbols, dtype=torch.bool, device=cells.device)

    def hints(self, cells: Tensor, lengths: Tensor) -> Tensor:
        """Return the hints for training of each timestep but the end, float32 of shape [batch, timesteps, num_hints].

        What lies beyond a row's own timesteps is ignored. Only for a task that has hints.

        Args:
            cells: The instances' cells, [batch, longest length, input_size].
            lengths: Their lengths, int64 of shape [batch].
        """
        raise NotImplementedError(f"Expected task '{self.name}' to define hints, as it has {self.num_hints} a timestep")

    def guide(self, episodes: Episodes) -> Tensor:
        """Return the leaves that a right solution attends to, in order, int64 of shape [batch, timesteps, num_guided].

        Training may make the memory attend to them (`lightning_ham.training.HAMModule`). Only for a task with a guide.
        """
        raise NotImplementedError(f"Expected a task with a guide, but '{self.name}' has none")

    @abstractmethod
    def instance_to_cells(self, instance: Instance) -> Tensor:
        """Return a valid instance as cells, float32 of shape [length, input_size]."""

    @abstractmethod
    def cells_to_instance(self, cells: Tensor) -> Instance:
        """Return the instance that cells [length, input_size] encode."""

    @abstractmethod
    def answer_to_symbols(self, answer: Answer, length: int) -> Tensor:
        """Return the answer as the symbols that count, float32 of shape [symbols, symbol bits].

        Args:
            answer: The answer to an instance.
            length: The instance's length.
        """

    @abstractmethod
    def symbols_to_answer(self, symbols: Tensor) -> Answer:
        """Return the answer that symbols [symbols, symbol bits] encode; all of them count.

        A model that sets the end flag may put out any number of them.
        """

    @abstractmethod
    def draw(self, lengths: Tensor, hard: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Draw an instance and its answer for each row, without a loop over the rows.

        Args:
            lengths: The length of each instance, int64 of shape [batch].
            hard: Whether each is to be a hard case, bool of shape [batch]; all False in a task without hard
                cases.
            generator: The source of all randomness; torch's own where None.

        Returns:
            Cells, float32 of shape [batch, longest length, input_size], and symbols, float32 of shape [batch,
            most symbols, symbol bits]. Cells beyond a row's length, symbols beyond its number and symbols that do
            not count are ignored.
        """

    def draw_variant(
        self, variant: str, lengths: Tensor, hard: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Draw one of the task's `variants`, as `draw` does. Only for a task that has any."""
        raise NotImplementedError(f"Expected task '{self.name}' to draw its variant '{variant}'")

    def check_variant(self, variant: str | None) -> None:
        """Raise a ValueError unless ``variant`` is None or one of the task's `variants`."""
        if variant is not None and variant not in self.variants:
            known = ", ".join(self.variants) or "none"
            raise ValueError(f"Expected a variant of task '{self.name}' ({known}), but got {variant!r}")

    def instance_length(self, instance: Instance) -> int:
        """Return the number of cells that a valid instance occupies."""
        return len(self.instance_to_cells(instance))

    def size(self, length: int) -> int:
        """Return the size of the largest instance of at most this length, in ``unit``; by default one for each cell."""
        return length

    def size_in_words(self, length: int) -> str:
        """Return `size` in words, such as ``63 bits``."""
        size = self.size(length)
        return f"{size:,} {self.unit.removesuffix('s') if size == 1 else self.unit}"

    def sizes_in_words(self, ranges: Iterable[Sequence[int] | str]) -> str:
        """Return a sentence with the sizes of ranges of lengths; "" if all lengths equal their sizes."""
        spans = list(dict.fromkeys(Lengths.of(lengths) for lengths in ranges))
        if all(self.size(span.high) == span.high for span in spans):
            return ""
        sizes = ", ".join(f"{self.size_in_words(span.high)} at {span}" for span in spans)
        return f"Lengths are numbers of cells: up to {sizes}."

    def outside_samples(self, instance: Instance) -> str | None:
        """Return how a valid instance differs from all samples of `draw`, other than in length; None if it does not.

        Measurements on samples do not hold for it. The text is a clause, such as ``two priorities are 1e-06
        apart, and samples 1e-05 at least``.
        """
        return None

    def label_cells(self, instance: Instance) -> list[CellLabel]:
        """Return the labels of a valid instance's cells, for pictures.

        By default the instance's elements if there is one for each cell, else the cells' numbers.
        """
        rows = self.instance_to_cells(instance)
        if isinstance(instance, list | tuple) and len(instance) == len(rows):
            return [CellLabel(element) for element in instance]
        return [CellLabel(" ".join(f"{number:g}" for number in row)) for row in rows.tolist()]

    def csv_form(self) -> CsvForm | None:
        """Return the form of instances in CSV files; None, the default, if they are given as JSON only."""
        return None

    def paper_error(self, lengths: str, model: str) -> str | None:
        """Return the paper's error in percent; None if it has no such figure.

        Args:
            lengths: ``1-32`` or ``33-128``; ``1-32 (grid)``, if a variant ``grid`` has the paper's instances.
            model: ``ham``, ``lstm`` or ``lstm_attention``.
        """
        return self.paper_errors.get(lengths, {}).get(model)

    def timesteps_for(self, length: int) -> int:
        """Return the number of timesteps in the episode of an instance of this length, its end included."""
        return self.silent_timesteps + self.num_symbols(length) + self.predicts_end

    def sample(
        self,
        batch_size: int,
        lengths: tuple[int, int] | str,
        *,
        capacity: int | None = None,
        hard_fraction: float = 0.0,
        variant: str | None = None,
        generator: torch.Generator | None = None,
    ) -> Episodes:
        """Draw fresh episodes.

        Args:
            batch_size: The number of episodes.
            lengths: The shortest and the longest length, inclusive, as a pair or as ``"1-32"``. Each episode's
                length is uniform over the valid ones in this range, which begin at ``min_length``.
            capacity: The number of cells to pad to, a power of two; if None, the smallest that fits the range.
            hard_fraction: The probability that an episode is a hard case.
            variant: One of the task's `variants`; if None, the task's main distribution.
            generator: The source of all randomness, on the CPU; torch's own where None.
        """
        low, high = Lengths.of(lengths)
        if batch_size < 1:
            raise ValueError(f"Expected a batch size of at least 1, but got {batch_size}")
        if not 1 <= low <= high:
            raise ValueError(f"Expected lengths LOW-HIGH with 1 <= LOW <= HIGH, but got {low}-{high}")
        if not 0 <= hard_fraction <= 1:
            raise ValueError(f"Expected a hard fraction from 0 to 1, but got {hard_fraction}")
        if hard_fraction > 0 and not self.has_hard_cases:
            raise ValueError(
                f"Expected a hard fraction of 0 for task '{self.name}', as it has no hard cases, "
                f"but got {hard_fraction}"
            )
        self.check_variant(variant)
        capacity = _checked_capacity(capacity, high)
        drawn = self._draw_lengths(batch_size, low, high, generator)
        hard = torch.rand(batch_size, generator=generator) < hard_fraction
        draw = self.draw if variant is None else functools.partial(self.draw_variant, variant)
        cells, symbols = draw(drawn, hard, generator)
        return self._assemble(cells, symbols, drawn, capacity)

    def accept(self, instance: object) -> Instance:
        """Check an instance in any form, and return it as Python's own lists, tuples and numbers.

        Arrays, tensors, tables, ranges, iterators and views are taken like the lists of their elements
        (:func:`lightning_ham.tasks.plain.plain`).

        Raises:
            InstanceError: If it is no valid instance of this task.
        """
        accepted = plain(instance)
        try:
            self.check(accepted)
        except InstanceError as error:
            if isinstance(accepted, list | tuple) and accepted and all(map(self._is_instance, accepted)):
                raise mismatch(
                    f"one instance of {self.name}", f"a list of {len(accepted)}; give one at a time"
                ) from error
            raise
        return cast(Instance, accepted)

    def accept_all(self, instances: object) -> list[Instance]:
        """Check a list of instances; the list and each instance may have any form that :meth:`accept` takes.

        Raises:
            InstanceError: If it is no list of valid instances of this task.
        """
        accepted = plain(instances)
        if not isinstance(accepted, list | tuple):
            got = "one alone" if self._is_instance(accepted) else type(accepted).__name__
            raise mismatch(f"a list of instances of {self.name}", f"{got}; write [instance] for a single one")
        for instance in accepted:
            try:
                self.check(instance)
            except InstanceError as error:
                if self._is_instance(accepted):
                    got = "one alone; write [instance] for a single one"
                    raise mismatch(f"a list of instances of {self.name}", got) from error
                if isinstance(instance, int | float | str):  # a part of an instance
                    message = f"{error}; a list of instances is wanted, so write [instance] for a single one"
                    raise InstanceError(message, error.place) from error
                raise
        return list(accepted)

    def _is_instance(self, candidate: object) -> bool:
        try:
            self.check(candidate)
        except InstanceError:
            return False
        return True

    def encode(self, instances: Iterable[Instance], *, capacity: int | None = None) -> Episodes:
        """Check instances, answer them by the oracle, and return a batch of episodes.

        Args:
            instances: At least one instance, in any form that :meth:`accept` takes.
            capacity: The number of cells to pad to, a power of two; if None, the smallest that fits all instances.
        """
        accepted = self.accept_all(instances)
        cells, lengths = self._cells(accepted)
        symbols = []
        for instance, row, length in zip(accepted, cells, lengths.tolist(), strict=True):
            counts = self.symbols_that_count(row, self.num_symbols(length))
            answer = self.answer_to_symbols(self.oracle(instance), length)
            symbols.append(answer.new_zeros(len(counts), answer.shape[1]))
            symbols[-1][counts] = answer
        capacity = _checked_capacity(capacity, int(lengths.max()))
        return self._assemble(cells, pad_sequence(symbols, batch_first=True), lengths, capacity)

    def encode_inputs(
        self, instances: Iterable[Instance], *, capacity: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Check instances and encode them without answers; arguments as for :meth:`encode`.

        Returns:
            ``inputs``, ``occupied`` and ``lengths``, as in `Episodes`.
        """
        cells, lengths = self._cells(self.accept_all(instances))
        return *_padded(cells, lengths, _checked_capacity(capacity, int(lengths.max()))), lengths

    def _cells(self, instances: Sequence[Instance]) -> tuple[Tensor, Tensor]:
        """Return the cells of instances, [batch, longest length, input_size], and their lengths, [batch]."""
        if not instances:
            raise ValueError("Expected at least one instance, but got none")
        cells = [self.instance_to_cells(instance) for instance in instances]
        return pad_sequence(cells, batch_first=True), torch.tensor([len(rows) for rows in cells])

    def decode(self, outputs: Tensor, inputs: Tensor | None = None) -> Answer:
        """Read the answer from the output bits of one episode.

        Timesteps from the first end flag on are ignored. If no end flag is set, every timestep is read.

        Args:
            outputs: Bool or 0 and 1, of shape [timesteps, output_size].
            inputs: The episode's cells, [at least its length, input_size]; needed if not all symbols count.
        """
        if outputs.ndim != 2 or outputs.shape[1] != self.output_size:
            raise ValueError(
                f"Expected outputs of shape [timesteps, {self.output_size}], but got {list(outputs.shape)}"
            )
        if not torch.equal(outputs, outputs.bool().to(outputs.dtype)):
            raise ValueError("Expected outputs of 0 and 1, but got other numbers; round probabilities first")
        symbols = outputs[self.silent_timesteps :]
        if self.predicts_end:
            symbols = symbols[symbols[:, -1].cumsum(0) == 0]
        symbols = self.symbol_bits(symbols)
        if inputs is not None:
            symbols = symbols[self.symbols_that_count(inputs, len(symbols))]
        return self.symbols_to_answer(symbols)

    def symbol_bits(self, outputs: Tensor) -> Tensor:
        """Return the symbol bits of outputs [..., output_size]: all but hints and the end flag."""
        return outputs[..., : self.output_size - self.num_hints - self.predicts_end]

    def decode_inputs(self, inputs: Tensor, occupied: Tensor) -> Instance:
        """Read an instance from one episode's inputs, [capacity, input_size], and occupied, [capacity]."""
        return self.cells_to_instance(inputs[occupied])

    def hinted(self, episodes: Episodes) -> Tensor:
        """Return which bits of these episodes' targets are hints, bool of shape [batch, timesteps, output_size]."""
        hinted = torch.zeros_like(episodes.scored)
        if self.num_hints:
            end = hinted.shape[2] - self.predicts_end
            timesteps = self._timesteps(episodes.lengths)
            clock = torch.arange(hinted.shape[1], device=timesteps.device)
            hinted[:, :, end - self.num_hints : end] = self._is_before_end(timesteps, clock).unsqueeze(-1)
        return hinted

    def _timesteps(self, lengths: Tensor) -> Tensor:
        """Return the number of timesteps of episodes of these lengths, [batch], as [batch, 1]."""
        distinct, row_to_distinct = torch.unique(lengths, return_inverse=True)
        timesteps = torch.tensor([self.timesteps_for(length) for length in distinct.tolist()], device=lengths.device)
        return timesteps[row_to_distinct].unsqueeze(1)

    def _is_symbol(self, timesteps: Tensor, clock: Tensor) -> Tensor:
        """Return whether a symbol is put out at each time of the clock, bool of shape [batch, times]."""
        return (clock >= self.silent_timesteps) & self._is_before_end(timesteps, clock)

    def _is_before_end(self, timesteps: Tensor, clock: Tensor) -> Tensor:
        """Return whether each time of the clock is before the end, bool of shape [batch, times]."""
        return clock < timesteps - int(self.predicts_end)

    def _draw_lengths(self, batch_size: int, low: int, high: int, generator: torch.Generator | None) -> Tensor:
        """Draw lengths, int64 of shape [batch], uniform over the valid ones from ``low`` to ``high``."""
        valid = torch.arange(low, high + 1)
        valid = valid[(valid >= self.min_length) & ((valid - self.min_length) % self.length_step == 0)]
        if not len(valid):
            first, second = self.min_length, self.min_length + self.length_step
            raise ValueError(
                f"Expected lengths LOW-HIGH with a valid length of task '{self.name}' among them "
                f"(min_length {first}, then {second} and so on), but got {low}-{high}"
            )
        return valid[torch.randint(len(valid), (batch_size,), generator=generator)]

    def _assemble(self, cells: Tensor, symbols: Tensor, lengths: Tensor, capacity: int) -> Episodes:
        """Pad to the capacity, blank what is beyond each row's length, add end flags, mark what is scored."""
        timesteps = self._timesteps(lengths)
        clock = torch.arange(int(timesteps.max()))
        is_symbol = self._is_symbol(timesteps, clock).unsqueeze(-1)  # [batch, timesteps, 1]

        beside_symbols = (self.silent_timesteps, int(self.predicts_end))
        counts = pad(self.symbols_that_count(cells, len(clock) - sum(beside_symbols)), beside_symbols)
        counts = is_symbol & counts.unsqueeze(-1)
        targets = pad(symbols, (0, 0, *beside_symbols)) * counts
        scored = counts.repeat(1, 1, targets.shape[-1])
        if self.num_hints:
            before_end = self._is_before_end(timesteps, clock).unsqueeze(-1)
            hints = pad(self.hints(cells, lengths), (0, 0, 0, int(self.predicts_end))) * before_end
            targets = torch.cat([targets, hints], dim=-1)
            scored = torch.cat([scored, torch.zeros_like(hints, dtype=torch.bool)], dim=-1)
        if self.predicts_end:
            is_end = (clock == timesteps - 1).unsqueeze(-1)
            targets = torch.cat([targets, is_end], dim=-1)  # [batch, timesteps, output_size]
            scored = torch.cat([scored, is_symbol | is_end], dim=-1)

        return Episodes(*_padded(cells, lengths, capacity), targets, scored, lengths)


def _padded(cells: Tensor, lengths: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
    """Pad cells to the capacity, and blank what is beyond each row's length; also return which are occupied."""
    occupied = torch.arange(capacity) < lengths.unsqueeze(1)
    return pad(cells, (0, 0, 0, capacity - cells.shape[1])) * occupied.unsqueeze(-1), occupied


def _checked_capacity(capacity: int | None, longest: int) -> int:
    """Return the capacity if it holds the longest instance; if None, the least that does."""
    least = capacity_for(longest)
    if capacity is None:
        return least
    if capacity < 1 or capacity & (capacity - 1):
        raise ValueError(f"Expected a capacity that is a power of two, but got {capacity}")
    if capacity < least:
        raise ValueError(f"Expected a capacity of at least {least} for length {longest}, but got {capacity}")
    return capacity
