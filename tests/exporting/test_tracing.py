"""torch.export and torch.compile: they take an access and whole models, or say in one sentence why not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lightning_ham import HierarchicalAttentiveMemory, from_pretrained
from lightning_ham.hub import TrainedModel
from lightning_ham.tasks import Episodes

BATCH = torch.export.Dim("batch")


class OneAccess(nn.Module):
    """Attends, reads and writes once, in a tree of four leaves."""

    def __init__(self, attention: str, **options: object) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention = attention
        self.memory = HierarchicalAttentiveMemory(5, 6, 8, **options)

    def forward(self, cells: Tensor, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        access = self.memory.attend(self.memory.init(cells), query, self.attention)
        return access.read, access.log_prob, self.memory.write(access, query).nodes


def arguments(batch: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(batch)
    return torch.rand(batch, 4, 5), torch.rand(batch, 6)


def sampled(function: Callable[..., object], *inputs: object) -> object:
    """What a function returns with a fixed seed."""
    torch.manual_seed(1)
    return function(*inputs)


def episodes_of(model: TrainedModel, count: int) -> Episodes:
    return model.task.sample(count, (2, 2), generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize(
    ("attention", "options"),
    [("argmax", {"join": "choice", "real_inputs": 1}), ("straight_through", {"grid": 0.25})],
)
def test_an_access_is_exported_for_batches_of_any_size(attention, options):
    module = OneAccess(attention, **options)
    program = torch.export.export(module, arguments(3), dynamic_shapes=({0: BATCH}, {0: BATCH}))
    for batch in (3, 5):
        inputs = arguments(batch)
        torch.testing.assert_close(sampled(program.module(), *inputs), sampled(module, *inputs))


def test_an_access_is_compiled_whole_with_its_gradient():
    module = OneAccess("straight_through")
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    found = []
    for function in (compiled, module):
        outputs = sampled(function, *arguments(3))
        loss = sum((output * torch.arange(output.numel()).view_as(output)).sum() for output in outputs)
        found.append([*outputs, *torch.autograd.grad(loss, list(module.parameters()), allow_unused=True)])
    torch.testing.assert_close(*found)
    assert found[0][-1].abs().sum() > 0


@pytest.mark.parametrize("name", ["ham-queue", "ham-search"])
def test_a_model_is_exported_for_batches_of_any_size(name):
    model = from_pretrained(name)
    shapes = (Episodes(*[{0: BATCH} for _ in Episodes._fields]),)
    with torch.no_grad():
        program = torch.export.export(model, (episodes_of(model, 3),), dynamic_shapes=shapes)
        episodes = episodes_of(model, 5)
        torch.testing.assert_close(program.module()(episodes), model(episodes), rtol=1e-4, atol=1e-4)


def test_a_model_is_compiled_whole():
    model = from_pretrained("ham-search")
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    episodes = episodes_of(model, 3)
    torch.testing.assert_close(compiled(episodes), model(episodes), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_traced_says_so():
    model = TrainedModel("reverse", "lstm", {"controller_size": 2})
    with pytest.raises(
        NotImplementedError, match=r"^Expected a model with a memory for torch\.export, but got an LSTM "
    ):
        torch.export.export(model, (episodes_of(model, 3),))
    model = from_pretrained("ham-reverse")
    model.controller.memory.engine = "fused"
    expected = (
        r"^The engine 'fused' cannot run this: torch\.compile and torch\.export trace plain PyTorch only\. Choose the"
    )
    with pytest.raises(ValueError, match=expected):
        torch.export.export(model, (episodes_of(model, 3),))
