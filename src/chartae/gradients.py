"""Gradients inside a computation, independent of the caller's autograd mode."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["gradients", "leave_inference_mode"]


@contextmanager
def gradients(*tensors: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """Enable gradients inside the block, also under `torch.no_grad` and `torch.inference_mode`.

    It yields the tensors. Inference-mode tensors cannot have gradients, so they are copied.

    >>> with torch.inference_mode():
    ...     z = torch.ones(2)
    ...     with gradients(z) as (z,):
    ...         z.requires_grad_()
    tensor([1., 1.], requires_grad=True)
    """
    with torch.inference_mode(False), torch.enable_grad():
        yield tuple(t.clone() if t is not None and t.is_inference() else t for t in tensors)


def leave_inference_mode(module: nn.Module) -> None:
    """Let the parameters of a module that was built in `torch.inference_mode` have gradients.

    Its parameters and buffers stay the same objects. Call it outside inference mode.
    """
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_inference():
            copy = tensor.detach().clone()
            if isinstance(tensor, nn.Parameter):
                copy = nn.Parameter(copy, tensor.requires_grad)
            torch.utils.swap_tensors(tensor, copy)
