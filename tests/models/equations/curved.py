"""Equations of the Hamiltonian models, and of those on a sphere or a ball."""

import math
from collections.abc import Callable
from typing import Any

import torch
from tests.models.equations.parts import (
    BATCH,
    KL_WEIGHT,
    NETWORK,
    Case,
    Extra,
    Values,
    drawn,
    encoded,
    gaussian_posterior,
    log_likelihood,
    log_normal,
    noise,
    scaled,
)
from torch import Tensor

from chartae import models

# --- Hamiltonian flows ----------------------------------------------------------------------------

STEPS, STEP, ROOT = 2, 0.1, 0.5
"""Leapfrog steps, their size, and the root of beta_0."""


def tempering() -> list[float]:
    """Return the roots of beta_k, k = 0..K: MATH.md, section 3."""
    return [1 / ((1 - 1 / ROOT) * (k / STEPS) ** 2 + 1 / ROOT) for k in range(STEPS + 1)]


def gradient(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Return the derivative of a sum over rows at z, itself differentiable.

    What the function has taken from z before does not count: z is a variable of its own.
    """
    variable = z.clone()
    (found,) = torch.autograd.grad(function(variable).sum(), variable, create_graph=True)
    return found


def hvae(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
    """log w = log p(x, z_K) + log p(v_K) - log q(z_0|x) - log p(gamma); K = 2."""

    def log_joint(z: Tensor) -> Tensor:
        return log_likelihood(model, x, z, y, mask) + log_normal(z)

    mean, deviation = gaussian_posterior(model, x, y)
    start = drawn(mean, deviation)
    gamma = noise(*start.shape)
    roots = tempering()
    z, v = start, gamma / roots[0]
    for k in range(STEPS):
        v = v + STEP / 2 * gradient(log_joint, z)
        z = z + STEP * v
        v = v + STEP / 2 * gradient(log_joint, z)
        v = v * roots[k] / roots[k + 1]
    fit = -log_likelihood(model, x, z, y, mask).mean()
    log_ratio = log_normal(z) + log_normal(v) - log_normal(start, mean, deviation)
    kl = -(log_ratio - log_normal(gamma)).mean()
    return {"model": fit + KL_WEIGHT * kl}, {"reconstruction": fit, "kl": kl}


def cut_hvae(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
    """As `hvae`, with gradients of log p(x, z) that are constants."""

    def force(z: Tensor) -> Tensor:
        z = z.detach().requires_grad_()
        (grad,) = torch.autograd.grad(
            (log_likelihood(model, x, z, y, mask) + log_normal(z)).sum(), z
        )
        return grad

    mean, deviation = gaussian_posterior(model, x, y)
    start = drawn(mean, deviation)
    gamma = noise(*start.shape)
    roots = tempering()
    z, v = start, gamma / roots[0]
    for k in range(STEPS):
        v = v + STEP / 2 * force(z)
        z = z + STEP * v
        v = v + STEP / 2 * force(z)
        v = v * roots[k] / roots[k + 1]
    fit = -log_likelihood(model, x, z, y, mask).mean()
    log_ratio = log_normal(z) + log_normal(v) - log_normal(start, mean, deviation)
    kl = -(log_ratio - log_normal(gamma)).mean()
    return {"model": fit + KL_WEIGHT * kl}, {"reconstruction": fit, "kl": kl}


def learned_inverse(model: Any, mean: Tensor, deviation: Tensor, x: Tensor) -> Any:
    """G^-1(z) = sum_i w_i(z) M_i + lambda I, w_i = exp(-||z - c_i||^2 / T^2), lambda = 0.2.

    The M_i are the network's matrices over the mean overlap of the bumps at the centroids, which
    are the batch's means.
    """
    d = mean.shape[1]
    temperature = model.temperature
    if temperature is None:  # 0.7 sqrt(d) N^(-1 / (d + 4)) sigma, of no gradient
        variance = (mean.var(0, correction=0) + (deviation**2).mean(0)).mean().item()
        temperature = 0.7 * math.sqrt(d * variance) * BATCH ** (-1 / (d + 4))

    def bumps(z: Tensor) -> Tensor:
        return torch.exp(-((z[:, None] - mean) ** 2).sum(-1) / temperature**2)

    matrices = model.metric_network(scaled(model, x)) / (bumps(mean).sum() / BATCH)

    def inverse(z: Tensor) -> Tensor:
        return torch.einsum("bi,ijk->bjk", bumps(z), matrices) + 0.2 * torch.eye(d).double()

    return inverse


def fixed_inverse(model: Any, mean: Tensor, deviation: Tensor, x: Tensor) -> Any:
    """The same, of the centroids and matrices that the end of a training fixed."""
    temperature = float(model.fitted_temperature)

    def inverse(z: Tensor) -> Tensor:
        squared = ((z[:, None] - model.centroids) ** 2).sum(-1)
        weights = torch.exp(-squared / temperature**2)
        floor = 0.2 * torch.eye(z.shape[1]).double()
        return torch.einsum("bi,ijk->bjk", weights, model.matrices) + floor

    return inverse


def posterior_inverse(model: Any, mean: Tensor, deviation: Tensor, x: Tensor) -> Any:
    """G(z) = sum_i diag(1 / sigma_i^2) w_i(z) + lambda I, w_i = exp(-D_i(z) / rho^2), lambda 0.2.

    D_i is the squared distance in units of sigma_i.
    """
    rho = model.rho
    if rho is None:  # rho^2 = d + m^2, m the median distance to the nearest other mean
        pairs = (((mean[:, None] - mean) / deviation) ** 2).sum(-1).sqrt().tolist()
        nearest = [min(pairs[i][j] for j in range(BATCH) if j != i) for i in range(BATCH)]
        rho = math.sqrt(mean.shape[1] + sorted(nearest)[BATCH // 2] ** 2)

    def inverse(z: Tensor) -> Tensor:
        squared = (((z[:, None] - mean) / deviation) ** 2).sum(-1)
        diagonal = torch.exp(-squared / rho**2) @ deviation**-2 + 0.2
        return torch.diag_embed(1 / diagonal)

    return inverse


def rhvae(inverse_of: Any) -> Any:
    """The flow of H(z, v) = -log p(x, z) + 1/2 log det G(z) + 1/2 v^T G^-1(z) v.

    Generalised leapfrog, 2 iterations for its implicit lines: MATH.md, section 3.
    """

    def equation(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
        mean, deviation = gaussian_posterior(model, x, y)
        inverse = inverse_of(model, mean, deviation, x)

        def log_volume(z: Tensor) -> Tensor:
            return -0.5 * torch.logdet(inverse(z))

        def velocity(z: Tensor, v: Tensor) -> Tensor:
            return torch.einsum("bjk,bk->bj", inverse(z), v)

        def energy(z: Tensor, v: Tensor) -> Tensor:
            log_joint = log_likelihood(model, x, z, y, mask) + log_normal(z)
            return -log_joint + log_volume(z) + 0.5 * (v * velocity(z, v)).sum(-1)

        def log_momentum(z: Tensor, v: Tensor) -> Tensor:
            """Return log N(v; 0, G(z))."""
            normal = 0.5 * z.shape[1] * math.log(2 * math.pi)
            return -0.5 * (v * velocity(z, v)).sum(-1) - log_volume(z) - normal

        start = drawn(mean, deviation)
        # With G^-1 = C C^T, gamma = C^-T noise has the covariance G.
        factor = torch.linalg.cholesky(inverse(start))
        gamma = torch.linalg.solve(factor.mT, noise(*start.shape)[..., None])[..., 0]
        roots = tempering()
        z, v = start, gamma / roots[0]
        for k in range(STEPS):
            half = v
            for _ in range(2):
                half = v - STEP / 2 * gradient(lambda p, half=half: energy(p, half), z)
            now = velocity(z, half)
            end = z + STEP * now
            for _ in range(2):
                end = z + STEP / 2 * (now + velocity(end, half))
            z = end
            v = half - STEP / 2 * gradient(lambda p, half=half: energy(p, half), z)
            v = v * roots[k] / roots[k + 1]
        fit = -log_likelihood(model, x, z, y, mask).mean()
        log_ratio = log_normal(z) + log_momentum(z, v) - log_normal(start, mean, deviation)
        kl = -(log_ratio - log_momentum(start, gamma)).mean()
        return {"model": fit + KL_WEIGHT * kl}, {"reconstruction": fit, "kl": kl}

    return equation


def fix_metric(model: Any) -> None:
    """End a training on other data; gradients are then of a model in eval mode."""
    x = torch.rand(7, *model.input_shape, generator=torch.Generator().manual_seed(5)).double()
    model.on_fit_end([{"x": x}])
    model.eval()


# --- the sphere -----------------------------------------------------------------------------------


def svae(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
    r"""On the sphere of R^3, where all is elementary.

    q(z) = kappa e^(kappa mu.z) / (4 pi sinh kappa), so E mu.z = coth kappa - 1 / kappa, and
    KL(q || U) = log(kappa / sinh kappa) + kappa coth kappa - 1. The cosine t to mu has the
    distribution function (e^(kappa t) - e^-kappa) / (2 sinh kappa); one minus it is the uniform
    number. Parallel transport takes the tangent direction along as mu moves.
    """
    head = model.posterior_head(encoded(model, x, y))
    mu, kappa = head.loc, head.concentration
    uniform = torch.rand(BATCH, dtype=torch.float64)
    cosine = 1 + torch.log1p(uniform * torch.expm1(-2 * kappa)) / kappa
    tangent = noise(BATCH, 3)
    tangent = tangent - (tangent * mu).sum(1, keepdim=True) * mu
    tangent = (tangent / tangent.norm(dim=1, keepdim=True)).detach()
    tangent = tangent - (tangent * mu).sum(1, keepdim=True) * mu
    z = cosine[:, None] * mu + (1 - cosine**2).sqrt()[:, None] * tangent
    fit = -log_likelihood(model, x, z, y, mask).mean()
    kl = (kappa / kappa.sinh()).log() + kappa / kappa.tanh() - 1
    kl = kl.mean()
    return {"model": fit + KL_WEIGHT * kl}, {"reconstruction": fit, "kl": kl}


# --- the ball -------------------------------------------------------------------------------------

CURVATURE = 0.7


def ball_distance(z: Tensor) -> Tensor:
    """Return the distance of z ``(batch, 2)`` from the origin."""
    root = math.sqrt(CURVATURE)
    return 2 / root * torch.atanh(root * z.norm(dim=1))


def moved(center: Tensor, v: Tensor) -> Tensor:
    """Return the point at distance ||v|| from a centre, by the complex form of the isometry.

    (w + mu) / (1 + c conj(mu) w), with w = tanh(sqrt(c) ||v|| / 2) v / (sqrt(c) ||v||).
    """
    root, length = math.sqrt(CURVATURE), v.norm(dim=1, keepdim=True)
    w = torch.view_as_complex(torch.tanh(root * length / 2) * v / (root * length))
    mu = torch.view_as_complex(center.contiguous())
    return torch.view_as_real((w + mu) / (1 + CURVATURE * mu.conj() * w))


def direction() -> Tensor:
    """Return uniform directions of the plane."""
    e = noise(BATCH, 2)
    return e / e.norm(dim=1, keepdim=True)


def log_wrapped(v: Tensor, scale: Any) -> Tensor:
    """Return log N(v; 0, scale^2) - log(sinh(sqrt(c) r) / (sqrt(c) r)), r = ||v||, in the plane."""
    r = math.sqrt(CURVATURE) * v.norm(dim=1)
    return log_normal(v, 0.0, scale) - (r.sinh() / r).log()


def wrapped_vae(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
    """A normal vector carried to the disc; its length is sqrt(-2 log(1 - u))."""
    head = model.posterior_head(encoded(model, x, y))
    length = (-2 * torch.log1p(-torch.rand(BATCH, dtype=torch.float64))).sqrt()
    v = head.scale * length[:, None] * direction()
    z = moved(head.loc, v)
    # At the origin a law depends on the distance alone.
    to_origin = ball_distance(z)[:, None] * torch.tensor([1.0, 0.0]).double()
    fit = -log_likelihood(model, x, z, y, mask).mean()
    kl = (log_wrapped(v, head.scale) - log_wrapped(to_origin, torch.ones(2).double())).mean()
    return {"model": fit + KL_WEIGHT * kl}, {"reconstruction": fit, "kl": kl}


def radial_mass(r: Tensor, sigma: Tensor) -> Tensor:
    r"""Return the integral from 0 to r of e^(-s^2 / 2 sigma^2) sinh(a s) / a ds, a = sqrt(c)."""
    a, root = math.sqrt(CURVATURE), math.sqrt(2) * sigma
    ends = torch.erf((r - a * sigma**2) / root) - torch.erf((r + a * sigma**2) / root)
    ends = ends + 2 * torch.erf(a * sigma / math.sqrt(2))
    return math.sqrt(math.pi / 8) * sigma * torch.exp((a * sigma) ** 2 / 2) * ends / a


def riemannian_vae(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
    """The density is proportional to exp(-d(mu, z)^2 / 2 sigma^2) on the disc.

    The distance solves F(r) = u: by bisection, then by one step of Newton's method that is
    differentiable in sigma, dr = -dF / p.
    """
    head = model.posterior_head(encoded(model, x, y))
    sigma, far = head.scale, torch.tensor(60.0).double()
    uniform = torch.rand(BATCH, dtype=torch.float64)
    total = radial_mass(far, sigma)
    with torch.no_grad():
        low, high = torch.zeros(BATCH).double(), far.expand(BATCH)
        for _ in range(80):
            middle = (low + high) / 2
            below = radial_mass(middle, sigma) / total < uniform
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        a = math.sqrt(CURVATURE)
        density = torch.exp(-(low**2) / (2 * sigma**2)) * torch.sinh(a * low) / a / total
    r = low - (radial_mass(low, sigma) / total - uniform) / density
    z = moved(head.loc, r[:, None] * direction())
    one = torch.ones(()).double()
    log_q = -(r**2) / (2 * sigma**2) - torch.log(2 * math.pi * total)
    log_p = -(ball_distance(z) ** 2) / 2 - torch.log(2 * math.pi * radial_mass(far, one))
    fit = -log_likelihood(model, x, z, y, mask).mean()
    kl = (log_q - log_p).mean()
    return {"model": fit + KL_WEIGHT * kl}, {"reconstruction": fit, "kl": kl}


FLOW = {"num_leapfrog": STEPS, "step_size": STEP, "sqrt_beta_0": ROOT}
RIEMANNIAN = {**FLOW, "regularization": 0.2, "fixed_point_steps": 2}
LEARNED = {**RIEMANNIAN, "metric_network": NETWORK, "temperature": 1.5}
POSTERIOR = {**RIEMANNIAN, "geometry": "posterior"}
BALL = {"curvature": CURVATURE}

CASES = {
    "HVAE": Case(models.HVAE, hvae, FLOW),
    "HVAE of cut gradients": Case(models.HVAE, cut_hvae, {**FLOW, "cut_gradients": True}),
    "HVAE of classes, masked": Case(models.HVAE, hvae, {**FLOW, "conditions": 3}, masked=True),
    "RHVAE": Case(models.RHVAE, rhvae(learned_inverse), LEARNED, masked=True),
    "RHVAE its own temperature": Case(
        models.RHVAE, rhvae(learned_inverse), {**LEARNED, "temperature": None}
    ),
    "RHVAE fixed": Case(models.RHVAE, rhvae(fixed_inverse), LEARNED, prepare=fix_metric),
    "RHVAE posterior": Case(models.RHVAE, rhvae(posterior_inverse), {**POSTERIOR, "rho": 1.5}),
    "RHVAE posterior, its own reach": Case(models.RHVAE, rhvae(posterior_inverse), POSTERIOR),
    "SVAE": Case(models.SVAE, svae, masked=True),
    "PoincareVAE": Case(models.PoincareVAE, wrapped_vae, BALL, latent_dim=2),
    "PoincareVAE riemannian": Case(
        models.PoincareVAE, riemannian_vae, {**BALL, "posterior": "riemannian"}, latent_dim=2
    ),
}
