"""The variational autoencoder of sequences whose latents are Gaussian processes."""

import math
from typing import Annotated, Literal, Unpack

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from chartae.checks import Count, Natural, OneOf, Positive, Range, check_integer
from chartae.longitudinal.kernels import TIME_KERNELS, GaussianProcess
from chartae.longitudinal.temporal import TemporalConvolution
from chartae.longitudinal.visit_latents import VisitLatentModel, padded, ranks
from chartae.longitudinal.visits import Visits
from chartae.models.base import Networks
from chartae.models.losses import Extra, Losses, average

__all__ = ["GPVAE", "PathPosterior"]

LOG_2_PI = math.log(2.0 * math.pi)


class PathPosterior:
    r"""Normal law of the latents of an individual at its visits, for each coordinate apart.

    .. math:: \frac{z_t - \mu_t}{\sigma_t} =
        \rho_t \frac{z_{t-1} - \mu_{t-1}}{\sigma_{t-1}} + \sqrt{1 - \rho_t^2} \, \varepsilon_t

    with :math:`\rho_1 = 0`. These are the normals whose precision is tridiagonal; the
    :math:`\sigma_t` are standard deviations for every :math:`\rho`, and :math:`\rho = 0` is the
    diagonal normal.

    Args:
        mean: ``(M, d)``, the means.
        scale: ``(M, d)``, the standard deviations, positive.
        correlation: ``(M, d)``, the correlations with the visit before, in (-1, 1); those of first
            visits are not used.
        visits: the visits.
    """

    def __init__(self, mean: Tensor, scale: Tensor, correlation: Tensor, visits: Visits) -> None:
        self.visits = visits
        self.rho = torch.where((visits.rank > 0)[:, None], correlation, 0.0)
        self.mean, self.scale = mean, scale
        self.innovation = (1.0 - self.rho.square()).sqrt()

    def by_individual(self, values: Tensor) -> Tensor:
        """Return values ``(..., M, d)`` as ``(..., B, d, W)``, 0 in padding."""
        visits = self.visits
        return padded(values, visits.owner, visits.rank, visits.counts).mT

    def factor(self) -> Tensor:
        """Return L with L L^T the covariances of paths, lower triangular: ``(B, d, W, W)``.

        Its rows in padding are 0.
        """
        # (I - A) y = D e, where A has the correlations below its diagonal.
        below = self.by_individual(self.rho)[..., 1:]
        unit = torch.eye(below.shape[-1] + 1, dtype=below.dtype, device=below.device)
        links = unit - torch.diag_embed(below, offset=-1)
        noise = torch.diag_embed(self.by_individual(self.innovation))
        factor: Tensor = torch.linalg.solve_triangular(
            links, noise, upper=False, unitriangular=True
        )
        return self.by_individual(self.scale)[..., None] * factor

    def rsample_and_log_prob(self, num_samples: int) -> tuple[Tensor, Tensor]:
        """Return samples ``(num_samples, M, d)`` and their log densities ``(num_samples, B)``."""
        shape = (num_samples, *self.mean.shape)
        noise = torch.randn(shape, dtype=self.mean.dtype, device=self.mean.device)
        moved = (self.factor() @ self.by_individual(noise)[..., None])[..., 0]
        owner, rank = self.visits.owner, self.visits.rank
        z = self.mean + moved.mT[..., owner, rank, :]
        each = -0.5 * (noise.square() + LOG_2_PI).sum(-1)
        return z, self.visits.sum(each) - self.log_det()

    def log_det(self) -> Tensor:
        """Return the log-determinants of the factors of individuals, ``(B,)``."""
        return self.visits.sum((self.scale.log() + self.innovation.log()).sum(-1))


