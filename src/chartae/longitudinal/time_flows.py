"""Flows in time: invertible maps from the latent of an individual to its latents at any time."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from chartae.checks import check_integer, check_integers, named_options
from chartae.errors import ConfigurationError

__all__ = ["TIME_FLOWS", "CouplingFlow", "TimeFeatures", "TimeFlow", "make_time_flow"]

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

    def set_times(self, times: Tensor) -> None:
        """Learn the times ``(n,)`` of a training set, before training; by default nothing."""

    def forward(
        self, u: Tensor, times: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return F(u; t), ``(..., n, d)``, and log |det dF/du|, ``(..., n)``.

        Args:
            u: ``(..., n, d)``.
            times: ``(n,)``.
            context: ``(n, context)``.
        """
        raise NotImplementedError

    def inverse(
        self, z: Tensor, times: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the u with F(u; t) = z, and log |det dF/du| there. Arguments as in `forward`."""
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
        z, log_det = self(u[..., owner, :], times, given)
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
        angles = times[:, None] * self.get_buffer("rates")
        return torch.cat([times[:, None], angles.sin(), angles.cos()], -1)


class CouplingFlow(TimeFlow):
    r"""A flow whose context is the time (Bilos et al., 2021, neural flows; thesis section 6.6).

    .. math:: z_b' = z_b \, e^{s(z_a, t, c)} + m(z_a, t, c)

    in each layer, where :math:`z_a` and :math:`z_b` are two halves of the latent, which change
    their roles from layer to layer. Both directions cost one pass, at any real time. The last
    weights are 0, so that the flow starts at the identity.

    Args:
        dim: size d of the latents.
        context: size of the context, 0 for none.
        layers: number of layers.
        hidden: sizes of the hidden layers of each network.
        waves: number of pairs of waves of time in the context.
    """

    reach = 3.0  # bound of s, so that no step can overflow

    def __init__(
        self,
        dim: int,
        context: int = 0,
        *,
        layers: int = 4,
        hidden: Sequence[int] = (128,),
        waves: int = 3,
    ) -> None:
        super().__init__(dim, context)
        check_integer("layers", layers, minimum=1)
        check_integers("hidden", list(hidden), minimum=1)
        self.time_features = TimeFeatures(check_integer("waves", waves, minimum=0))
        context += self.time_features.size
        self.networks = nn.ModuleList(
            self._network(self._halves(range(dim), layer), context, hidden)
            for layer in range(layers)
        )

    @staticmethod
    def _network(halves: Sequence[Any], context: int, hidden: Sequence[int]) -> nn.Module:
        known, moved = map(len, halves)
        sizes = [known + context, *hidden]
        layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.SiLU())]
        last = nn.Linear(sizes[-1], 2 * moved)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        return nn.Sequential(*layers, last)

    def _halves(self, z: Any, layer: int) -> tuple[Any, Any]:
        """Return the half that a layer reads, and the half that it moves, of a sequence."""
        middle = self.dim // 2
        parts = z[..., :middle] if isinstance(z, Tensor) else z[:middle]
        others = z[..., middle:] if isinstance(z, Tensor) else z[middle:]
        # A latent of one coordinate has an empty half, which is never the one that moves.
        return (parts, others) if layer % 2 == 0 or self.dim == 1 else (others, parts)

    def _joined(self, reads: Tensor, moved: Tensor, layer: int) -> Tensor:
        in_order = layer % 2 == 0 or self.dim == 1
        return torch.cat([reads, moved] if in_order else [moved, reads], -1)

    def _step(self, layer: int, known: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        inputs = torch.cat([known, given.expand(*known.shape[:-1], -1)], -1)
        scale, shift = self.networks[layer](inputs).chunk(2, -1)
        return self.reach * torch.tanh(scale / self.reach), shift

    def _given(self, times: Tensor, context: Tensor | None) -> Tensor:
        features: Tensor = self.time_features(times)
        return features if context is None else torch.cat([features, context], -1)

    def forward(
        self, u: Tensor, times: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        given, total = self._given(times, context), torch.zeros_like(u[..., 0])
        for layer in range(len(self.networks)):
            reads, moves = self._halves(u, layer)
            scale, shift = self._step(layer, reads, given)
            u = self._joined(reads, moves * scale.exp() + shift, layer)
            total = total + scale.sum(-1)
        return u, total

    def inverse(
        self, z: Tensor, times: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        given, total = self._given(times, context), torch.zeros_like(z[..., 0])
        for layer in reversed(range(len(self.networks))):
            reads, moves = self._halves(z, layer)
            scale, shift = self._step(layer, reads, given)
            z = self._joined(reads, (moves - shift) * (-scale).exp(), layer)
            total = total + scale.sum(-1)
        return z, total


TIME_FLOWS: dict[str, type[TimeFlow]] = {"time": CouplingFlow}
"""The flows in time, by the name that selects them."""


def make_time_flow(spec: str | Mapping[str, Any], dim: int, context: int = 0) -> TimeFlow:
    """Return a flow in time from its name, or from ``{"name": ..., **options}``.

    Raises:
        ConfigurationError: for an unknown name or option.
    """
    name, options = named_options("flow", spec, TIME_FLOWS)
    try:
        return TIME_FLOWS[name](dim, context, **options)
    except TypeError as error:
        raise ConfigurationError(f"flow={spec!r}: {error}") from None
