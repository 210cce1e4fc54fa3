"""All randomness flows from one seed, through named streams that do not disturb one another."""

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from chartae.checks import check_integer

__all__ = ["derive_seed", "make_generator", "resolve_seed", "seed_generators", "seeded"]

# All threads of a process share torch's global generators: one at a time relies on them.
_turn = threading.RLock()


def _renew_turn() -> None:
    global _turn  # in a forked process nobody is left to give it back
    _turn = threading.RLock()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_renew_turn)


def resolve_seed(seed: int | None) -> int:
    """Return ``seed`` (0 or more), or a fresh one from the global generator when it is None."""
    if seed is None:
        return int(torch.randint(2**31, ()))
    return check_integer("seed", seed, minimum=0)


def derive_seed(seed: int, *stream: object) -> int:
    """Return the seed of a named stream: a 63-bit hash of ``seed`` and the names.

    Two streams of one seed are independent, so drawing more from one never shifts the other.

    >>> derive_seed(0, "order", 1) == derive_seed(0, "order", 1)
    True
    >>> derive_seed(0, "order", 1) == derive_seed(0, "noise", 1)
    False
    """
    text = repr((int(seed), *stream)).encode()  # NumPy's integers are written otherwise
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1


def make_generator(
    seed: int, *stream: object, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a generator on ``device`` seeded for the named stream of ``seed``."""
    return torch.Generator(device).manual_seed(derive_seed(seed, *stream))


def seed_generators(seed: int, *stream: object, device: torch.device | str = "cpu") -> None:
    """Seed torch's global generators, the CPU's and that of ``device``, for the stream of ``seed``.

    `torch.manual_seed` would seed every kind of accelerator, whether there is one or not, which
    takes longer than a small model's training step.
    """
    device, number = torch.device(device), derive_seed(seed, *stream)
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(number)
    elif device.type == "mps":
        torch.mps.manual_seed(number)


@contextmanager
def seeded(seed: int, *stream: object, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's global generators inside the block, and leave the caller's as they were.

    Threads take turns: a block waits until no other thread is in one. What a thread draws outside
    of such blocks from torch's global generators still disturbs the one inside.

    >>> with seeded(0, "noise"):
    ...     first = torch.rand(3)
    >>> with seeded(0, "noise"):
    ...     bool((torch.rand(3) == first).all())
    True
    """
    device = torch.device(device)
    accelerators = [] if device.type == "cpu" else [device.index or 0]
    kind = "cuda" if device.type == "cpu" else device.type
    with _turn, torch.random.fork_rng(devices=accelerators, device_type=kind):
        seed_generators(seed, *stream, device=device)
        yield
