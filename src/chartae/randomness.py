"""All randomness flows from one seed, through named streams that do not disturb one another."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from chartae.checks import check_integer

__all__ = ["derive_seed", "make_generator", "resolve_seed", "seeded"]


def resolve_seed(seed: int | None) -> int:
    """Return ``seed`` (0 or more), or a fresh one from the global generator when it is None."""
    if seed is None:
        return int(torch.randint(2**31, ()))
    check_integer("seed", seed, minimum=0)
    return seed


def derive_seed(seed: int, *stream: object) -> int:
    """Return the seed of a named stream: a 63-bit hash of ``seed`` and the names.

    Two streams of one seed are independent, so drawing more from one never shifts the other.

    >>> derive_seed(0, "order", 1) == derive_seed(0, "order", 1)
    True
    >>> derive_seed(0, "order", 1) == derive_seed(0, "noise", 1)
    False
    """
    text = repr((seed, *stream)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1


def make_generator(
    seed: int, *stream: object, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a generator on ``device`` seeded for the named stream of ``seed``."""
    return torch.Generator(device).manual_seed(derive_seed(seed, *stream))


@contextmanager
def seeded(seed: int, *stream: object, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's global generators inside the block, and leave the caller's as they were."""
    device = torch.device(device)
    accelerators = [] if device.type == "cpu" else [device.index or 0]
    kind = "cuda" if device.type == "cpu" else device.type
    with torch.random.fork_rng(devices=accelerators, device_type=kind):
        torch.manual_seed(derive_seed(seed, *stream))
        yield