class GPVAE(VisitLatentModel):
    r"""GP-VAE (Fortuin et al., 2020): the latents are Gaussian processes of time.

    .. math:: z_k(\cdot) \sim GP(0, k_k), \quad x_t \sim p(x | z(t)), \quad q(z_{1:T} | x, t)

    Times are real and irregular. The prior of the latents at the observed visits is exact whatever
    visits are missing, and its divergence from the posterior has a closed form. The posterior sees
    the visits through a convolution over time (`TemporalConvolution`). At other times, latents are
    drawn from the process given those at the observed visits, jointly for all times of one call.

    Use it for slow changes without a preferred course, and as a baseline of thesis section 6.5.2.

    Args:
        input_shape: shape of one visit.
        latent_dim: number of processes.
        kernel: ``"cauchy"``, ``"rbf"``, ``"diffusion"``, ``"matern"`` or ``"matern32"``
            (`TIME_KERNELS`).
        length_scale: the time over which latents change, in standard deviations of the times of the
            training set's visits.
        num_scales: number of length scales: ``length_scale``, half of it, a quarter, and so on; the
            coordinates are shared out among them.
        nugget: share of the prior's variance that is independent from visit to visit.
        precision: ``"tridiagonal"`` or ``"diagonal"``, that of the posterior of a coordinate.
        neighbours: number of visits that the encoder sees before each visit, and after it.
        networks: the other arguments of `Autoencoder`.

    >>> import torch, chartae
    >>> from chartae.data import Sequences
    >>> data = Sequences(torch.rand(20, 5, 3), times=torch.arange(5.0))
    >>> model = GPVAE((3,), latent_dim=2, kernel="matern")
    >>> _ = chartae.fit(model, data, epochs=2, seed=0, progress=False)
    >>> model.futures(data.first(2), times=[4.0, 6.0], n=8)
    Draws(8 of 20 individuals at 2 times, of shape (3,))
    """

    largest_correlation = 0.999
    floor = 1e-5

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        kernel: Annotated[str, OneOf(TIME_KERNELS)] = "cauchy",
        length_scale: Positive = 1.0,
        num_scales: Count = 1,
        nugget: Annotated[float, Range(minimum=1e-5, below=1.0)] = 1e-3,
        precision: Literal["diagonal", "tridiagonal"] = "tridiagonal",
        neighbours: Natural = 2,
        **networks: Unpack[Networks],
    ) -> None:
        super().__init__(input_shape, latent_dim, **networks)
        check_integer("num_scales", num_scales, minimum=1, maximum=latent_dim)
        self.kernel, self.length_scale, self.num_scales = kernel, length_scale, num_scales
        self.nugget, self.precision, self.neighbours = nugget, precision, neighbours
        self.temporal = TemporalConvolution(self.num_features, neighbours)
        parts = 3 if precision == "tridiagonal" else 2
        self.head = nn.Linear(self.temporal.size, parts * latent_dim)

    # --- prior and posterior ----------------------------------------------------------------------

    @property
    def process(self) -> GaussianProcess:
        """The prior of a coordinate, for each length scale."""
        halvings = torch.arange(self.num_scales, dtype=torch.float64, device=self.device)
        return GaussianProcess(self.kernel, self.length_scale * 0.5**halvings, self.nugget)

    def _of_coordinates(self, matrices: Tensor) -> Tensor:
        """Return matrices ``(B, G, ...)`` of scales as those of coordinates, ``(B, d or 1, ...)``.

        The dtype is that of the model.
        """
        matrices = matrices.to(self.dtype)
        if self.num_scales == 1:
            return matrices
        numbers = torch.arange(self.latent_dim, device=matrices.device)
        return matrices[:, numbers * self.num_scales // self.latent_dim]

    def posterior(self, visits: Visits) -> PathPosterior:
        """Return q(z | visits)."""
        features = self.temporal(self.visit_features(visits), visits)
        mean, raw, *others = self.head(features).split(self.latent_dim, -1)
        rho = torch.tanh(others[0]) if others else torch.zeros_like(raw)
        scale = softplus(raw) + self.floor
        return PathPosterior(mean, scale, self.largest_correlation * rho, visits)

    def _white(self, posterior: PathPosterior) -> tuple[Tensor, Tensor]:
        """Return the inverse factors of the prior, and minus their log-determinants.

        The former are ``(B, d or 1, W, W)``; the latter are summed over coordinates, ``(B,)``.
        """
        visits = posterior.visits
        ones = torch.ones_like(visits.times)
        columns = torch.stack([visits.times, ones], -1)
        at, known = padded(columns, visits.owner, visits.rank, visits.counts).unbind(-1)
        white = self._of_coordinates(self.process.whitener(at, known > 0.5))
        logs = -white.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return white, logs.expand(-1, self.latent_dim).sum(-1)

    def infer_visits(self, visits: Visits, num_samples: int) -> tuple[Tensor, Tensor]:
        posterior = self.posterior(visits)
        z, log_q = posterior.rsample_and_log_prob(num_samples)
        white, log_det = self._white(posterior)
        squares = (white @ posterior.by_individual(z)[..., None]).square().sum((-3, -2, -1))
        log_p = -0.5 * (squares + self.latent_dim * LOG_2_PI * visits.counts) - log_det
        return z, log_p - log_q

    def divergence(self, posterior: PathPosterior) -> Tensor:
        """Return KL(q || p) of the latents at the visits of individuals, ``(B,)``."""
        white, log_det = self._white(posterior)
        traces = (white @ posterior.factor()).square().sum((-3, -2, -1))
        means = (white @ posterior.by_individual(posterior.mean)[..., None]).square()
        size = self.latent_dim * posterior.visits.counts
        total = traces + means.sum((-3, -2, -1)) - size
        return 0.5 * total + log_det - posterior.log_det()

    def individual_means(self, visits: Visits) -> Tensor:
        """Return the means over visits of their posterior means, ``(B, latent_dim)``."""
        return visits.mean(self.posterior(visits).mean)

    # --- other times ------------------------------------------------------------------------------

    def elsewhere(
        self, z: Tensor, at: Tensor, known: Tensor, owner: Tensor, times: Tensor, y: Extra
    ) -> Tensor:
        """Draw latents from the process, given those of the visits, jointly for all times."""
        rank, counts = ranks(owner, len(at))
        columns = torch.stack([times, torch.ones_like(times)], -1)
        when, wanted = padded(columns, owner, rank, counts).unbind(-1)
        weights, factor = map(
            self._of_coordinates, self.process.conditional(at, known, when, wanted > 0.5)
        )
        mean = (weights @ z.mT[..., None])[..., 0]
        noise = torch.randn(
            *z.shape[:-3], len(at), self.latent_dim, when.shape[1], dtype=z.dtype, device=z.device
        )
        drawn = mean + (factor @ noise[..., None])[..., 0]
        return drawn.mT[..., owner, rank, :]

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
        """Return minus the ELBO of the observed visits of individuals, from one path for each."""
        visits = self.visits(x, times, observed, mask, y)
        posterior = self.posterior(visits)
        z, _ = posterior.rsample_and_log_prob(1)
        fit = self.likelihood(z[0], visits.conditions).log_prob(visits.x, visits.mask)
        reconstruction = -average(visits.sum(fit), weight)
        kl = average(self.divergence(posterior), weight)
        return Losses.of(reconstruction + kl, reconstruction=reconstruction, kl=kl)
