"""The Hamiltonian variational autoencoder."""

import math
from itertools import pairwise
from typing import Annotated, Unpack

import torch
from torch import Tensor, nn

from chartae.checks import Count, Positive, Range
from chartae.errors import ConfigurationError
from chartae.gradients import gradients, leave_inference_mode
from chartae.models.losses import Extra
from chartae.models.variational import GaussianNetworks, VariationalAutoencoder

__all__ = ["HVAE"]


class HVAE(VariationalAutoencoder):
    r"""Hamiltonian VAE (Caterini et al., 2018; thesis section 0.6).

    A momentum :math:`\gamma \sim N(0, I)` is added to the latent :math:`z_0 \sim q(z|x)`. Then
    ``num_leapfrog`` leapfrog steps move both, along the gradient of :math:`\log p(x, z)`. Here

    .. math:: \log w = \log p(x, z_K) + \log p(v_K | z_K) - \log q(z_0|x) - \log p(\gamma | z_0)

    is the log of an unbiased estimate of p(x). The leapfrog steps preserve volume, and the factors
    of the tempering cancel (MATH.md section 3).

    Use it if Gaussian posteriors are too simple for the likelihood. Each step costs one gradient of
    the decoder. The steps help only if they are long enough to move the latents.

    Args:
        num_leapfrog: number K of leapfrog steps.
        step_size: size of the leapfrog steps, positive.
        sqrt_beta_0: :math:`\sqrt{\beta_0}` in (0, 1]. The momentum is divided by it at the start,
            and is cooled step by step. 1 means no tempering.
        learn_beta_0: whether training learns :math:`\beta_0` in (0, 1]. Learning starts from the
            given value, which must then be below 1.
        cut_gradients: whether the gradients that guide the leapfrog are constants for training, as
            in published code. It takes less time, and the gradients of the objective are biased.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        num_leapfrog: Count = 3,
        step_size: Positive = 0.01,
        sqrt_beta_0: Annotated[float, Range(above=0.0, maximum=1.0)] = 0.3,
        learn_beta_0: bool = False,
        cut_gradients: bool = False,
        **networks: Unpack[GaussianNetworks],
    ) -> None:
        if learn_beta_0 and sqrt_beta_0 == 1.0:
            raise ConfigurationError(
                "sqrt_beta_0=1.0: expected a number below 1, because learn_beta_0=True"
            )
        super().__init__(input_shape, latent_dim, **networks)
        self.num_leapfrog, self.step_size = num_leapfrog, step_size
        self.sqrt_beta_0, self.learn_beta_0 = sqrt_beta_0, learn_beta_0
        self.cut_gradients = cut_gradients
        self.raw_sqrt_beta_0 = None
        if learn_beta_0:
            self.raw_sqrt_beta_0 = nn.Parameter(torch.tensor(float(sqrt_beta_0)).logit())

    def tempering(self) -> list[float | Tensor]:
        r"""Return :math:`\sqrt{\beta_k}` for k = 0..K, rising from the given or learned start to 1.

        If the start is learned, the values are scalar tensors with its gradient.
        """
        start = self.sqrt_beta_0 if self.raw_sqrt_beta_0 is None else self.raw_sqrt_beta_0.sigmoid()
        inverse = 1.0 / start
        steps = self.num_leapfrog
        return [1.0 / ((1.0 - inverse) * (k / steps) ** 2 + inverse) for k in range(steps + 1)]

    def fit_and_grad(
        self, x: Tensor, z: Tensor, *, y: Extra = None, mask: Extra = None
    ) -> tuple[Tensor, Tensor]:
        """Return log p(x|z, y), ``(..., batch)``, and grad_z log p(x, z|y), ``(..., batch, d)``.

        Both are differentiable where gradients are enabled, the second unless ``cut_gradients``.
        The decoder runs once for both.
        """
        differentiable = torch.is_grad_enabled()
        with gradients(x, z, y, mask) as (x, z, y, mask):
            leave_inference_mode(self)
            z = z if z.requires_grad else z.detach().requires_grad_()
            fit = self.likelihood(z, y).log_prob(x, mask)
            log_joint = fit + self.prior(y).log_prob(z)
            (grad,) = torch.autograd.grad(
                log_joint.sum(),
                z,
                retain_graph=differentiable,
                create_graph=differentiable and not self.cut_gradients,
            )
        return fit if differentiable else fit.detach(), grad

    def flow(
        self, x: Tensor, z: Tensor, momentum: Tensor, *, y: Extra = None, mask: Extra = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return z_K, v_K and log p(x|z_K), from z_0 and the untempered momentum gamma.

        Args:
            x: ``(batch, *input_shape)``.
            z: ``(..., batch, d)``.
            momentum: ``(..., batch, d)``.
            y: conditions of x, for a model that has them.
            mask: boolean, as x, True where a feature is observed.
        """
        eps, roots = self.step_size, self.tempering()
        momentum = momentum / roots[0]
        fit, grad = self.fit_and_grad(x, z, y=y, mask=mask)
        for before, after in pairwise(roots):
            momentum = momentum + 0.5 * eps * grad
            z = z + eps * momentum
            fit, grad = self.fit_and_grad(x, z, y=y, mask=mask)
            momentum = (momentum + 0.5 * eps * grad) * (before / after)
        return z, momentum, fit

    def log_weight_terms(
        self, x: Tensor, num_samples: int = 1, *, y: Extra = None, mask: Extra = None
    ) -> tuple[Tensor, Tensor]:
        """Return log p(x|z_K), and the rest of the log weight."""
        z0, log_q = self.posterior(x, y, mask).rsample_and_log_prob((num_samples,))
        gamma = torch.randn_like(z0)
        z, momentum, fit = self.flow(x, z0, gamma, y=y, mask=mask)
        divergence = self.prior(y).log_prob(z) + _log_normal(momentum) - log_q - _log_normal(gamma)
        return fit, divergence


def _log_normal(v: Tensor) -> Tensor:
    """Return the standard normal log density of v ``(..., d)``: ``(...)``."""
    return -0.5 * (v.square() + math.log(2.0 * math.pi)).sum(-1)
