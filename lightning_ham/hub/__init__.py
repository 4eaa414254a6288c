"""Saving, publishing and loading trained models, as folders with a fixed set of files."""

from lightning_ham.hub.catalog import PretrainedModel, list_pretrained
from lightning_ham.hub.pretrained import TrainedModel, from_pretrained

__all__ = ["PretrainedModel", "TrainedModel", "from_pretrained", "list_pretrained"]
