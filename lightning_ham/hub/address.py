"""Hides passwords in addresses of the Hub."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from lightning_ham.foreign import shown


def shown_address(address: str) -> str:
    """Return an address without a user name and password before its host.

    >>> shown_address("https://ada:secret@hub.example.org/x")
    'https://hub.example.org/x'
    """
    return shown(re.sub(r"^(\w+://)?.*@", r"\1", address, flags=re.DOTALL))


def without_passwords(text: str) -> str:
    """Return text without user names and passwords in its addresses.

    >>> without_passwords("GET http://ada:secret@hub/x failed")
    'GET http://hub/x failed'
    """
    return re.sub(r"(?<=://)\S*@", "", text)


def check_variable() -> None:
    """Raise a clear ValueError if HF_ENDPOINT is not an address: importing huggingface_hub would fail."""
    address = os.environ.get("HF_ENDPOINT", "")
    try:
        urlsplit(address).port  # noqa: B018
    except ValueError:
        raise ValueError(
            f"Expected the address of a server as HF_ENDPOINT, but {shown_address(address)} is not the address of a "
            "server."
        ) from None
