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
    r"""Normal law of the latents of individuals at their visits, for each coordinate apart.

    Args:
        mean: ``(M, d)``.
        factor: L with L L^T the covariances of paths, ``(B, d, W, W)``, with rows of 0 in padding.
        log_det: ``(B,)``, the logs of its determinants without padding, summed over coordinates.
        visits: the visits.
    """

    def __init__(self, mean: Tensor, factor: Tensor, log_det: Tensor, visits: Visits) -> None:
        self.mean, self.factor, self.log_det, self.visits = mean, factor, log_det, visits

    @classmethod
    def markov(
        cls, mean: Tensor, scale: Tensor, correlation: Tensor, visits: Visits
    ) -> "PathPosterior":
        r"""Return the law in which each visit depends on the visit before.

        .. math:: \frac{z_t - \mu_t}{\sigma_t} =
            \rho_t \frac{z_{t-1} - \mu_{t-1}}{\sigma_{t-1}} + \sqrt{1 - \rho_t^2} \, \varepsilon_t

        These are the normals whose precision is tridiagonal. The :math:`\sigma_t` are standard
        deviations for every :math:`\rho`; with :math:`\rho = 0` the precision is diagonal.

        Args:
            mean: ``(M, d)``.
            scale: ``(M, d)``, the standard deviations, positive.
            correlation: ``(M, d)``, in (-1, 1); those of first visits are not used.
            visits: the visits.
        """
        rho = torch.where((visits.rank > 0)[:, None], correlation, 0.0)
        noise = (1.0 - rho.square()).sqrt()
        # (I - A) y = D e, where A has the correlations below its diagonal.
        below = by_individual(rho, visits)[..., 1:]
        unit = torch.eye(below.shape[-1] + 1, dtype=below.dtype, device=below.device)
        links = unit - torch.diag_embed(below, offset=-1)
        innovations = torch.diag_embed(by_individual(noise, visits))
        factor = torch.linalg.solve_triangular(links, innovations, upper=False, unitriangular=True)
        factor = by_individual(scale, visits)[..., None] * factor
        return cls(mean, factor, visits.sum((scale.log() + noise.log()).sum(-1)), visits)

    @classmethod
    def product(
        cls, location: Tensor, precision: Tensor, prior: Tensor, visits: Visits
    ) -> "PathPosterior":
        r"""Return the product of the prior with a normal for each visit (Pearce, 2020).

        .. math:: q(z) \propto p(z) \prod_t N(z_t; m_t, 1 / \lambda_t)

        Args:
            location: the m, ``(M, d)``.
            precision: the :math:`\lambda`, positive, ``(M, d)``.
            prior: Cholesky factors L of the prior, float64, ``(B, d or 1, W, W)``.
            visits: the visits.
        """
        weight = by_individual(precision, visits).double()
        # The precision is L^-T (I + L^T diag(w) L) L^-1, whose middle has eigenvalues above 1.
        unit = torch.eye(prior.shape[-1], dtype=prior.dtype, device=prior.device)
        middle = torch.linalg.cholesky(unit + prior.mT @ (weight[..., None] * prior))
        factor = torch.linalg.solve_triangular(middle, prior.mT, upper=False).mT
        factor = factor * by_individual(torch.ones_like(precision), visits)[..., None]
        drift = weight * by_individual(location, visits)
        mean = (factor @ (factor.mT @ drift[..., None]))[..., 0].mT[visits.owner, visits.rank]
        log_det = log_diagonal(prior).expand(weight.shape[:-1]) - log_diagonal(middle)
        dtype = location.dtype
        return cls(mean.to(dtype), factor.to(dtype), log_det.sum(-1).to(dtype), visits)

    def rsample_and_log_prob(self, num_samples: int) -> tuple[Tensor, Tensor]:
        """Return samples ``(num_samples, M, d)`` and their log densities ``(num_samples, B)``."""
        shape = (num_samples, *self.mean.shape)
        noise = torch.randn(shape, dtype=self.mean.dtype, device=self.mean.device)
        moved = (self.factor @ by_individual(noise, self.visits)[..., None])[..., 0]
        z = self.mean + moved.mT[..., self.visits.owner, self.visits.rank, :]
        each = -0.5 * (noise.square() + LOG_2_PI).sum(-1)
        return z, self.visits.sum(each) - self.log_det


def by_individual(values: Tensor, visits: Visits) -> Tensor:
    """Return values of visits ``(..., M, d)`` as ``(..., B, d, W)``, 0 in padding."""
    return padded(values, visits.owner, visits.rank, visits.counts).mT


