"""Seeds of independent random streams."""

import hashlib


def stream_seed(*parts: int | str) -> int:
    """Return a seed that differs for every sequence of ``parts`` and is the same on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
