"""The public face of the package: names that resolve when used, and an import that brings nothing heavy."""

import subprocess
import sys

import pytest

import lightning_ham

PUBLIC = [
    "HAMModule",
    "HierarchicalAttentiveMemory",
    "TaskDataModule",
    "from_pretrained",
    "learning_curve",
    "list_pretrained",
]
HEAVY = {"huggingface_hub", "pytorch_lightning", "torch", "torchmetrics", "wandb"}


def _modules_after(statement):
    """The top-level modules loaded in a new interpreter that executes one statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    command = [sys.executable, "-c", code]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def test_import_brings_nothing_heavy():
    assert not HEAVY & _modules_after("import lightning_ham")


def test_memory_brings_torch_only():
    assert HEAVY & _modules_after("from lightning_ham import HierarchicalAttentiveMemory") == {"torch"}


WITHOUT_LIGHTNING = """
import sys
sys.modules.update(pytorch_lightning=None, lightning=None, torchmetrics=None)
import lightning_ham
model = lightning_ham.from_pretrained("ham-reverse")
assert model.solve([[7, 1000, 42]]) == [[42, 1000, 7]]
from lightning_ham.evaluate import main
sys.exit(main(["ham-reverse", "--lengths", "1-8", "--episodes", "20"]))
"""


def test_using_and_evaluating_a_model_needs_no_lightning():
    done = subprocess.run([sys.executable, "-c", WITHOUT_LIGHTNING], check=True, capture_output=True, text=True)
    title, header, row = done.stdout.splitlines()
    assert title.startswith("reverse with lstm_ham, ")
    assert (header.split()[0], row.split()[:5]) == ("lengths", ["1-8", "8", "20", "0", "0"])


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_resolves(name):
    assert getattr(lightning_ham, name).__name__ == name


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'lightning_ham' has no attribute 'HamModule'"):
        _ = lightning_ham.HamModule


def test_public_names_are_listed():
    assert sorted(lightning_ham.__all__) == sorted([*PUBLIC, "__version__"])
    assert set(lightning_ham.__all__) <= set(dir(lightning_ham))
