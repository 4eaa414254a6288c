"""Seeds of random streams that have nothing in common."""

import hashlib


def stream_seed(*parts: int | str) -> int:
    """Return a seed that is different for every different sequence of ``parts``, and the same on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
