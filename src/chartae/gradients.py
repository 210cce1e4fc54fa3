"""Gradients that a computation needs for itself, whatever mode its caller works in."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["gradients", "leave_inference_mode"]


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


def leave_inference_mode(module: nn.Module) -> None:
    """Make a module that was built in `torch.inference_mode` one that can have gradients.

    Its parameters and buffers stay the same objects; called outside of the mode.
    """
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_inference():
            copy = tensor.detach().clone()
            if isinstance(tensor, nn.Parameter):
                copy = nn.Parameter(copy, tensor.requires_grad)
            torch.utils.swap_tensors(tensor, copy)
