"""Whether a program runs in a notebook, where output cannot be overwritten as in a terminal."""

from __future__ import annotations

import os
import sys


def is_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")  # a kernel has imported it
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def is_from_notebook() -> bool:
    """Return whether a notebook has started this process, as with ``!lightning-ham fit sort``.

    It looks like a terminal to the process, but shows every line that would be overwritten in one.
    """
    return "JPY_PARENT_PID" in os.environ or "matplotlib_inline" in os.environ.get("MPLBACKEND", "")
