"""Comparison models that have no memory: the encoder-decoder LSTM, and the one with attention (LSTM+A).

Both read the occupied cells in order, then put out one symbol per timestep. They see no more than
:class:`~lightning_ham.controllers.LSTMHAM`: neither the right outputs in training (no teacher forcing) nor their own
earlier outputs, which a decoder can keep in its state.

Their rollouts have no accesses (``[batch, 0]``), and they ignore attention modes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from lightning_ham.arguments import expect_integer
from lightning_ham.controllers.rollout import Rollout
from lightning_ham.memory import AttentionMode


class EncoderDecoder(nn.Module):
    """One LSTM reads the cells, and another one, which starts in the state where that one ends, writes the output.

    The decoder knows the input only as a state of fixed size (Sutskever et al., 2014, arXiv 1409.3215). It also sees
    the encoder's last hidden state at every timestep (Cho et al., 2014, arXiv 1406.1078).

    Args:
        input_size: Numbers per input cell.
        output_size: Bits per output symbol.
        controller_size: Cells of each layer. With the default, the model has more parameters than our largest LSTM+HAM
            on each of our tasks.
        num_layers: Layers of the encoder and of the decoder.

    Raises:
        ValueError: If an argument is below 1.
    """

    accesses_per_output = 0

    def __init__(self, input_size: int, output_size: int, controller_size: int = 128, num_layers: int = 1) -> None:
        super().__init__()
        _expect_positive(input_size, output_size, controller_size, num_layers)
        self.controller_size = controller_size
        self.encoder = nn.LSTM(input_size, controller_size, num_layers, batch_first=True)
        self.decoder = nn.LSTM(controller_size, controller_size, num_layers, batch_first=True)
        self.head = nn.Linear(controller_size, output_size)

    def forward(
        self,
        inputs: Tensor,
        occupied: Tensor,
        timesteps: int,
        attention: AttentionMode = "argmax",
        generator: torch.Generator | None = None,
    ) -> Rollout:
        """Run a batch of episodes.

        Args:
            inputs: Input cells, ``[batch, num_leaves, input_size]``.
            occupied: Which cells hold input, ``[batch, num_leaves]``; the others are skipped. An episode without any
                is read as a single cell of zeros.
            timesteps: Output symbols to produce.
            attention: Ignored.
            generator: Ignored; nothing is sampled.
        """
        _, (hidden, cell) = self.encoder(_pack(inputs, occupied))  # each [layers, batch, controller_size]
        seen = hidden[-1].unsqueeze(1).expand(-1, timesteps, -1)
        states, _ = self.decoder(seen, (hidden, cell))
        return _without_accesses(self.head(states), inputs, self.controller_size)


class AttentionEncoderDecoder(nn.Module):
    """LSTM+A: one LSTM reads the cells in both directions; another one attends to what was read, and writes the output.

    After Bahdanau et al., 2015 (arXiv 1409.0473): a learned layer turns the last state of the backward direction into
    the decoder's first. At every timestep the decoder scores all cells (:class:`AdditiveAttention`) with its state,
    steps on their weighted mean, and puts out a symbol from its new state and that mean: O(n) for n cells.

    Args:
        input_size: Numbers per input cell.
        output_size: Bits per output symbol.
        controller_size: Cells of each layer, in the encoder per direction; also the hidden units of the attention. With
            the default, the model has more parameters than our largest LSTM+HAM on each of our tasks.
        num_layers: Layers of the encoder and of the decoder.

    Raises:
        ValueError: If an argument is below 1.
    """

    accesses_per_output = 0

    def __init__(self, input_size: int, output_size: int, controller_size: int = 128, num_layers: int = 1) -> None:
        super().__init__()
        _expect_positive(input_size, output_size, controller_size, num_layers)
        self.controller_size = controller_size
        self.num_layers = num_layers
        self.encoder = nn.LSTM(input_size, controller_size, num_layers, batch_first=True, bidirectional=True)
        self.start = nn.Linear(controller_size, num_layers * controller_size)
        self.attention = AdditiveAttention(controller_size, 2 * controller_size, controller_size)
        self.decoder = nn.LSTM(2 * controller_size, controller_size, num_layers)
        self.head = nn.Linear(3 * controller_size, output_size)

    def forward(
        self,
        inputs: Tensor,
        occupied: Tensor,
        timesteps: int,
        attention: AttentionMode = "argmax",
        generator: torch.Generator | None = None,
    ) -> Rollout:
        """Run a batch of episodes; arguments as for :meth:`EncoderDecoder.forward`."""
        packed, (last, _) = self.encoder(_pack(inputs, occupied))
        annotations, lengths = pad_packed_sequence(packed, batch_first=True)  # [batch, cells, 2 * controller_size]
        is_cell = torch.arange(annotations.shape[1]) < lengths.unsqueeze(1)
        is_cell = is_cell.to(annotations.device)  # [batch, cells]
        keys = self.attention.keys(annotations)
        hidden = torch.tanh(self.start(last[-1])).unflatten(1, (self.num_layers, -1)).transpose(0, 1).contiguous()
        cell = torch.zeros_like(hidden)
        outputs = []
        for _ in range(timesteps):
            context, _ = self.attention(hidden[-1], keys, annotations, is_cell)
            _, (hidden, cell) = self.decoder(context.unsqueeze(0), (hidden, cell))
            outputs.append(torch.cat((hidden[-1], context), dim=1))
        return _without_accesses(self.head(torch.stack(outputs, dim=1)), inputs, self.controller_size)


class AdditiveAttention(nn.Module):
    """Weighs annotations by ``softmax over j of v . tanh(W query + U annotation_j)`` (arXiv 1409.0473, section A.1.2).

    Args:
        query_size: Numbers per query.
        annotation_size: Numbers per annotation.
        hidden_size: Hidden units of the score.
    """

    def __init__(self, query_size: int, annotation_size: int, hidden_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(query_size, hidden_size, bias=False)
        self.key = nn.Linear(annotation_size, hidden_size)
        self.score = nn.Linear(hidden_size, 1, bias=False)

    def keys(self, annotations: Tensor) -> Tensor:
        """Return the keys of ``annotations`` ``[batch, cells, annotation_size]``, the same for every query."""
        return self.key(annotations)

    def forward(self, query: Tensor, keys: Tensor, annotations: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Attend once.

        Args:
            query: ``[batch, query_size]``.
            keys: From :meth:`keys`, ``[batch, cells, hidden_size]``.
            annotations: ``[batch, cells, annotation_size]``.
            mask: Which annotations are valid, ``[batch, cells]``; at least one per row.

        Returns:
            The weighted mean of the annotations, ``[batch, annotation_size]``, and the weights, ``[batch, cells]``,
            which are 0 where ``mask`` is False.
        """
        scores = self.score(torch.tanh(keys + self.query(query).unsqueeze(1))).squeeze(-1)
        weights = scores.masked_fill(~mask, -torch.inf).softmax(dim=1)
        return torch.einsum("bn,bnd->bd", weights.to(annotations.dtype), annotations), weights


