"""Gradients that a computation needs for itself, whatever mode its caller works in."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["gradients"]


@contextmanager
def gradients(*tensors: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """Enable gradients inside the block, also under `torch.no_grad` and `torch.inference_mode`.

    It gives the tensors back, those of an inference mode as copies, which alone can have gradients.

    >>> with torch.inference_mode():
    ...     z = torch.ones(2)
    ...     with gradients(z) as (z,):
    ...         z.requires_grad_()
    tensor([1., 1.], requires_grad=True)
    """
    with torch.inference_mode(False), torch.enable_grad():
        yield tuple(t.clone() if t is not None and t.is_inference() else t for t in tensors)
