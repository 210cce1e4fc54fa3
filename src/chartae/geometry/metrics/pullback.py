"""The pull-back metric of a decoder."""

from collections.abc import Callable
from typing import Protocol, Self

import torch
from torch import Tensor, nn
from torch.func import jvp, vmap

from chartae.checks import check_integer, check_number
from chartae.errors import ConfigurationError
from chartae.geometry.metrics.base import Metric
from chartae.gradients import gradients

__all__ = ["PullbackMetric"]


class _Decoding(Protocol):
    """The members of a model that `PullbackMetric.from_model` uses."""

    latent_dim: int

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    def likelihood(self, z: Tensor) -> torch.distributions.Distribution: ...


class PullbackMetric(Metric):
    r"""The expected pull-back metric of a decoder (Arvanitidis et al., 2018; thesis section 3.4.4).

    .. math:: G(z) = J_\mu^\top J_\mu + J_\sigma^\top J_\sigma + \lambda I

    Here J are the Jacobians of the decoder's mean and of its standard deviation. The second term
    is absent if the standard deviation does not depend on z. Jacobians are computed in forward
    mode, with one pass for each latent dimension. Gradients of G are computed by autograd.

    Args:
        decoder: the mean, from ``(n, d)`` to ``(n, ...)``: a function or a module. A module is
            moved and cast with the metric. It must treat the points of a batch independently.
        dim: dimension d of the latent space.
        deviation: the standard deviation, a function or a module of the same kind; None if it does
            not depend on z.
        regularization: :math:`\lambda`, at least 0. Where the decoder is constant along a
            direction, the metric is positive definite only if :math:`\lambda` is positive.

    Raises:
        ConfigurationError: for a dimension or regularization out of range.

    >>> PullbackMetric(lambda z: torch.cat([z, z.square()], -1), 2).tensor(torch.ones(2))
    tensor([[5., 0.],
            [0., 5.]])
    """

    def __init__(
        self,
        decoder: Callable[[Tensor], Tensor],
        dim: int,
        *,
        deviation: Callable[[Tensor], Tensor] | None = None,
        regularization: float = 0.0,
    ) -> None:
        check_integer("dim", dim, minimum=1)
        check_number("regularization", regularization, minimum=0.0)
        if not callable(decoder):
            raise ConfigurationError(
                f"decoder is {type(decoder).__name__}: expected a function or a module"
            )
        super().__init__()
        self.decoder, self.deviation = decoder, deviation
        self.regularization, self._dim = regularization, dim

    @classmethod
    def from_model(cls, model: _Decoding, *, regularization: float = 1e-3) -> Self:
        """Return the metric of the mean and standard deviation of a model's likelihood.

        Args:
            model: any model of chartae.
            regularization: as in the constructor.

        Raises:
            ConfigurationError: if the model has no likelihood, or its latents lie on a sphere.
        """
        if not hasattr(model, "likelihood"):
            raise ConfigurationError(
                f"model is {type(model).__name__}: expected a model of chartae, with a likelihood"
            )
        if getattr(model, "latent_space", None) == "sphere":
            raise ConfigurationError(
                f"model is {type(model).__name__}: its latents lie on a sphere, and paths in the "
                "surrounding space leave the sphere; expected a model whose latents are vectors"
            )
        deviation = _Moment(model, "stddev") if _deviation_varies(model) else None
        return cls(
            _Moment(model, "mean"),
            model.latent_dim,
            deviation=deviation,
            regularization=regularization,
        )

    @property
    def dim(self) -> int:
        return self._dim

    def tensor(self, z: Tensor) -> Tensor:
        self.check(z)
        flat = z.reshape(-1, self.dim)
        total = self._gram(self.decoder, flat)
        if self.deviation is not None:
            total = total + self._gram(self.deviation, flat)
        floor = self.regularization * torch.eye(self.dim, dtype=z.dtype, device=z.device)
        return (total + floor).reshape(*z.shape, self.dim)

    def _gram(self, function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
        """Return J^T J of a function at z ``(n, d)``: ``(n, d, d)``."""

        def push(direction: Tensor) -> Tensor:
            tangent: Tensor = jvp(function, (z,), (direction.expand_as(z),))[1]
            return tangent

        basis = torch.eye(self.dim, dtype=z.dtype, device=z.device)
        jacobian = vmap(push)(basis).flatten(2)  # (d, n, D)
        return torch.einsum("inf,jnf->nij", jacobian, jacobian)


class _Moment(nn.Module):
    """A moment of a model's likelihood, as a function of z ``(n, d)``."""

    def __init__(self, model: _Decoding, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, z: Tensor) -> Tensor:
        moment: Tensor = getattr(self.model.likelihood(z), self.name)
        return moment


def _deviation_varies(model: _Decoding) -> bool:
    """Return whether the likelihood has a location and a scale, and the scale depends on z."""
    with gradients():
        z = torch.zeros(
            1, model.latent_dim, dtype=model.dtype, device=model.device
        ).requires_grad_()
        scale = getattr(getattr(model.likelihood(z), "base_dist", None), "scale", None)
        if scale is None or not scale.requires_grad:
            return False
        return torch.autograd.grad(scale.sum(), z, allow_unused=True)[0] is not None
