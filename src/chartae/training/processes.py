"""What the processes of a training exchange, and what they agree on."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from chartae.errors import DataError, ProcessError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Processes", "naming_lost_processes"]


class Processes:
    """The processes of one training. Alone, a process exchanges nothing.

    All processes must call each method equally often, in the same order.

    Args:
        fabric: launched.

    Attributes:
        count: number of processes.
        rank: number of this process, from 0.
        alone: whether it is the only process.
    """

    def __init__(self, fabric: "Fabric") -> None:
        self.count, self.rank, self.device = fabric.world_size, fabric.global_rank, fabric.device
        self.alone = self.count == 1

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes."""
        if not self.alone:
            values = values.clone()
            torch.distributed.all_reduce(values)
        return values

    def highest(self, *numbers: float) -> list[float]:
        """Return the highest value in any process of each of some numbers, also for flags."""
        if self.alone:
            return list(numbers)
        # MPS has no float64, but no several processes either.
        highest = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(highest, torch.distributed.ReduceOp.MAX)
        values: list[float] = highest.tolist()
        return values

    def gathered(self, tensor: Tensor) -> Tensor:
        """Return the tensors of all processes, of one shape, on the CPU: ``(count, *shape)``."""
        own = tensor.to(self.device)
        every = [torch.empty_like(own) for _ in range(self.count)]
        torch.distributed.all_gather(every, own.contiguous())
        return torch.stack(every).cpu()

    @torch.no_grad()
    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Copy tensors of the first process to the others."""
        if not self.alone:
            for tensor in tensors:
                whole = tensor.contiguous()
                torch.distributed.broadcast(whole, 0)
                tensor.copy_(whole)

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace gradients by their mean over the processes, in one exchange."""
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        flat /= self.count
        pieces = flat.split([gradient.numel() for gradient in gradients])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.grad = piece.view_as(parameter)

    def check_same(self, name: str, description: str) -> None:
        """Raise `DataError`, in every process, unless all processes describe data alike."""
        if self.alone:
            return
        first: list[Any] = [description]
        torch.distributed.broadcast_object_list(first, 0)
        if any(self.highest(first != [description])):
            raise DataError(
                f"{name} is not the same in all {self.count} processes: each expects the whole "
                "set; if the script draws data at random, give it a seed"
            )


@contextmanager
def naming_lost_processes() -> Iterator[None]:
    """Raise `ProcessError` instead of the errors by which torch says that a process has ended."""
    try:
        yield
    except RuntimeError as error:
        # Gloo raises no class of its own; some builds of torch have no distributed training.
        distributed = torch.distributed.is_available()
        if distributed and (isinstance(error, torch.distributed.DistError) or "gloo" in str(error)):
            raise ProcessError(
                "another process of this training has ended: its own output says why"
            ) from error
        raise
