"""Trained models in formats for other programs: ONNX graphs, and JSON for the browser.

A format is a module with one function and a line in :mod:`lightning_ham.exporting.formats`.
"""

from lightning_ham.exporting.formats import export_model, format_names

__all__ = ["export_model", "format_names"]
