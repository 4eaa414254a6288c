"""Models exported to ONNX, once for all tests, as each takes seconds."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_ham.export import main


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns the folder that a bundled model is exported to, by the command."""
    root = tmp_path_factory.mktemp("exported")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            assert main([name, "--format", "onnx", "-o", str(root / name)]) == 0
        return root / name

    return folder