def log_diagonal(matrices: Tensor) -> Tensor:
    """Return the sums of the logs of the diagonals of ``(..., n, n)``."""
    return matrices.diagonal(dim1=-2, dim2=-1).log().sum(-1)


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
        inference: the posterior of a coordinate at the visits: a normal whose precision is
            ``"tridiagonal"`` (as published) or ``"diagonal"``; or ``"product"``, the product of the
            prior with a normal for each visit (Pearce, 2020), which has the prior's course between
            and after the visits.
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
        inference: Literal["tridiagonal", "diagonal", "product"] = "tridiagonal",
        neighbours: Natural = 2,
        **networks: Unpack[Networks],
    ) -> None:
        super().__init__(input_shape, latent_dim, **networks)
        check_integer("num_scales", num_scales, minimum=1, maximum=latent_dim)
        self.kernel, self.length_scale, self.num_scales = kernel, length_scale, num_scales
        self.nugget, self.inference, self.neighbours = nugget, inference, neighbours
        self.temporal = TemporalConvolution(self.num_features, neighbours)
        parts = 3 if inference == "tridiagonal" else 2
        self.head = nn.Linear(self.temporal.size, parts * latent_dim)

    # --- prior and posterior ----------------------------------------------------------------------

    @property
    def process(self) -> GaussianProcess:
        """The prior of a coordinate, for each length scale."""
        halvings = torch.arange(self.num_scales, dtype=torch.float64, device=self.device)
        return GaussianProcess(self.kernel, self.length_scale * 0.5**halvings, self.nugget)

    def _of_coordinates(self, matrices: Tensor) -> Tensor:
        """Return matrices ``(B, G, ...)`` of scales as those of coordinates, ``(B, d or 1, ...)``.

        One matrix stands for all coordinates if there is one scale.
        """
        if self.num_scales == 1:
            return matrices
        numbers = torch.arange(self.latent_dim, device=matrices.device)
        return matrices[:, numbers * self.num_scales // self.latent_dim]

    def _times(self, visits: Visits) -> tuple[Tensor, Tensor]:
        """Return the times of visits, and where there is one: ``(B, W)`` each."""
        columns = torch.stack([visits.times, torch.ones_like(visits.times)], -1)
        at, flag = padded(columns, visits.owner, visits.rank, visits.counts).unbind(-1)
        return at, flag > 0.5

    def posterior(self, visits: Visits) -> PathPosterior:
        """Return q(z | visits)."""
        features = self.temporal(self.visit_features(visits), visits)
        mean, raw, *others = self.head(features).split(self.latent_dim, -1)
        positive = softplus(raw) + self.floor
        if self.inference == "product":
            prior = self._of_coordinates(self.process.factor(*self._times(visits)))
            return PathPosterior.product(mean, positive, prior, visits)
        rho = torch.tanh(others[0]) if others else torch.zeros_like(raw)
        return PathPosterior.markov(mean, positive, self.largest_correlation * rho, visits)

    def _white(self, visits: Visits) -> tuple[Tensor, Tensor]:
        """Return the inverses of the factors of the prior, and minus their log-determinants.

        The former are ``(B, d or 1, W, W)``; the latter are summed over coordinates, ``(B,)``.
        """
        white = self._of_coordinates(self.process.whitener(*self._times(visits))).to(self.dtype)
        return white, -log_diagonal(white).expand(-1, self.latent_dim).sum(-1)

    def infer_visits(self, visits: Visits, num_samples: int) -> tuple[Tensor, Tensor]:
        z, log_q = self.posterior(visits).rsample_and_log_prob(num_samples)
        white, log_det = self._white(visits)
        squares = (white @ by_individual(z, visits)[..., None]).square().sum((-3, -2, -1))
        log_p = -0.5 * (squares + self.latent_dim * LOG_2_PI * visits.counts) - log_det
        return z, log_p - log_q

    def divergence(self, posterior: PathPosterior) -> Tensor:
        """Return KL(q || p) of the latents at the visits of individuals, ``(B,)``."""
        visits = posterior.visits
        white, log_det = self._white(visits)
        traces = (white @ posterior.factor).square().sum((-3, -2, -1))
        means = (white @ by_individual(posterior.mean, visits)[..., None]).square()
        total = traces + means.sum((-3, -2, -1)) - self.latent_dim * visits.counts
        return 0.5 * total + log_det - posterior.log_det

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
        laws = self.process.conditional(at, known, when, wanted > 0.5)
        weights, factor = (self._of_coordinates(part).to(self.dtype) for part in laws)
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
