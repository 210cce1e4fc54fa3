"""Random number generators derived from one seed, by independent named streams."""

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from chartae.checks import check_integer

__all__ = ["derive_seed", "make_generator", "resolve_seed", "seed_generators", "seeded"]

# All threads of a process share torch's global generators. Only one thread may use them at a time.
_turn = threading.RLock()


def _renew_turn() -> None:
    global _turn  # in a forked process, the thread that held the lock does not exist
    _turn = threading.RLock()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_renew_turn)


def resolve_seed(seed: int | None) -> int:
    """Return ``seed``, at least 0; if it is None, draw one from the global generator."""
    if seed is None:
        return int(torch.randint(2**31, ()))
    return check_integer("seed", seed, minimum=0)


def derive_seed(seed: int, *stream: object) -> int:
    """Return the seed of a named stream: a 63-bit hash of ``seed`` and the names.

    Two streams of one seed are independent. More draws from one do not change the other.

    >>> derive_seed(0, "order", 1) == derive_seed(0, "order", 1)
    True
    >>> derive_seed(0, "order", 1) == derive_seed(0, "noise", 1)
    False
    """
    text = repr((int(seed), *stream)).encode()  # NumPy integers have a different repr
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1


def make_generator(
    seed: int, *stream: object, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a generator on ``device`` seeded for the named stream of ``seed``."""
    return torch.Generator(device).manual_seed(derive_seed(seed, *stream))


def seed_generators(seed: int, *stream: object, device: torch.device | str = "cpu") -> None:
    """Seed torch's global generators of the CPU and of ``device`` for the stream of ``seed``.

    `torch.manual_seed` would seed every kind of accelerator, present or not. That takes longer than
    a training step of a small model.
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
    """Seed torch's global generators inside the block, and restore their state afterwards.

    Only one thread at a time can be in such a block; others wait. A thread that draws from torch's
    global generators outside such a block still changes the draws inside.

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
