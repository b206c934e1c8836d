"""Random generators that depend only on a key."""

import hashlib

import torch


def seeded_generator(*key: object) -> torch.Generator:
    """A CPU generator whose seed depends only on `key`: counter-based randomness, the same on every rank."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