def _expect_positive(input_size: int, output_size: int, controller_size: int, num_layers: int) -> None:
    for name, number in {
        "input_size": input_size,
        "output_size": output_size,
        "controller_size": controller_size,
        "num_layers": num_layers,
    }.items():
        expect_integer(name, number, at_least=1)


def _pack(inputs: Tensor, occupied: Tensor) -> PackedSequence:
    """Return the occupied cells of every episode in order, so that no padding is read.

    Raises:
        NotImplementedError: If torch.export traces it.
    """
    if torch.compiler.is_exporting():
        raise NotImplementedError(
            "Expected a model with a memory for torch.export, but got an LSTM that reads packed sequences, which it "
            "cannot trace; use the controller lstm_ham or raw_ham, or the export format json."
        )
    order = occupied.logical_not().to(torch.uint8).argsort(dim=1, stable=True)
    cells = inputs.masked_fill(~occupied.unsqueeze(-1), 0.0).gather(1, order.unsqueeze(-1).expand_as(inputs))
    # Packing needs lengths on the CPU, of at least 1.
    lengths = occupied.sum(dim=1).clamp(min=1).cpu()
    return pack_padded_sequence(cells, lengths, batch_first=True, enforce_sorted=False)


def _without_accesses(outputs: Tensor, inputs: Tensor, controller_size: int) -> Rollout:
    """Return the rollout of a controller without a memory that put out these logits."""
    none = outputs.new_zeros(len(outputs), 0)
    depth = inputs.shape[1].bit_length() - 1
    return Rollout(
        outputs=outputs,
        states=none.new_zeros(len(none), 0, controller_size),
        log_probs=none,
        entropies=none,
        leaves=none.long(),
        branch_probs=none.new_zeros(len(none), 0, depth),
    )
