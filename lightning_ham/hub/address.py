"""Addresses of the Hub, which may have a password in them that nobody is to see."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from lightning_ham.foreign import shown


def shown_address(address: str) -> str:
    """Return an address as it may be shown: without the name and the password that it may have before its host.

    >>> shown_address("https://ada:secret@hub.example.org/x")
    'https://hub.example.org/x'
    """
    return shown(re.sub(r"^(\w+://)?.*@", r"\1", address, flags=re.DOTALL))


def without_passwords(text: str) -> str:
    """Return text without what stands before the hosts of the addresses in it.

    >>> without_passwords("GET http://ada:secret@hub/x failed")
    'GET http://hub/x failed'
    """
    return re.sub(r"(?<=://)\S*@", "", text)


def check_variable() -> None:
    """Raise a ValueError if HF_ENDPOINT is no address: huggingface_hub cannot be imported then, and tells why."""
    address = os.environ.get("HF_ENDPOINT", "")
    try:
        urlsplit(address).port  # noqa: B018
    except ValueError:
        raise ValueError(
            f"Expected the address of a server as HF_ENDPOINT, but {shown_address(address)} is not the address of a "
            "server."
        ) from None
