"""Trained models in and out, as folders of three files."""

from lightning_ham.hub.pretrained import HAMModel, from_pretrained

__all__ = ["HAMModel", "from_pretrained"]
