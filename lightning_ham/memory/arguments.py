"""Checks of the tensors that a memory is given, with errors that say which one does not fit, and how."""

from __future__ import annotations

import torch
from torch import Tensor


class ArgumentError(ValueError, RuntimeError):
    """A tensor that does not fit the memory; a RuntimeError too, as what PyTorch itself would raise further on."""


def expect_tensor(name: str, value: object, shape: tuple[int | str, ...], dtype: torch.dtype) -> None:
    """Raise an :class:`ArgumentError` unless an argument is a tensor of this shape and type.

    Args:
        name: Of the argument.
        value: The argument.
        shape: Sizes, or names of those that may be anything.
        dtype: The type; under autocast, numbers may be of any floating type.
    """
    if isinstance(value, Tensor):
        sizes = value.shape
        fits = len(sizes) == len(shape) and all(
            size == wanted or isinstance(wanted, str) for size, wanted in zip(sizes, shape, strict=True)
        )
        if fits and (value.dtype == dtype or _is_cast(value, dtype)):
            return
        got = f"shape {list(sizes)} and dtype {value.dtype}"
    else:
        got = f"a {type(value).__name__}, not a tensor"
    wanted = ", ".join(map(str, shape))
    raise ArgumentError(f"Expected argument `{name}` of shape [{wanted}] and dtype {dtype}, but got {got}.")


def expect_kind(name: str, value: object, kind: type, source: str) -> None:
    """Raise a TypeError unless an argument is what one of the memory's methods returns."""
    if not isinstance(value, kind):
        raise TypeError(f"Expected argument `{name}` to be what {source} returns, but got a {type(value).__name__}.")


def _is_cast(value: Tensor, dtype: torch.dtype) -> bool:
    return dtype.is_floating_point and value.is_floating_point() and torch.is_autocast_enabled(value.device.type)
