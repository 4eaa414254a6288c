"""The networks that are compared: ours by engine, our comparison models, and what a user might take instead.

Each becomes a :class:`~lightning_ham.models.TaskModel`, so that all see the same episodes and are trained, timed and
evaluated by the same code.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_ham.controllers import Rollout
from lightning_ham.models import TaskModel

CONTROLLER_SIZE = 32
CELL_SIZE = 32
HAM_OPTIONS = {"controller_size": CONTROLLER_SIZE, "leaf_size": CELL_SIZE, "hidden_size": 64}
"""The sizes of recipes/sort.yaml and recipes/merge.yaml."""
ENGINES = ("reference", "sparse", "fused", "auto")
COMPARISON_MODELS = ("lstm_attention",)


class Unavailable(Exception):
    """A network cannot be measured here; the message says why."""


def as_sequence(inputs: Tensor, occupied: Tensor, timesteps: int) -> Tensor:
    """What a network reads that has no memory filled beforehand: every cell, then a blank step for every output.

    Two more numbers stand in each step: whether it is an occupied cell, and whether an output is wanted. The blank
    cells come first, so that the last cell is followed by the first output.

    Args:
        inputs: Input cells, ``[batch, cells, input_size]``.
        occupied: Which cells hold input, ``[batch, cells]``.
        timesteps: Outputs wanted.

    Returns:
        ``[batch, cells + timesteps, input_size + 2]``.
    """
    order = occupied.int().argsort(dim=1, stable=True).unsqueeze(-1)
    cells = torch.cat((inputs, occupied.unsqueeze(-1).to(inputs.dtype)), dim=-1)
    cells = cells.gather(1, order.expand_as(cells))
    wanted = torch.cat((cells.new_zeros(cells.shape[1]), cells.new_ones(timesteps)))
    steps = F.pad(cells, (0, 0, 0, timesteps))
    return torch.cat((steps, wanted.expand(len(steps), -1).unsqueeze(-1)), dim=-1)


class PlainLSTM(nn.Module):
    """``torch.nn.LSTM`` over the cells and then the blank steps, with a linear layer to the output bits."""

    def __init__(self, input_size: int, output_size: int, cells: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_size + 2, CONTROLLER_SIZE, batch_first=True)
        self.head = nn.Linear(CONTROLLER_SIZE, output_size)

    def forward(self, inputs: Tensor, occupied: Tensor, timesteps: int) -> Tensor:
        states, _ = self.lstm(as_sequence(inputs, occupied, timesteps))
        return self.head(states[:, -timesteps:])


class SmallTransformer(nn.Module):
    """``torch.nn.TransformerEncoder``: two layers of 64 numbers and 4 heads over all cells and all outputs at once.

    Cells and outputs have learned positions; those of the outputs are what asks for them.
    """

    SIZE, HEADS, LAYERS = 64, 4, 2

    def __init__(self, input_size: int, output_size: int, cells: int) -> None:
        super().__init__()
        self.embed = nn.Linear(input_size + 2, self.SIZE)
        self.positions = nn.Parameter(0.1 * torch.randn(2 * cells + 1, self.SIZE))
        layer = nn.TransformerEncoderLayer(self.SIZE, self.HEADS, 4 * self.SIZE, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, self.LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(self.SIZE, output_size)

    def forward(self, inputs: Tensor, occupied: Tensor, timesteps: int) -> Tensor:
        steps = self.embed(as_sequence(inputs, occupied, timesteps))
        return self.head(self.encoder(steps + self.positions[: steps.shape[1]])[:, -timesteps:])


class NeuralTuringMachine(nn.Module):
    """The NTM of Graves et al., 2014 (arXiv 1410.5401): an LSTM with one write head and one read head.

    No maintained package on PyPI has one, so it is written here from the paper: content addressing, interpolation with
    the last weights, a shift of -1, 0 or 1, and sharpening (section 3.3); erase, then add (section 3.2).
    """

    SHIFTS = 3

    def __init__(self, input_size: int, output_size: int, cells: int) -> None:
        super().__init__()
        self.cells = cells
        self.lstm = nn.LSTMCell(input_size + 2 + CELL_SIZE, CONTROLLER_SIZE)
        addressing = CELL_SIZE + 3 + self.SHIFTS  # key, then strength, gate and sharpening, then shifts
        self.interface_sizes = [addressing, addressing, CELL_SIZE, CELL_SIZE]  # write, read, erase, add
        self.interface = nn.Linear(CONTROLLER_SIZE, sum(self.interface_sizes))
        self.first_memory = nn.Parameter(0.1 * torch.randn(cells, CELL_SIZE))
        self.first_read = nn.Parameter(torch.zeros(CELL_SIZE))
        self.head = nn.Linear(CONTROLLER_SIZE + CELL_SIZE, output_size)

    def forward(self, inputs: Tensor, occupied: Tensor, timesteps: int) -> Tensor:
        steps = as_sequence(inputs, occupied, timesteps)
        batch = len(steps)
        memory = self.first_memory.expand(batch, -1, -1)  # [batch, cells, CELL_SIZE]
        read = self.first_read.expand(batch, -1)
        hidden = state = steps.new_zeros(batch, CONTROLLER_SIZE)
        write_weights = read_weights = F.one_hot(torch.zeros(batch, dtype=torch.long), self.cells).to(steps)
        outputs = []
        for step in steps.unbind(1):
            hidden, state = self.lstm(torch.cat((step, read), dim=1), (hidden, state))
            for_write, for_read, erase, add = self.interface(hidden).split(self.interface_sizes, dim=1)
            write_weights = self._address(memory, write_weights, for_write)
            written = write_weights.unsqueeze(-1)
            memory = memory * (1 - written * torch.sigmoid(erase).unsqueeze(1)) + written * torch.tanh(add).unsqueeze(1)
            read_weights = self._address(memory, read_weights, for_read)
            read = (read_weights.unsqueeze(1) @ memory).squeeze(1)
            outputs.append(torch.cat((hidden, read), dim=1))
        return self.head(torch.stack(outputs[-timesteps:], dim=1))

    def _address(self, memory: Tensor, last: Tensor, interface: Tensor) -> Tensor:
        """New weights over the cells, ``[batch, cells]``, from the last ones."""
        key, strength, gate, sharpening, shifts = interface.split((CELL_SIZE, 1, 1, 1, self.SHIFTS), dim=1)
        similarity = F.cosine_similarity(memory, torch.tanh(key).unsqueeze(1), dim=-1)
        by_content = torch.softmax(F.softplus(strength) * similarity, dim=1)
        gated = torch.lerp(last, by_content, torch.sigmoid(gate))
        around = torch.stack([gated.roll(shift, dims=1) for shift in (-1, 0, 1)], dim=-1)  # [batch, cells, SHIFTS]
        shifted = (around @ torch.softmax(shifts, dim=1).unsqueeze(-1)).squeeze(-1)
        sharp = (shifted + 1e-6) ** (1 + F.softplus(sharpening))
        return sharp / sharp.sum(dim=1, keepdim=True)


class FromDNC(nn.Module):
    """A network of the PyPI package ``dnc``, with one layer, one read head and as many cells as the input.

    Its outputs are as wide as its inputs; a linear layer makes the output bits of them.
    """

    def __init__(self, network: Callable[..., nn.Module], input_size: int, output_size: int, cells: int) -> None:
        super().__init__()
        self.network = network(
            input_size=input_size + 2,
            hidden_size=CONTROLLER_SIZE,
            num_hidden_layers=1,
            nr_cells=cells,
            cell_size=CELL_SIZE,
            read_heads=1,
        )
        self.head = nn.Linear(input_size + 2, output_size)

    def forward(self, inputs: Tensor, occupied: Tensor, timesteps: int) -> Tensor:
        outputs, _ = self.network(as_sequence(inputs, occupied, timesteps), (None, None, None), reset_experience=True)
        return self.head(outputs[:, -timesteps:])


class ExactNeighbours:
    """What SDNC asks of an index, for one episode: the nearest cells to a key, found by comparing all of them."""

    def __init__(self, count: int) -> None:
        self.count = count

    def reset(self) -> None:
        pass

    def add(self, cells: Tensor, last: int | None = None) -> None:
        self.cells = cells.detach()

    def search(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        nearest = torch.cdist(keys.detach(), self.cells).topk(self.count, largest=False)
        return nearest.values, nearest.indices


def _installed_dnc() -> Any:
    if importlib.util.find_spec("dnc") is None:
        raise Unavailable("the package dnc is not installed: pip install --no-deps dnc==1.1.0")
    import dnc

    return dnc


def make_dnc(input_size: int, output_size: int, cells: int) -> nn.Module:
    """The package's DNC (Graves et al., 2016)."""
    return FromDNC(_installed_dnc().DNC, input_size, output_size, cells)


