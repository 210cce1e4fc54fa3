"""Equations of the models with a discriminator or a discrepancy between samples."""

from itertools import product
from typing import Any

import torch
from tests.models.equations.parts import (
    BATCH,
    KL_WEIGHT,
    NETWORK,
    Case,
    Extra,
    Values,
    decoded,
    drawn,
    encoded,
    gaussian_posterior,
    kl_to_standard,
    log_likelihood,
    noise,
    scaled,
)
from torch import Tensor

from chartae import models


def certainty(logits: Tensor) -> Tensor:
    """Return D, the probability of the first kind."""
    return torch.sigmoid(logits)


def verdict(model: Any, real: Tensor, fake: Tensor) -> Tensor:
    """-1/2 E log D(real) - 1/2 E log(1 - D(fake))."""
    of_real, of_fake = (certainty(model.discriminator(kind)) for kind in (real, fake))
    return -0.5 * of_real.log().mean() - 0.5 * (1 - of_fake).log().mean()


def factor_vae(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
    """-E log p(x|z) + w (KL + gamma E log D / (1 - D)), gamma = 2.5; D against permuted codes."""
    mean, deviation = gaussian_posterior(model, x, y)
    z = drawn(mean, deviation)
    fit = -log_likelihood(model, x, z, y, mask).mean()
    kl = kl_to_standard(mean, deviation).mean()
    share = certainty(model.discriminator(z))
    correlation = (share / (1 - share)).log().mean()
    order = torch.rand(z.shape, dtype=torch.float64).argsort(0)
    permuted = torch.stack([z[order[:, j], j] for j in range(z.shape[1])], 1)
    objectives = {
        "model": fit + KL_WEIGHT * (kl + 2.5 * correlation),
        "discriminator": verdict(model, z, permuted),
    }
    return objectives, {"reconstruction": fit, "kl": kl, "total_correlation": correlation}


def halved_factor_vae(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
    """As `factor_vae` on the first half of the batch; D against permuted codes of the second."""
    half = (len(x) + 1) // 2
    mean, deviation = gaussian_posterior(model, x[:half], y)
    z = drawn(mean, deviation)
    fit = -log_likelihood(model, x[:half], z, y, mask).mean()
    kl = kl_to_standard(mean, deviation).mean()
    share = certainty(model.discriminator(z))
    correlation = (share / (1 - share)).log().mean()
    other = drawn(*gaussian_posterior(model, x[half:], y))
    order = torch.rand(other.shape, dtype=torch.float64).argsort(0)
    permuted = torch.stack([other[order[:, j], j] for j in range(z.shape[1])], 1)
    objectives = {
        "model": fit + KL_WEIGHT * (kl + 2.5 * correlation),
        "discriminator": verdict(model, z, permuted),
    }
    return objectives, {"reconstruction": fit, "kl": kl, "total_correlation": correlation}


# --- discrepancies --------------------------------------------------------------------------------


def imq(squared: Tensor, variance: float) -> Tensor:
    scales = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
    return sum(s * variance / (s * variance + squared) for s in scales)


def rbf(squared: Tensor, variance: float) -> Tensor:
    return torch.exp(-squared / variance)


def discrepancy(a: Tensor, b: Tensor, kernel: Any, bandwidth: float) -> Tensor:
    """Return the unbiased estimate of MMD^2, pair by pair (Gretton et al., 2012)."""
    variance = 2 * a.shape[1] * bandwidth**2

    def mean(first: Tensor, second: Tensor, *, distinct: bool) -> Tensor:
        pairs = product(range(len(first)), range(len(second)))
        chosen = [(i, j) for i, j in pairs if not distinct or i != j]
        values = [kernel(((first[i] - second[j]) ** 2).sum(), variance) for i, j in chosen]
        return sum(values) / len(values)

    within = mean(a, a, distinct=True) + mean(b, b, distinct=True)
    return within - 2 * mean(a, b, distinct=False)


def info_vae(kernel: Any) -> Any:
    """-E log p(x|z) + w ((1 - alpha) KL + (alpha + lambda - 1) MMD^2), alpha 0.3, lambda 4."""

    def equation(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
        mean, deviation = gaussian_posterior(model, x, y)
        z = drawn(mean, deviation)
        fit = -log_likelihood(model, x, z, y, mask).mean()
        kl = kl_to_standard(mean, deviation).mean()
        mmd = discrepancy(z, noise(*z.shape), kernel, 0.8)
        total = fit + KL_WEIGHT * ((1 - 0.3) * kl + (0.3 + 4 - 1) * mmd)
        return {"model": total}, {"reconstruction": fit, "kl": kl, "mmd": mmd}

    return equation


def wae_mmd(kernel: Any) -> Any:
    """-log p(x|f(x)) + lambda MMD^2, lambda = 4."""

    def equation(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
        z = model.code_head(encoded(model, x, y))
        fit = -log_likelihood(model, x, z, y, mask).mean()
        mmd = discrepancy(z, noise(*z.shape), kernel, 0.8)
        return {"model": fit + 4 * mmd}, {"reconstruction": fit, "mmd": mmd}

    return equation


# --- games ----------------------------------------------------------------------------------------


def deceiver(*, stochastic: bool, weight: float) -> Any:
    """-E log p(x|z) - weight E log D(z); D tells draws of N(0, I) from codes."""

    def equation(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
        if stochastic:
            z = drawn(*gaussian_posterior(model, x, y))
        else:
            z = model.code_head(encoded(model, x, y))
        fit = -log_likelihood(model, x, z, y, mask).mean()
        deception = -certainty(model.discriminator(z)).log().mean()
        objectives = {
            "model": fit + weight * deception,
            "discriminator": verdict(model, noise(*z.shape), z),
        }
        return objectives, {"reconstruction": fit, "deception": deception}

    return equation


def vaegan(layer: int | None, scale: float | None = None) -> Any:
    """Encoder: Delta + w KL. Decoder: (1 - alpha) Delta - alpha E log D(fake), alpha = 0.3.

    Delta = 1/2 ||D_l(x) - D_l(x^)||^2 / s^2 + F log s, where s is fixed, or that of the batch which
    minimises Delta, less the constant F / 2; the fakes are reconstructions and decoded draws of the
    prior, as many of each. The likelihood's scale learns by itself.
    """

    def equation(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
        mean, deviation = gaussian_posterior(model, x, y)
        z = drawn(mean, deviation)
        prior = noise(*z.shape)
        images = [x, decoded(model, z, y), decoded(model, prior, y)]
        images = [scaled(model, image) * (1 if mask is None else mask) for image in images]
        real, reconstruction, draw = images
        layers = [model.discriminator.features(image, layer) for image in images[:2]]
        squares = (layers[0] - layers[1]) ** 2
        features = 0.5 * squares.sum() / BATCH
        s = squares.mean().sqrt().detach() if scale is None else torch.tensor(scale, dtype=x.dtype)
        delta = features / s**2 + squares.numel() / BATCH * s.log()
        if scale is None:
            delta = delta - features.detach() / s**2
        kl = kl_to_standard(mean, deviation).mean()
        fakes = torch.cat([reconstruction, draw])
        deception = -certainty(model.discriminator(fakes)).log().mean()
        calibration = -log_likelihood(model, x, z, y, mask).mean()
        objectives = {
            "model": delta + KL_WEIGHT * kl,
            "decoder": (1 - 0.3) * delta + 0.3 * deception,
            "discriminator": verdict(model, real, fakes),
            "likelihood": calibration,
        }
        terms = {"reconstruction": calibration, "features": features}
        return objectives, {**terms, "kl": kl, "deception": deception}

    return equation


TELLS = {"discriminator": NETWORK}
OPPONENT = {"discriminator": ("discriminator.",)}
PLAYERS = {
    **OPPONENT,
    "decoder": ("decoder.",),
    "likelihood": ("observation_model.",),
}
MMD = {"weight": 4.0, "bandwidth": 0.8}

CASES = {
    "FactorVAE": Case(models.FactorVAE, factor_vae, {**TELLS, "gamma": 2.5}, OPPONENT),
    "FactorVAE of halves": Case(
        models.FactorVAE, halved_factor_vae, {**TELLS, "gamma": 2.5, "halved": True}, OPPONENT
    ),
    "FactorVAE of classes, masked": Case(
        models.FactorVAE,
        factor_vae,
        {**TELLS, "gamma": 2.5, "conditions": 3},
        OPPONENT,
        masked=True,
    ),
    "InfoVAE imq": Case(models.InfoVAE, info_vae(imq), {**MMD, "alpha": 0.3}, masked=True),
    "InfoVAE rbf": Case(models.InfoVAE, info_vae(rbf), {**MMD, "alpha": 0.3, "kernel": "rbf"}),
    "WAE imq": Case(models.WAE, wae_mmd(imq), MMD, masked=True),
    "WAE rbf": Case(models.WAE, wae_mmd(rbf), {**MMD, "kernel": "rbf"}),
    "WAE gan": Case(
        models.WAE,
        deceiver(stochastic=False, weight=4.0),
        {**TELLS, "regularization": "gan", "weight": 4.0},
        OPPONENT,
    ),
    "AAE": Case(
        models.AAE,
        deceiver(stochastic=True, weight=KL_WEIGHT * 4),
        {**TELLS, "weight": 4.0},
        OPPONENT,
    ),
    "AAE deterministic": Case(
        models.AAE,
        deceiver(stochastic=False, weight=KL_WEIGHT * 4),
        {**TELLS, "weight": 4.0, "stochastic": False},
        OPPONENT,
    ),
    "VAEGAN": Case(
        models.VAEGAN, vaegan(None), {**TELLS, "adversarial_weight": 0.3}, PLAYERS, masked=True
    ),
    "VAEGAN layer": Case(
        models.VAEGAN,
        vaegan(1, scale=1.7),
        {
            "feature_scale": 1.7,
            "discriminator": {"name": "mlp", "hidden": [7, 5]},
            "adversarial_weight": 0.3,
            "layer": 1,
        },
        PLAYERS,
    ),
}
