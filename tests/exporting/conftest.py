"""Models exported to ONNX, once for all tests, as each takes seconds."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from lightning_ham.export import main

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns the folder that a bundled model is exported to, by the command."""
    root = tmp_path_factory.mktemp("exported")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            assert main([name, "--format", "onnx", "-o", str(root / name)]) == 0
        return root / name

    return folder


@pytest.fixture(scope="session")
def onnx_episodes() -> ModuleType:
    """The example that runs episodes in ONNX Runtime."""
    spec = importlib.util.spec_from_file_location("onnx_episodes", EXAMPLES / "onnx_episodes.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["onnx_episodes"] = module
    spec.loader.exec_module(module)
    return module