def make_sdnc(input_size: int, output_size: int, cells: int) -> nn.Module:
    """The package's SDNC (Rae et al., 2016, arXiv 1610.09027).

    It looks for cells with FAISS on a GPU or with pyflann, an old binary that is on few platforms. Exact search stands
    in for them: with so few cells it costs less than their trees, which are built anew in every timestep. SDNC also
    overwrites tensors that its backward needs, which PyTorch refuses by now; see
    :func:`training_context`.
    """
    peer = FromDNC(_installed_dnc().SDNC, input_size, output_size, max(cells, 16))  # it reads 13 cells at a time
    memory = peer.network.memories[0]

    def rebuild_indexes(state: dict[str, Any], erase: bool = False) -> dict[str, Any]:
        memory.timestep, memory.mem_limit_reached = 0, False
        state["indexes"] = [ExactNeighbours(memory.K) for _ in state["memory"]]
        return state

    memory.rebuild_indexes = rebuild_indexes
    return peer


PEERS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "dnc": make_dnc,
    "sdnc": make_sdnc,
    "ntm": NeuralTuringMachine,
    "torch_lstm": PlainLSTM,
    "transformer": SmallTransformer,
}
"""How each peer is made, from the sizes of a cell and of an output and the most cells there will be."""
NOTES = {
    "sdnc": "exact nearest neighbours instead of pyflann or FAISS on a GPU; at least 16 cells",
    "ntm": "ours, after arXiv 1410.5401, as no maintained package on PyPI has one",
}
"""What a reader must know of a network to judge its figures."""


