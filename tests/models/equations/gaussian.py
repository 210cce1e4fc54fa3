"""Equations of the models with Gaussian posteriors, and of deterministic ones."""

import math
from typing import Any

import torch
from tests.models.equations.parts import (
    BATCH,
    KL_WEIGHT,
    Case,
    Extra,
    Values,
    decoded,
    decoder_output,
    drawn,
    encoded,
    gaussian_posterior,
    jacobians,
    kl_to_standard,
    log_likelihood,
    log_normal,
    noise,
    numbers,
    scaled,
)
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d

from chartae import models

# --- the VAE and its weighted forms ---------------------------------------------------------------


def elbo_parts(
    model: Any, x: Tensor, y: Extra, mask: Extra, z: Tensor, kl: Tensor
) -> tuple[Tensor, Tensor]:
    """Return means over the batch of -log p(x|z) and of the KL."""
    return -log_likelihood(model, x, z, y, mask).mean(), kl.mean()


def vae(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
    """-E log p(x|z) + w KL, w = KL_WEIGHT."""
    mean, deviation = gaussian_posterior(model, x, y)
    kl = kl_to_standard(mean, deviation)
    fit, kl = elbo_parts(model, x, y, mask, drawn(mean, deviation), kl)
    return {"model": fit + KL_WEIGHT * kl}, {"reconstruction": fit, "kl": kl}


def beta_vae(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
    """-E log p(x|z) + w beta KL, beta = 2.5."""
    _, terms = vae(model, x, y, mask)
    return {"model": terms["reconstruction"] + KL_WEIGHT * 2.5 * terms["kl"]}, terms


def capacity_vae(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
    """-E log p(x|z) + w beta |KL - C| of each x, beta = 3, C rising to 20 in 4 epochs."""
    _, terms = vae(model, x, y, mask)
    capacity = {0: 0.0, 1: 5.0, 3: 15.0}.get(model.epoch, 20.0)
    mean, deviation = gaussian_posterior(model, x, y)
    differences = (kl_to_standard(mean, deviation) - capacity).abs()
    return {"model": terms["reconstruction"] + KL_WEIGHT * 3.0 * differences.mean()}, terms


def at_epoch(epoch: float) -> Any:
    def prepare(model: Any) -> None:
        model.epoch = epoch

    return prepare


def cvae(model: Any, x: Tensor, y: Tensor, mask: Extra) -> tuple[Values, Values]:
    """-E log p(x|z, y) + w KL(q(z|x, y) || p(z|y)), between two diagonal Gaussians."""
    mean, deviation = gaussian_posterior(model, x, y)
    prior = model.prior_head(numbers(model, y))
    ratio = deviation / prior.stddev
    distance = (mean - prior.mean) / prior.stddev
    kl = (0.5 * (ratio**2 + distance**2 - 1) - ratio.log()).sum(-1)
    fit, kl = elbo_parts(model, x, y, mask, drawn(mean, deviation), kl)
    return {"model": fit + KL_WEIGHT * kl}, {"reconstruction": fit, "kl": kl}


# --- distances between images ---------------------------------------------------------------------


def sum_of_absolutes(x: Tensor, mean: Tensor) -> Tensor:
    return (x - mean).abs().flatten(1).sum(1)


def ms_ssim(x: Tensor, mean: Tensor) -> Tensor:
    """One minus the similarity of images at two scales, in windows of 3 (Wang et al., 2003).

    Similarities are brought to 0..1 before their powers are taken. The weights of the scales are
    the first two published ones, over their sum.
    """
    t = torch.tensor([-1.0, 0.0, 1.0]).double()
    window = torch.exp(-0.5 * (t[:, None] ** 2 + t**2) / 0.3**2)
    window = (window / window.sum())[None, None]
    a, b = x[:, None], mean[:, None]
    product = torch.ones(len(x)).double()
    for last, power in ((False, 0.0448), (True, 0.2856)):
        mean_a, mean_b = conv2d(a, window), conv2d(b, window)
        var_a, var_b = conv2d(a * a, window) - mean_a**2, conv2d(b * b, window) - mean_b**2
        covariance = conv2d(a * b, window) - mean_a * mean_b
        similarity = (2 * covariance + 0.03**2) / (var_a + var_b + 0.03**2)
        if last:
            luminance = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
            similarity = similarity * luminance
        share = (1 + similarity.mean((1, 2, 3))) / 2
        product = product * share ** (power / (0.0448 + 0.2856))
        a, b = avg_pool2d(a, 2), avg_pool2d(b, 2)
    return 1 - product


def distance_vae(distance: Any) -> Any:
    """lambda Delta(x, x^) + w KL, lambda = 30; the likelihood's scale learns by itself."""

    def equation(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
        mean, deviation = gaussian_posterior(model, x, y)
        z = drawn(mean, deviation)
        images = [scaled(model, x), scaled(model, decoded(model, z, y))]
        if mask is not None:
            images = [image * mask for image in images]
        fit = 30.0 * distance(*images).mean()
        calibration, kl = elbo_parts(model, x, y, mask, z, kl_to_standard(mean, deviation))
        objectives = {"model": fit + KL_WEIGHT * kl, "likelihood": calibration}
        return objectives, {"reconstruction": fit, "kl": kl}

    return equation


# --- weights of importance ------------------------------------------------------------------------


def log_weight_parts(
    model: Any, x: Tensor, y: Extra, mask: Extra, samples: int
) -> tuple[Tensor, Tensor]:
    """Return log p(x|z) and log p(z) - log q(z|x), ``(samples, batch)`` each."""
    mean, deviation = gaussian_posterior(model, x, y)
    z = drawn(mean, deviation, samples)
    divergence = log_normal(z) - log_normal(z, mean, deviation)
    return log_likelihood(model, x, z, y, mask), divergence


def log_mean(log_weights: Tensor) -> Tensor:
    """Return the log of the mean weight over the first dimension."""
    return log_weights.exp().mean(0).log()


def weighted_terms(fit: Tensor, divergence: Tensor) -> Values:
    return {"reconstruction": -fit.mean(), "kl": -divergence.mean()}


def iwae(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
    """-log 1/S sum_s w_s, S = 4."""
    fit, divergence = log_weight_parts(model, x, y, mask, 4)
    bound = log_mean(fit + KL_WEIGHT * divergence).mean()
    return {"model": -bound}, weighted_terms(fit, divergence)


def miwae_bounds(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the bound of all 6 weights, and the mean bound of 2 groups of 3."""
    groups = (log_mean(log_weights[:3]) + log_mean(log_weights[3:])) / 2
    return log_mean(log_weights).mean(), groups.mean()


def miwae(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
    """-1/M sum_m log 1/K sum_k w_mk, M = 2, K = 3."""
    fit, divergence = log_weight_parts(model, x, y, mask, 6)
    _, groups = miwae_bounds(fit + KL_WEIGHT * divergence)
    return {"model": -groups}, weighted_terms(fit, divergence)


def piwae(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
    """The decoder has the bound of all weights, the encoder that of the groups."""
    fit, divergence = log_weight_parts(model, x, y, mask, 6)
    whole, groups = miwae_bounds(fit + KL_WEIGHT * divergence)
    return {"model": -whole, "encoder": -groups}, weighted_terms(fit, divergence)


def ciwae(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
    """-beta ELBO - (1 - beta) log 1/S sum_s w_s, beta = 0.3, S = 4."""
    fit, divergence = log_weight_parts(model, x, y, mask, 4)
    log_weights = fit + KL_WEIGHT * divergence
    bound = 0.3 * log_weights.mean() + (1 - 0.3) * log_mean(log_weights).mean()
    return {"model": -bound}, weighted_terms(fit, divergence)


# --- priors and flows -----------------------------------------------------------------------------


def vamp(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
    """log p(z) = log 1/K sum_k q(z|u_k), K = 4; the KL by the one draw."""
    mean, deviation = gaussian_posterior(model, x, y)
    z = drawn(mean, deviation)
    center, spread = model.observation_model.center, model.observation_model.spread
    inputs = center + spread * model.raw_pseudo_inputs
    features = model.encoder(scaled(model, inputs))
    if y is not None:  # shares of classes, learned for each pseudo-input
        shares = torch.softmax(model.raw_pseudo_conditions, 1)
        features = model.conditioning(torch.cat([features, shares], 1))
    head = model.posterior_head(features)
    log_prior = log_mean(
        torch.stack([log_normal(z, head.mean[k], head.stddev[k]) for k in range(4)])
    )
    fit = log_likelihood(model, x, z, y, mask).mean()
    kl = (log_normal(z, mean, deviation) - log_prior).mean()
    return {"model": -fit + KL_WEIGHT * kl}, {"reconstruction": -fit, "kl": kl}


def mixture(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
    """log p(z) = log sum_k pi_k N(z; mu_k, sigma_k^2), K = 3; the KL by the one draw."""
    mean, deviation = gaussian_posterior(model, x, y)
    z = drawn(mean, deviation)
    shares = torch.exp(model.component_logits) / torch.exp(model.component_logits).sum()
    deviations = torch.log1p(torch.exp(model.raw_deviations)) + 1e-5
    densities = [
        share * torch.exp(log_normal(z, center, width))
        for share, center, width in zip(shares, model.component_means, deviations, strict=True)
    ]
    fit = log_likelihood(model, x, z, y, mask).mean()
    kl = (log_normal(z, mean, deviation) - torch.log(sum(densities))).mean()
    return {"model": -fit + KL_WEIGHT * kl}, {"reconstruction": -fit, "kl": kl}


def flow_vae(flow: Any) -> Any:
    """log q(f(z_0)) = log q_0(z_0) - log |det df/dz_0|, the determinant by differentiation."""

    def equation(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
        features = encoded(model, x, y)
        head = model.posterior_head(features)
        start = drawn(head.mean, head.stddev)
        function, rows = flow(model, features)
        z = function(start, *rows)
        log_det = jacobians(function, start, *rows).det().abs().log()
        log_q = log_normal(start, head.mean, head.stddev) - log_det
        fit = log_likelihood(model, x, z, y, mask).mean()
        kl = (log_q - log_normal(z)).mean()
        return {"model": -fit + KL_WEIGHT * kl}, {"reconstruction": -fit, "kl": kl}

    return equation


def simple_flows(model: Any, features: Tensor) -> tuple[Any, list[Tensor]]:
    def function(z: Tensor) -> Tensor:
        for step in model.steps:
            z, _ = step(z)
        return z

    return function, []


def autoregressive_flows(model: Any, features: Tensor) -> tuple[Any, list[Tensor]]:
    def function(z: Tensor, context: Tensor) -> Tensor:
        for step in model.steps:
            z, _ = step(z, context)
        return z

    return function, [model.context_head(features)]


# --- total correlation, by minibatches ------------------------------------------------------------

TRAINING_SIZE = 40


def beta_tc_vae(weights: Tensor) -> Any:
    """-E log p(x|z) + w (1.5 information + 2.5 correlation + 0.6 coordinates).

    Args:
        weights: how much sample k counts for the density at z_i, ``(i, k)``.
    """

    def equation(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
        mean, deviation = gaussian_posterior(model, x, y)
        z = drawn(mean, deviation)
        # Densities of coordinate j of z_i under the posterior of x_k, (i, k, j).
        root = math.sqrt(2 * math.pi)
        densities = torch.exp(-0.5 * ((z[:, None] - mean) / deviation) ** 2) / (root * deviation)
        log_q_given = log_normal(z, mean, deviation)
        log_q = (weights * densities.prod(-1)).sum(1).log()
        log_product = (weights[..., None] * densities).sum(1).log().sum(-1)
        information = (log_q_given - log_q).mean()
        correlation = (log_q - log_product).mean()
        coordinates = (log_product - log_normal(z)).mean()
        fit = -log_likelihood(model, x, z, y, mask).mean()
        divergence = 1.5 * information + 2.5 * correlation + 0.6 * coordinates
        return {"model": fit + KL_WEIGHT * divergence}, {
            "reconstruction": fit,
            "mutual_information": information,
            "total_correlation": correlation,
            "coordinates_kl": coordinates,
        }

    return equation


def stratified_weights() -> Tensor:
    """Return the weights of Chen et al. (2018), appendix C.1, M = batch - 1.

    Of z_i, the own posterior has 1/N, one other (N - M) / (N M), and the rest 1/M.
    """
    size, others = TRAINING_SIZE, BATCH - 1
    weights = torch.full((BATCH, BATCH), 1 / others, dtype=torch.float64)
    for i in range(BATCH):
        weights[i, i] = 1 / size
        weights[i, (i + 1) % BATCH] = (size - others) / (size * others)
    return weights


def minibatch_weights() -> Tensor:
    """Return the weights of minibatch weighted sampling, 1 / (N batch)."""
    return torch.full((BATCH, BATCH), 1 / (TRAINING_SIZE * BATCH), dtype=torch.float64)


def note_size(model: Any) -> None:
    model.on_fit_start(TRAINING_SIZE)


# --- deterministic autoencoders -------------------------------------------------------------------


def ae(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
    """-log p(x|f(x))."""
    z = model.code_head(encoded(model, x, y))
    fit = -log_likelihood(model, x, z, y, mask).mean()
    return {"model": fit}, {"reconstruction": fit}


def rae(penalty: Any) -> Any:
    """-log p(x|f(x)) + beta/2 ||z||^2 + lambda penalty, beta = 0.4, lambda = 0.3."""

    def equation(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
        z = model.code_head(encoded(model, x, y))
        fit = -log_likelihood(model, x, z, y, mask).mean()
        size = (z**2).sum(1).mean() / 2
        total, terms = fit + 0.4 * size, {"reconstruction": fit, "embedding": size}
        if penalty is not None:
            terms["penalty"] = penalty(model, z, y)
            total = total + 0.3 * terms["penalty"]
        return {"model": total}, terms

    return equation


def squared_weights(model: Any, z: Tensor, y: Extra) -> Tensor:
    return sum((p**2).sum() for p in model.decoder.parameters())


def projected_jacobian(model: Any, z: Tensor, y: Extra) -> Tensor:
    """Return the mean of ||J^T v||^2, v ~ N(0, I), J the Jacobian of the decoder at a code."""
    matrices = jacobians(lambda code: decoder_output(model, code), z)
    projected = torch.einsum("boj,bo->bj", matrices, noise(*matrices.shape[:2]))
    return (projected**2).sum(1).mean()


def quantized(levels: int) -> Any:
    """-log p(x|z_q) + beta sum of ||z_e - sum of the codes so far||^2, beta = 0.4.

    The gradient of the reconstruction passes straight through to z_e. The grid has 2 places.
    """

    def equation(model: Any, x: Tensor, y: Extra, mask: Extra) -> tuple[Values, Values]:
        vectors = model.code_head(encoded(model, x, y)).reshape(BATCH, 3, 2)  # channels first
        codes, commitment = torch.zeros_like(vectors), torch.zeros(()).double()
        for level in range(levels):
            codebook = model.quantizer.codebooks[level].double()  # (codes, 3)
            left = (vectors - codes).detach()
            distances = ((left[:, None] - codebook[..., None]) ** 2).sum(2)  # (batch, codes, 2)
            codes = codes + codebook[distances.argmin(1)].mT
            commitment = commitment + ((vectors - codes) ** 2).sum()
        straight = (vectors + (codes - vectors).detach()).flatten(1)
        fit = -log_likelihood(model, x, straight, y, mask).mean()
        terms = {"reconstruction": fit, "commitment": commitment / BATCH}
        return {"model": fit + 0.4 * terms["commitment"]}, terms

    return equation


PER_FEATURE = {"likelihood": {"name": "gaussian", "scale": "per_feature"}}
IMAGES = {"input_shape": (8, 8)}
LIKELIHOOD = {"likelihood": ("observation_model.",)}
QUANTIZED = {"num_codes": 4, "grid": (2,), "commitment": 0.4}
TC = {"alpha": 1.5, "beta": 2.5, "gamma": 0.6}

CASES = {
    "VAE": Case(models.VAE, vae),
    "VAE masked": Case(models.VAE, vae, PER_FEATURE, masked=True),
    "VAE of images": Case(models.VAE, vae, input_shape=(2, 3, 3), masked=True),
    "VAE bernoulli": Case(models.VAE, vae, {"likelihood": "bernoulli"}, masked=True),
    "VAE of classes": Case(models.VAE, vae, {"conditions": 3}),
    "BetaVAE": Case(models.BetaVAE, beta_vae, {"beta": 2.5}),
    **{
        f"DisentangledBetaVAE epoch {epoch}": Case(
            models.DisentangledBetaVAE,
            capacity_vae,
            {"beta": 3.0, "capacity": 20.0, "warmup": 4},
            prepare=at_epoch(epoch),
        )
        for epoch in (0, 1, 3, 7, math.inf)
    },
    "CVAE": Case(models.CVAE, vae, {"conditions": 3}),
    "CVAE learned prior": Case(models.CVAE, cvae, {"conditions": (2,), "learned_prior": True}),
    "MSSSIMVAE": Case(
        models.MSSSIMVAE, distance_vae(ms_ssim), {"weight": 30.0}, LIKELIHOOD, **IMAGES
    ),
    "MSSSIMVAE l1 masked": Case(
        models.MSSSIMVAE,
        distance_vae(sum_of_absolutes),
        {"weight": 30.0, "distance": "l1"},
        LIKELIHOOD,
        masked=True,
    ),
    "IWAE": Case(models.IWAE, iwae, {"num_samples": 4}, masked=True),
    "IWAE of vectors": Case(models.IWAE, iwae, {"num_samples": 4, "conditions": (2,)}),
    "MIWAE": Case(models.MIWAE, miwae, {"num_samples": 3, "num_groups": 2}),
    "PIWAE": Case(
        models.PIWAE,
        piwae,
        {"num_samples": 3, "num_groups": 2},
        {"model": ("decoder.", "observation_model.")},
        rest="encoder",
    ),
    "CIWAE": Case(models.CIWAE, ciwae, {"num_samples": 4, "beta": 0.3}),
    "VAMP": Case(models.VAMP, vamp, {"num_pseudo_inputs": 4}),
    "VAMP of classes": Case(models.VAMP, vamp, {"num_pseudo_inputs": 4, "conditions": 3}),
    "MixtureVAE": Case(models.MixtureVAE, mixture, {"num_components": 3}, masked=True),
    "PlanarFlowVAE": Case(models.PlanarFlowVAE, flow_vae(simple_flows), {"flows": "PRP"}),
    "IAFVAE": Case(
        models.IAFVAE,
        flow_vae(autoregressive_flows),
        {"num_flows": 2, "hidden": [5], "context_dim": 2},
        masked=True,
    ),
    "BetaTCVAE stratified": Case(
        models.BetaTCVAE, beta_tc_vae(stratified_weights()), TC, prepare=note_size
    ),
    "BetaTCVAE weighted": Case(
        models.BetaTCVAE,
        beta_tc_vae(minibatch_weights()),
        {**TC, "estimator": "mws"},
        prepare=note_size,
    ),
    "AE": Case(models.AE, ae, masked=True),
    **{
        f"RAE {name}": Case(
            models.RAE,
            rae(penalty),
            {"regularization": name, "embedding_weight": 0.4, "weight": 0.3},
            prepare=lambda model: model.eval(),  # or spectral norms move at each pass
        )
        for name, penalty in {
            "l2": squared_weights,
            "gp": projected_jacobian,
            "sn": None,
            "none": None,
        }.items()
    },
    "VQVAE": Case(models.VQVAE, quantized(1), QUANTIZED, latent_dim=6),
    "HRQVAE": Case(models.HRQVAE, quantized(3), {**QUANTIZED, "num_levels": 3}, latent_dim=6),
    "HRQVAE masked, in eval mode": Case(
        models.HRQVAE,
        quantized(3),
        {**QUANTIZED, "num_levels": 3},
        latent_dim=6,
        masked=True,
        prepare=lambda model: model.eval(),
    ),
}
