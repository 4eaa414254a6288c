"""Where tests are run as on a processor of another kind, they are: a setting that does nothing would prove nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PRODUCT = """
import torch
with torch.backends.mkl.verbose(torch.backends.mkl.VERBOSE_ON):
    torch.ones(300, 300) @ torch.ones(300, 300)
"""
LSTM = """
import torch
with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON), torch.no_grad():
    torch.nn.LSTM(8, 8)(torch.ones(3, 2, 8))
"""


def setting(name: str, value: str):
    return pytest.mark.skipif(os.environ.get(name) != value, reason=f"{name} is not {value}")


def test_one_pass_has_every_setting():
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    (line,) = (line for line in makefile.splitlines() if line.startswith("PLAIN :="))
    assert set(line.split()[2:]) == {
        "ATEN_CPU_CAPABILITY=default",
        "MKL_ENABLE_INSTRUCTIONS=SSE4_2",
        "ONEDNN_MAX_CPU_ISA=SSE41",
        "NUMBA_CPU_NAME=generic",
    }
    assert "\n\t$(PLAIN) $(PYTEST) -m '$(NUMERICAL)' $(PLAIN_TESTS)" in makefile


def line(script: str, start: str) -> str:
    """What a process with the same settings prints of its processor."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return next(line for line in done.stdout.splitlines() if line.startswith(start))


@setting("ATEN_CPU_CAPABILITY", "default")
def test_pytorchs_own_loops_are_plain():
    assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"


@setting("MKL_ENABLE_INSTRUCTIONS", "SSE4_2")
@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="PyTorch has no MKL here")
def test_products_are_plain():
    assert "SSE4.2" in line(PRODUCT, "MKL_VERBOSE oneMKL")


@setting("ONEDNN_MAX_CPU_ISA", "SSE41")
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch has no oneDNN here")
def test_layers_are_plain():
    assert line(LSTM, "onednn_verbose,v1,info,cpu,isa") == "onednn_verbose,v1,info,cpu,isa:Intel SSE4.1"


@setting("NUMBA_CPU_NAME", "generic")
def test_compiled_loops_are_plain():
    from numba.core.registry import cpu_target

    _, processor, features = cpu_target.target_context.codegen().magic_tuple()
    assert (processor, features) == ("generic", "")
