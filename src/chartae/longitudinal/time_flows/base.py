"""The contract of flows in time, and time as input of a network."""

import math

import torch
from torch import Tensor, nn

__all__ = ["TimeFeatures", "TimeFlow"]

SLOWEST = 7.0
"""Period of the slowest wave of time; evenly spread times are in (-1.8, 1.8) in model units."""


class TimeFlow(nn.Module):
    """Base of the flows in time, z(t) = F(u; t), invertible in u for every t.

    Args:
        dim: size d of the latents.
        context: size of the context c, which does not depend on time; 0 for none.
    """

    def __init__(self, dim: int, context: int = 0) -> None:
        super().__init__()
        self.dim, self.context = dim, context

    def set_times(self, times: Tensor, given: Tensor | None = None) -> None:
        """Learn the times of a training set, before training; by default nothing.

        Args:
            times: ``(n,)``, in the model's units.
            given: ``(n,)``, the same in the unit of the data, for messages; None if it is the same.
        """

    def nearest(self, times: Tensor) -> Tensor:
        """Return the nearest times at which the flow is defined; by default all times are."""
        return times

    def forward(
        self, u: Tensor, times: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Return F(u; t), ``(..., n, d)``, and :math:`\log |\det dF/du|`, ``(..., n)``.

        Args:
            u: ``(..., n, d)``.
            times: ``(n,)``.
            context: ``(n, context)``.
        """
        raise NotImplementedError

    def inverse(
        self, z: Tensor, times: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Return the u with F(u; t) = z, and :math:`\log |\det dF/du|` there.

        The arguments are those of `forward`.
        """
        raise NotImplementedError

    def along(
        self, u: Tensor, owner: Tensor, times: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return F(u_i; t) for several times of each individual i, and the log-determinants.

        Args:
            u: ``(..., B, d)``.
            owner: ``(n,)``, the individual of each time.
            times: ``(n,)``.
            context: ``(B, context)``.

        Returns:
            ``(..., n, d)`` and ``(..., n)``.
        """
        given = None if context is None else context[owner]
        z, log_det = self(u.index_select(-2, owner), times, given)
        return z, log_det


class TimeFeatures(nn.Module):
    """Time as numbers for a network: itself, and a few slow waves; ``(n,)`` to ``(n, size)``.

    Args:
        waves: number of pairs of sine and cosine.
    """

    def __init__(self, waves: int = 3) -> None:
        super().__init__()
        self.size = 1 + 2 * waves
        rates = 2.0 * math.pi * torch.arange(1.0, waves + 1.0) / SLOWEST
        self.register_buffer("rates", rates, persistent=False)

    def forward(self, times: Tensor) -> Tensor:
        angles = times[..., None] * self.get_buffer("rates")
        return torch.cat([times[..., None], angles.sin(), angles.cos()], -1)
