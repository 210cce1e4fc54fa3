"""Coupling layers with a context, and the flow whose context is the time."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from chartae.checks import check_integer, check_integers
from chartae.errors import ConfigurationError
from chartae.longitudinal.time_flows.base import TimeFeatures, TimeFlow

__all__ = ["CouplingFlow", "CouplingLayers"]


class CouplingLayers(nn.Module):
    r"""Affine coupling layers with a context (Dinh et al., 2017).

    .. math:: z_b' = z_b \, e^{s(z_a, c)} + m(z_a, c)

    in each layer, where :math:`z_a` and :math:`z_b` are two halves of the latent, which change
    their roles from layer to layer. Both directions cost one pass. The last weights are 0, so that
    the layers start at the identity.

    Args:
        dim: size d of the latents.
        context: size of the context, 0 for none.
        layers: number of layers.
        hidden: sizes of the hidden layers of each network, at least one.
    """

    reach = 2.0  # bound of s, so that no step can overflow

    def __init__(self, dim: int, context: int, layers: int, hidden: Sequence[int]) -> None:
        super().__init__()
        check_integer("layers", layers, minimum=1)
        check_integers("hidden", list(hidden), minimum=1)
        if not hidden:
            raise ConfigurationError("hidden=(): expected at least one hidden layer")
        # A latent of one coordinate has an empty half, which is never the one that moves.
        self.sizes = (dim // 2, dim - dim // 2)
        self.moved = [1 if layer % 2 == 0 or dim == 1 else 0 for layer in range(layers)]
        self.networks = nn.ModuleList(
            self._network([self.sizes[1 - half] + context, *hidden, 2 * self.sizes[half]])
            for half in self.moved
        )

    @staticmethod
    def _network(sizes: Sequence[int]) -> nn.Sequential:
        *inner, (wide, last) = pairwise(sizes)
        head = nn.Linear(wide, last)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return nn.Sequential(*[p for a, b in inner for p in (nn.Linear(a, b), nn.SiLU())], head)

    def _step(self, layer: int, known: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the s and m of a layer, each of the shape of the half that it moves."""
        if context is not None:
            known = torch.cat([known, context.expand(*known.shape[:-1], -1)], -1)
        raw, shift = self.networks[layer](known).chunk(2, -1)
        return self.reach * torch.tanh(raw), shift

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the image of z, ``(..., n, d)``, and the log-determinant, ``(..., n)``.

        Args:
            z: ``(..., n, d)``.
            context: ``(n, context)``.
        """
        halves, scales = list(z.split(self.sizes, -1)), []
        for layer, half in enumerate(self.moved):
            scale, shift = self._step(layer, halves[1 - half], context)
            halves[half] = torch.addcmul(shift, halves[half], scale.exp())
            scales.append(scale)
        return torch.cat(halves, -1), torch.cat(scales, -1).sum(-1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the latents with the images z, and the log-determinant of `forward` there."""
        halves, scales = list(z.split(self.sizes, -1)), []
        for layer, half in reversed(list(enumerate(self.moved))):
            scale, shift = self._step(layer, halves[1 - half], context)
            halves[half] = (halves[half] - shift) * (-scale).exp()
            scales.append(scale)
        return torch.cat(halves, -1), torch.cat(scales, -1).sum(-1)


class CouplingFlow(TimeFlow):
    """A flow whose context is the time (Bilos et al., 2021, neural flows; thesis section 6.6).

    F(u; t) is a few `CouplingLayers` whose context is [t, slow waves of t, c]. All times of all
    individuals go through one pass. The cost does not depend on a grid of times.

    Args:
        dim: size d of the latents.
        context: size of the context, 0 for none.
        layers: number of layers.
        hidden: sizes of the hidden layers of each network, at least one.
        waves: number of pairs of waves of time in the context.
    """

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
        self.time_features = TimeFeatures(check_integer("waves", waves, minimum=0))
        self.layers = CouplingLayers(dim, self.time_features.size + context, layers, hidden)

    def _given(self, times: Tensor, context: Tensor | None) -> Tensor:
        features: Tensor = self.time_features(times)
        return features if context is None else torch.cat([features, context], -1)

    def forward(
        self, u: Tensor, times: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        z, log_det = self.layers(u, self._given(times, context))
        return z, log_det

    def inverse(
        self, z: Tensor, times: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.layers.inverse(z, self._given(times, context))
