"""Seeds for every use of randomness, derived by a hash so that no two uses share a stream."""

from __future__ import annotations

import hashlib

import torch


def derive(*parts: object) -> int:
    """A 63-bit seed from the parts' text; the same on every machine and Python."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*parts: object, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator seeded by ``derive(*parts)``."""
    return torch.Generator(device).manual_seed(derive(*parts))
