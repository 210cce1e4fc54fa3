"""Normalizing flows: maps of a latent with known log-determinants, and posteriors from them."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.types import _size

from chartae.distributions.base import BatchDistribution
from chartae.distributions.normal import Gaussian
from chartae.errors import ConfigurationError

__all__ = ["AutoregressiveFlow", "FlowPosterior", "PlanarFlow", "RadialFlow"]

Flow = Callable[[Tensor], tuple[Tensor, Tensor]]
Inverse = Callable[[Tensor], Tensor]


class PlanarFlow(nn.Module):
    r"""Planar flow (Rezende and Mohamed, 2015): :math:`f(z) = z + \hat u \tanh(w^T z + b)`.

    .. math:: \log |\det| = \log | 1 + (1 - \tanh^2(w^T z + b)) \, w^T \hat u |, \quad
        \hat u = u + (\mathrm{softplus}(w^T u) - 1 - w^T u) \, w / \|w\|^2

    The flow is invertible, because :math:`w^T \hat u > -1`.

    Args:
        dim: size d of the latents.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        # The initial flow is near the identity: small steps in random directions.
        self.w = nn.Parameter(torch.randn(dim) / dim**0.5)
        self.u = nn.Parameter(0.1 * torch.randn(dim))
        self.b = nn.Parameter(0.1 * torch.randn(()))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return f(z), ``(..., d)``, and its log-determinant, ``(...)``."""
        along = self.w @ self.u
        u = self.u + (softplus(along) - 1.0 - along) * self.w / self.w.square().sum()
        h = torch.tanh(z @ self.w + self.b)
        log_det = torch.log1p((1.0 - h.square()) * (softplus(along) - 1.0))
        return z + u * h[..., None], log_det


class RadialFlow(nn.Module):
    r"""Radial flow (Rezende and Mohamed, 2015).

    .. math:: f(z) = z + \frac{\hat\beta}{\alpha + r} (z - c), \quad r = \|z - c\|,
        \quad \hat\beta = \mathrm{softplus}(\beta) - \alpha

    .. math:: \log |\det| = (d - 1) \log\left(1 + \frac{\hat\beta}{\alpha + r}\right)
        + \log\left(1 + \frac{\alpha \hat\beta}{(\alpha + r)^2}\right)

    with :math:`\alpha > 0`. The flow is invertible, because :math:`\hat\beta > -\alpha`.

    Args:
        dim: size d of the latents.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.center = nn.Parameter(0.5 * torch.randn(dim))
        self.raw_alpha = nn.Parameter(torch.randn(()))
        self.raw_beta = nn.Parameter(torch.randn(()))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return f(z), ``(..., d)``, and its log-determinant, ``(...)``."""
        alpha = softplus(self.raw_alpha)
        beta = softplus(self.raw_beta) - alpha
        offset = z - self.center
        inverse = 1.0 / (alpha + torch.linalg.vector_norm(offset, dim=-1))
        log_det = (z.shape[-1] - 1) * torch.log1p(beta * inverse)
        log_det = log_det + torch.log1p(alpha * beta * inverse.square())
        return z + beta * inverse[..., None] * offset, log_det


class AutoregressiveFlow(nn.Module):
    r"""Inverse autoregressive flow (Kingma et al., 2016), with the masked networks of zuko.

    .. math:: z_j' = z_j \, e^{a_j(z_{<j}, c)} + b_j(z_{<j}, c), \quad
        \log |\det| = {\textstyle\sum_j a_j}

    The forward direction, from the drawn latent to its image, takes one pass.

    Args:
        dim: size d of the latents.
        context: size of the context c, 0 for none.
        hidden: sizes of the hidden layers.
        reverse: whether coordinates depend on later coordinates instead of earlier ones.
    """

    def __init__(
        self, dim: int, context: int = 0, hidden: Sequence[int] = (128,), *, reverse: bool = False
    ) -> None:
        from zuko.flows.autoregressive import MaskedAutoregressiveTransform

        super().__init__()
        order = torch.arange(dim)
        self.transform = MaskedAutoregressiveTransform(
            dim, context, order=order.flip(0) if reverse else order, hidden_features=tuple(hidden)
        )

    def set_identity(self) -> None:
        """Set the last weights to 0, so that the flow is the identity until it is trained."""
        layers = [layer for layer in self.transform.modules() if isinstance(layer, nn.Linear)]
        # A flow of one coordinate without context has no network, only its two coefficients.
        last = layers[-1] if layers else self.transform
        for parameter in last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the image of z, ``(..., d)``, and the log-determinant, ``(...)``.

        Args:
            z: ``(..., d)``.
            context: broadcastable with ``(..., context)``.
        """
        image: Tensor
        image, log_det = self.transform(context).call_and_ladj(z)
        return image, log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the latents whose images are z ``(..., d)``; computed coordinate by coordinate."""
        source: Tensor = self.transform(context).inv(z)
        return source


class FlowPosterior(BatchDistribution):
    r"""The law of :math:`f(z_0)`, where :math:`z_0 \sim N(\mu, \Sigma)` and f is a flow.

    .. math:: \log q(f(z_0)) = \log q_0(z_0) - \log |\det \partial f / \partial z_0|

    At the distribution's own samples, from `rsample_and_log_prob`, :math:`z_0` is known. At other
    points the density needs the inverse of the flow.

    Args:
        base: the law of :math:`z_0`, over ``(..., d)``.
        flow: from z_0 to f(z_0) and the log-determinant.
        inverse: from f(z_0) to z_0; without it `log_prob` is not available.
    """

    parameters: ClassVar[tuple[str, ...]] = ("base",)
    has_rsample = True

    def __init__(self, base: Gaussian, flow: Flow, inverse: Inverse | None = None) -> None:
        self.base, self.flow, self.inverse = base, flow, inverse
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The image of the base's mean, ``(..., d)``: a typical latent, not the expectation."""
        return self.flow(self.base.mean)[0]

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density at ``value``, ``(..., d)``: ``(...)``.

        Raises:
            ConfigurationError: if the inverse of the flow is not known.
        """
        if self.inverse is None:
            raise ConfigurationError(
                "the density of a FlowPosterior is not available at given points, only at its own "
                "samples: use rsample_and_log_prob"
            )
        source = self.inverse(value)
        log_q: Tensor = self.base.log_prob(source)
        return log_q - self.flow(source)[1]

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """Return reparametrised samples, ``(*sample_shape, ..., d)``."""
        return self.flow(self.base.rsample(torch.Size(sample_shape)))[0]

    def rsample_and_log_prob(self, sample_shape: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        """Return reparametrised samples ``(*sample_shape, ..., d)`` and their log density."""
        z, log_q = self.base.rsample_and_log_prob(sample_shape)
        image, log_det = self.flow(z)
        return image, log_q - log_det
