"""Models saved by this version and former ones are loaded, and answer as they did then."""

import json
from pathlib import Path

import pytest
import torch

from lightning_ham import __version__, from_pretrained

GOLDEN = Path(__file__).parent / "golden"
MODELS = sorted(path.parent.relative_to(GOLDEN).as_posix() for path in GOLDEN.glob("*/*/golden.json"))


def plain(value):
    """A value as it is after a round trip through JSON: tuples are lists."""
    return json.loads(json.dumps(value))


def test_this_version_has_its_models_and_they_are_of_every_kind():
    mine = [name for name in MODELS if name.startswith(f"{__version__}/")]
    configs = [json.loads((GOLDEN / name / "config.json").read_text()) for name in mine]
    assert {config["lightning_ham_version"] for config in configs} == {__version__}, "run tests/golden/write.py"
    assert len({config["task"] for config in configs}) == 8
    assert {config["controller"] for config in configs} == {"lstm_ham", "raw_ham", "lstm", "lstm_attention"}
    assert {config["controller_options"].get("join") for config in configs} >= {"gated", "choice", "mlp"}
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < 1_000_000 * len(MODELS) / 15


@pytest.mark.parametrize("name", MODELS)
def test_a_golden_model_answers_as_it_did(name):
    golden = json.loads((GOLDEN / name / "golden.json").read_text())
    model = from_pretrained(GOLDEN / name)
    assert plain(model.solve(golden["instances"])) == golden["answers"]
    assert len({json.dumps(answer) for answer in golden["answers"]}) > 1, "or any model would do"
    for instance, expected in zip(golden["instances"], golden["logits"], strict=True):
        with torch.inference_mode():
            (logits,) = model(model.task.encode([model.task.accept(instance)])).outputs
        torch.testing.assert_close(logits, torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_other_weights_would_be_seen():
    name = next(name for name in MODELS if name.endswith("/sort"))
    golden = json.loads((GOLDEN / name / "golden.json").read_text())
    model = from_pretrained(GOLDEN / name)
    with torch.inference_mode():
        model.controller.head.bias[0] += 0.01
        (logits,) = model(model.task.encode([model.task.accept(golden["instances"][0])])).outputs
    assert not torch.allclose(logits, torch.tensor(golden["logits"][0]), rtol=1e-4, atol=1e-4)
