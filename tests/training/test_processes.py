"""Several processes take the update that one process would take with the episodes of all."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from lightning_ham.controllers import Rollout
from lightning_ham.tasks import Episodes
from lightning_ham.tasks.seeds import stream_seed
from lightning_ham.training import HAMModule, TaskDataModule
from lightning_ham.training.objective import objective

pytestmark = pytest.mark.slow

PROCESSES, UPDATES = 2, 4
KEPT = {"entropy_bonus": 0.1, "final_entropy_bonus": 1.0, "branch_prior": 0.3}
TRAININGS = {
    "straight_through": {"task": "sort", "exploration": KEPT},
    "reference engine": {"task": "sort", "engine": "reference"},
    "guide and hints": {"task": "priority_queue", "supervision": {"guided_fraction": 0.5, "hint_weight": 0.5}},
    "learned baseline": {"task": "sort", "attention": "reinforce", "exploration": KEPT},
    "leave one out": {
        "task": "sort",
        "attention": "reinforce",
        "reinforce": {"baseline": "leave_one_out", "rollouts": 2},
        "supervision": {"until_error": True},
    },
}


def make(name: str) -> tuple[HAMModule, TaskDataModule]:
    torch.manual_seed(0)
    options = TRAININGS[name]
    module = HAMModule(controller_options={"controller_size": 4, "leaf_size": 4}, seed=5, **options)
    data = TaskDataModule(
        options["task"], batch_size=6, batches_per_epoch=UPDATES, capacity=16, start_capacity=16, smaller_fraction=0.5,
        validation_lengths=[], seed=10,
    )  # fmt: skip
    return module, data


def train_on_one_rank(rank: int, folder: str) -> None:
    """Train; write down the weights and gradients before every update."""
    from pytorch_lightning import Callback, Trainer

    class Updates(Callback):
        def __init__(self) -> None:
            self.seen = []

        def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
            named = dict(pl_module.named_parameters())
            self.seen.append(
                (
                    {name: value.detach().clone() for name, value in named.items()},
                    {name: value.grad.clone() for name, value in named.items()},
                )
            )

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"}
    results = {}
    for name in TRAININGS:
        module, data = make(name)
        updates = Updates()
        trainer = Trainer(
            accelerator="cpu", devices=PROCESSES, strategy="ddp", max_epochs=1, limit_val_batches=0,
            callbacks=[updates],
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, data)
        loss = float(trainer.callback_metrics["train/loss"])
        results[name] = (loss, updates.seen, {key: value.clone() for key, value in module.state_dict().items()})
    torch.save(results, Path(folder, f"{rank}.pt"))


def in_one(parts: list[tuple]) -> tuple:
    """Join named tuples of tensors along the batch; those with fewer timesteps or accesses get zeros at the end."""
    joined = []
    for tensors in zip(*parts, strict=True):
        longest = max(tensor.shape[1] if tensor.dim() > 1 else 0 for tensor in tensors)
        padded = [
            F.pad(tensor, [0, 0] * (tensor.dim() - 2) + [0, longest - tensor.shape[1]]) if tensor.dim() > 1 else tensor
            for tensor in tensors
        ]
        joined.append(torch.cat(padded))
    return type(parts[0])(*joined)


def batches_of(data: TaskDataModule, rank: int) -> list[Episodes]:
    data.trainer = SimpleNamespace(global_rank=rank, world_size=PROCESSES)
    return list(data.train_dataloader())


def loss_of_all(module: HAMModule, batches: list[Episodes], number: int) -> torch.Tensor:
    """The loss of one process with the batches of all ranks."""
    rollouts: list[Rollout] = []
    repeated: list[Episodes] = []
    guided = module._is_guided(number)
    for rank, batch in enumerate(batches):
        repeats = module.reinforce.rollouts if module.reinforce else 1
        repeated.append(Episodes(*(tensor.repeat_interleave(repeats, dim=0) for tensor in batch)))
        generator = torch.Generator().manual_seed(stream_seed(module.seed, "branches", rank, 0, number))
        rollouts.append(module.model(repeated[-1], module.attention, generator, guided=guided))
    rollout = in_one(rollouts)
    bonus = module.exploration.entropy_bonus * module.exploration.final_entropy_bonus ** (number / UPDATES)
    return objective(
        rollout, in_one(repeated), module.model.task, exploration=module.exploration, supervision=module.supervision,
        reinforce=module.reinforce, bonus=bonus, values=module._baseline_values(rollout), guided=guided,
    ).loss  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What two processes have trained, by rank."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(PROCESSES), "TORCHELASTIC_RUN_ID": "test",
        "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    command = [sys.executable, __file__, folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


@pytest.mark.parametrize("name", TRAININGS)
def test_two_processes_have_the_gradients_of_one_with_the_episodes_of_both(trained, name):
    module, data = make(name)
    batches = list(zip(*(batches_of(data, rank) for rank in range(PROCESSES)), strict=True))
    (first_loss, first, first_end), (second_loss, second, second_end) = (ranks[name] for ranks in trained)
    assert len(first) == len(second) == UPDATES
    losses = []
    for number, ((weights, gradients), (other_weights, other_gradients)) in enumerate(zip(first, second, strict=True)):
        for mine, others in ((weights, other_weights), (gradients, other_gradients)):
            assert all(torch.equal(value, others[key]) for key, value in mine.items())
        module.load_state_dict(weights, strict=False)
        module.zero_grad()
        loss = loss_of_all(module, batches[number], number)
        loss.backward()
        losses.append(loss.item())
        for key, parameter in module.named_parameters():
            expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(
                gradients[key], expected, rtol=1e-4, atol=1e-6, msg=lambda m, key=key: f"{key}: {m}"
            )
    timesteps = [[int(batch.scored.any(dim=-1).sum()) for batch in both] for both in batches]
    assert any(mine != others for mine, others in timesteps)  # equal ones would hide a mean of means
    assert name == "guide and hints" or any(both[0].inputs.shape[1] == 1 for both in batches)  # trees without JOIN
    assert all(torch.equal(value, second_end[key]) for key, value in first_end.items())
    assert first_loss == second_loss == pytest.approx(sum(losses) / UPDATES, rel=1e-5)


if __name__ == "__main__":
    torch.multiprocessing.start_processes(train_on_one_rank, (sys.argv[1],), nprocs=PROCESSES, start_method="fork")
