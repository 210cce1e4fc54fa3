"""Topographic variational autoencoders: capsules whose variances are shared through time."""

from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from chartae.checks import Count, Natural, check_integer
from chartae.distributions import (
    DiagonalNormal,
    DiagonalNormalHead,
    StandardNormal,
    kl_divergence,
)
from chartae.errors import ConfigurationError
from chartae.longitudinal.base import Proposal, SequenceModel
from chartae.longitudinal.visits import Visits
from chartae.models.base import Networks
from chartae.models.losses import Extra, Losses, average

__all__ = ["BubbleVAE", "TopographicVAE"]

Coherence = Literal["none", "short", "part", "half"]
SHARES: dict[str, float] = {"none": 0.0, "short": 1 / 8, "part": 1 / 4, "half": 1 / 2}
"""The window L of each name, as a share of the number of steps (thesis section 6.5.2)."""


class TopographicVAE(SequenceModel):
    r"""Topographic VAE (Keller and Welling, 2021), a baseline of thesis section 6.5.2.

    .. math:: s_t = \frac{z_t + \mu}{\sqrt{W u_t^2}}, \quad
        W u_t^2 = \sum_{|k| \le K} \sum_{|\delta| \le L} \rho^\delta(u_{t + \delta}^2)_{\cdot + k}

    with z and u standard normal at each step. The coordinates are divided into capsules. The sums
    run over neighbours k inside the capsule and over the steps of a window; :math:`\rho` rolls each
    capsule by one place, so that a pattern that moves through a capsule with time is likely.
    Capsules and time are circular. The :math:`\mu` is learned. Steps whose visits were not observed
    have the posterior of z and u equal to their prior: the objective is still a bound, of the
    observed visits only.

    Time has ``num_steps`` equal steps between the first and the last time of the training set. A
    visit belongs to the nearest step; earlier and later times belong to the first and the last.
    Visits of an individual at one step have one latent in common.

    The differences from the published code: one encoder has the heads of z and u, and neighbours
    are circular, as the roll is.

    Args:
        input_shape: shape of one visit.
        latent_dim: size of s, of z and of u.
        num_steps: number S of steps.
        coherence: the L, in steps; ``"none"`` is 0, ``"short"`` S / 8, ``"part"`` S / 4, and
            ``"half"`` S / 2, whose window has all steps. No step counts twice.
        capsules: number of capsules, a divisor of ``latent_dim``.
        neighbours: the K.
        shift: the value of :math:`\mu` before training.
        networks: the other arguments of `Autoencoder`.

    Raises:
        ConfigurationError: if ``capsules`` does not divide ``latent_dim``.

    >>> import torch, chartae
    >>> from chartae.data import Sequences
    >>> data = Sequences(torch.rand(20, 5, 3), times=torch.arange(5.0))
    >>> model = TopographicVAE((3,), latent_dim=4, num_steps=5, coherence="part")
    >>> model.window
    (-1, 0, 1)
    >>> _ = chartae.fit(model, data, epochs=2, seed=0, progress=False)
    >>> model.impute(data.hidden(visits=0.5), num_draws=4)
    Draws(4 of 20 individuals at 5 times, of shape (3,))
    """

    proposals = ("set",)
    rolls = True
    """Whether capsules roll with time."""
    floor = 1e-6

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        num_steps: Count = 10,
        coherence: Natural | Coherence = "half",
        capsules: Count = 1,
        neighbours: Natural = 1,
        shift: float = 1.0,
        **networks: Unpack[Networks],
    ) -> None:
        if check_integer("latent_dim", latent_dim, minimum=1) % capsules:
            raise ConfigurationError(
                f"capsules={capsules}: expected a divisor of latent_dim={latent_dim}"
            )
        super().__init__(input_shape, latent_dim, **networks)
        self.num_steps, self.coherence, self.capsules = num_steps, coherence, capsules
        self.neighbours = neighbours
        reach = round(SHARES[coherence] * num_steps) if isinstance(coherence, str) else coherence
        self.window = _around(reach, num_steps)
        """The offsets of the steps of a window, all different on the circle of steps."""
        self.places = _around(neighbours, latent_dim // capsules)
        """The offsets of the neighbours in a capsule, all different on its circle."""
        self.heads = DiagonalNormalHead(self.num_features, 2 * latent_dim)
        self.shift = nn.Parameter(torch.tensor(float(shift)))
        self.register_buffer("first_time", torch.zeros(()))
        self.register_buffer("step_size", torch.ones(()))

    # --- time -------------------------------------------------------------------------------------

    def set_times(self, times: Tensor) -> None:
        """Set the steps, between the first and the last of the times ``(n,)``."""
        low, high = self.model_times(times).aminmax()
        self.get_buffer("first_time").copy_(low)
        step = (high - low) / max(1, self.num_steps - 1)
        self.get_buffer("step_size").copy_(torch.where(step > 0.0, step, 1.0))

    def steps(self, times: Tensor) -> Tensor:
        """Return the step of each time ``(n,)``, in [0, num_steps)."""
        number = (times - self.get_buffer("first_time")) / self.get_buffer("step_size")
        return number.round().long().clamp(0, self.num_steps - 1)

    # --- latents ----------------------------------------------------------------------------------

    def topographic(self, z: Tensor, u: Tensor) -> Tensor:
        """Return s from z and u, ``(..., num_steps, latent_dim)`` each."""
        capsules = u.square().unflatten(-1, (self.capsules, -1))
        near = torch.stack([capsules.roll(-place, -1) for place in self.places]).sum(0)
        total = torch.zeros_like(near)
        for delta in self.window:
            later = near.roll(-delta, -3)
            total = total + (later.roll(delta, -1) if self.rolls else later)
        return (z + self.shift) / (total.flatten(-2) + self.floor).sqrt()

    def posterior(self, visits: Visits) -> tuple[DiagonalNormal, Tensor]:
        """Return q(z, u) at the steps that were observed, ``(n, 2 * latent_dim)``, and places.

        The place of a step is ``individual * num_steps + step``. Features of visits at one step are
        averaged.
        """
        places = visits.owner * self.num_steps + self.steps(visits.times)
        used, index = places.unique(return_inverse=True)
        features = self.visit_features(visits)
        sums = features.new_zeros(len(used), features.shape[-1]).index_add(0, index, features)
        counts = torch.bincount(index, minlength=len(used))
        normal: DiagonalNormal = self.heads(sums / counts[:, None])
        return normal, used

    def infer(self, visits: Visits, num_samples: int, proposal: Proposal) -> tuple[Tensor, Tensor]:
        """Draw z and u of all steps: ``(num_samples, B, num_steps, 2, latent_dim)``."""
        normal, used = self.posterior(visits)
        drawn, log_q = normal.rsample_and_log_prob((num_samples,))
        ratio = self._prior().log_prob(drawn) - log_q
        latents = self._everywhere(drawn, used, visits.num_individuals)
        return latents, self._sum(ratio, used, visits.num_individuals)

    def _prior(self) -> StandardNormal:
        return StandardNormal(self.shift.detach().new_zeros(2 * self.latent_dim))

    def _everywhere(self, drawn: Tensor, used: Tensor, count: int) -> Tensor:
        """Return draws at all steps: those given where visits were observed, else of the prior."""
        shape = (*drawn.shape[:-2], count * self.num_steps, drawn.shape[-1])
        prior = torch.randn(shape, dtype=drawn.dtype, device=drawn.device)
        latents = prior.index_copy(-2, used, drawn)
        return latents.reshape(*shape[:-2], count, self.num_steps, 2, self.latent_dim)

    def _sum(self, values: Tensor, used: Tensor, count: int) -> Tensor:
        """Return the sums over the steps of each individual, ``(..., n)`` to ``(..., B)``."""
        total = values.new_zeros(*values.shape[:-1], count)
        return total.index_add(-1, used // self.num_steps, values)

    def path(self, latents: Tensor, owner: Tensor, times: Tensor, y: Extra = None) -> Tensor:
        s = self.topographic(*latents.unbind(-2))
        return s[..., owner, self.steps(times), :]

    def sample_latents(self, n: int, y: Extra = None) -> Tensor:
        return torch.randn(
            n, self.num_steps, 2, self.latent_dim, dtype=self.dtype, device=self.device
        )

    # --- training ---------------------------------------------------------------------------------

    def loss(
        self,
        x: Tensor,
        *,
        times: Extra = None,
        observed: Extra = None,
        y: Extra = None,
        mask: Extra = None,
        weight: Extra = None,
    ) -> Losses:
        """Return minus the ELBO of the observed visits of individuals, from one draw for each."""
        visits = self.visits(x, times, observed, mask, y)
        normal, used = self.posterior(visits)
        divergence = self._sum(kl_divergence(normal, self._prior()), used, len(x))
        fit = self.log_fit(self._everywhere(normal.rsample(), used, len(x)), visits)
        reconstruction, kl = -average(fit, weight), average(divergence, weight)
        return Losses.of(reconstruction + kl, reconstruction=reconstruction, kl=kl)


class BubbleVAE(TopographicVAE):
    """The Topographic VAE without the roll: variances are constant for a while (thesis 6.5.2).

    Bubbles of activity stay where they are in a capsule, as in the bubbles of Hyvarinen et al.
    (2004). Args and errors as in `TopographicVAE`.
    """

    rolls = False


def _around(reach: int, size: int) -> tuple[int, ...]:
    """Return the offsets up to ``reach`` on both sides, all different on a circle of ``size``."""
    count = min(2 * reach + 1, size)
    return tuple(range(-((count - 1) // 2), count // 2 + 1))