class PeerController(nn.Module):
    """A peer in the place of a controller of ours."""

    accesses_per_output = 0
    controller_size = CONTROLLER_SIZE

    def __init__(self, peer: nn.Module) -> None:
        super().__init__()
        self.peer = peer

    def forward(
        self, inputs: Tensor, occupied: Tensor, timesteps: int, attention: str = "argmax", generator: object = None
    ) -> Rollout:
        """Run a batch of episodes; there are no accesses to tell of."""
        none = inputs.new_zeros(len(inputs), 0)
        return Rollout(
            outputs=self.peer(inputs, occupied, timesteps),
            states=none.unsqueeze(-1),
            log_probs=none,
            entropies=none,
            leaves=none.long(),
            branch_probs=none.unsqueeze(-1),
        )


def make_model(name: str, task: str, cells: int) -> TaskModel:
    """The model ``name`` for a task: an engine of ours, a comparison model of ours, or a peer.

    Raises:
        Unavailable: If it cannot run here; the message says why.
    """
    if name in PEERS:
        model = TaskModel(task)
        model.controller = PeerController(PEERS[name](model.task.input_size, model.task.output_size, cells))
        model.controller_name = name
        return model
    if name in COMPARISON_MODELS:
        try:
            return TaskModel(task, name, {"controller_size": CONTROLLER_SIZE})
        except ValueError as error:
            raise Unavailable(str(error)) from error
    model = TaskModel(task, "lstm_ham", HAM_OPTIONS)
    model.controller.memory.engine = name
    return model


def training_context(name: str) -> AbstractContextManager[Any]:
    """What forward and backward of a network must run in."""
    return torch.autograd.graph.allow_mutation_on_saved_tensors() if name == "sdnc" else nullcontext()
