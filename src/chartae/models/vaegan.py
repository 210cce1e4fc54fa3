"""The variational autoencoder that reconstructs the features of a discriminator."""

import math
from typing import Annotated, Literal, Unpack

import torch
from torch import Tensor

from chartae.checks import NonNegative, Range, check_choice, check_integer, check_number
from chartae.distributions import kl_divergence
from chartae.models.adversarial import discriminator_loss, generator_loss
from chartae.models.distance import DistanceVAE, observed
from chartae.models.losses import Extra, Losses, average
from chartae.models.variational import GaussianNetworks
from chartae.nn import Discriminator, NetworkSpec

__all__ = ["VAEGAN"]

FLOOR = 1e-12
"""Of variances and weights: equal features, such as those of a dead unit, have no finite log."""


class VAEGAN(DistanceVAE):
    r"""VAE/GAN (Larsen et al., 2016): the distance is between features of a discriminator.

    .. math:: \Delta(x, \hat x) = \frac{1}{2 s^2} \| D_l(x) - D_l(\hat x) \|^2 + F \log s

    The encoder minimises :math:`\Delta + KL(q(z|x) \| p(z))`, the decoder minimises
    :math:`(1 - \alpha) \Delta + \alpha \mathcal L_{GAN}`, and the discriminator D learns to
    distinguish data from reconstructions and from decoded draws of the prior. :math:`D_l` is the
    output of layer l of D, which has F features.

    The scale s is that of a normal distribution of the features. By default it is fitted to each
    batch: :math:`s^2` is the mean squared difference of features (Rybkin et al., 2021). Features
    have no natural scale, and theirs changes while the discriminator learns. The paper and the
    thesis have s = 1. With few or small features the divergence then has too much weight, and the
    latents are not used.

    A discriminator that is always right has features that separate real from fake and little else.
    It is therefore not trained by a batch in which its cross-entropy is below log 2 - ``margin``,
    similar to Pythae's rule; log 2 is that of guessing.

    Use it for sharp image samples. Adversarial training takes many epochs and can be unstable. The
    features of the first convolution are better than those of later layers (docs/reproduction.md).
    The latents keep more of an image than those of a `VAE`, and are far from N(0, I): draw samples
    from a fitted sampler, such as a `MixtureSampler`. The best epoch is the one with the lowest
    reconstruction error of pixels.

    Args:
        adversarial_weight: :math:`\alpha` in [0, 1].
        discriminator: body of the discriminator, an encoder specification for ``input_shape``; it
            must be a Sequential if ``layer`` is given. None is ``"conv"`` for images and volumes,
            and ``"mlp"`` for vectors.
        layer: l, from 1. None is the first layer of a Sequential, and the whole of another body.
        feature_scale: s, a positive number, or ``"learned"``.
        margin: from 0 to log 2 = 0.69, where the discriminator is always trained.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.

    Raises:
        ConfigurationError: for a value out of range, or a layer that the discriminator lacks.
    """

    adversaries = ("decoder", "discriminator")
    monitored = "reconstruction"

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        adversarial_weight: Annotated[float, Range(minimum=0.0, maximum=1.0)] = 0.5,
        discriminator: NetworkSpec | None = None,
        layer: int | None = None,
        feature_scale: float | Literal["learned"] = "learned",
        margin: NonNegative = 0.35,
        **networks: Unpack[GaussianNetworks],
    ) -> None:
        super().__init__(input_shape, latent_dim, **networks)
        if isinstance(feature_scale, str):
            check_choice("feature_scale", feature_scale, ("learned",))
        else:
            check_number("feature_scale", feature_scale, above=0.0)
        self.adversarial_weight, self.feature_scale = adversarial_weight, feature_scale
        self.margin = margin
        if discriminator is None:
            discriminator = "mlp" if len(self.input_shape) == 1 else "conv"
        self.discriminator = Discriminator(discriminator, self.input_shape)
        if layer is not None:
            check_integer("layer", layer, minimum=1, maximum=max(1, self.discriminator.depth))
        first = 1 if self.discriminator.depth else None
        self.layer = first if layer is None else layer

    def distance(self, x: Tensor, mean: Tensor) -> Tensor:
        """Return half the squared distances between features of D, without s, ``(batch,)``."""
        return 0.5 * self._difference(x, mean).square().sum(1)

    def _difference(self, x: Tensor, mean: Tensor) -> Tensor:
        """Return the differences of features, ``(batch, F)``."""
        features = self.discriminator.features
        return (features(x, self.layer) - features(mean, self.layer)).flatten(1)

    def _fit(self, distances: Tensor, num_features: int, weight: Extra) -> Tensor:
        """Return the mean of Delta over a batch, from the distances without s."""
        if not isinstance(self.feature_scale, str):
            constant = num_features * math.log(self.feature_scale)
            return average(distances / self.feature_scale**2 + constant, weight)
        share = average(torch.ones_like(distances), weight)
        variance = 2.0 * average(distances, weight) / (num_features * share.clamp(min=FLOOR))
        return 0.5 * num_features * share * variance.clamp(min=FLOOR).log()

    def loss(
        self, x: Tensor, *, y: Extra = None, mask: Extra = None, weight: Extra = None
    ) -> Losses:
        """Return the objectives of the encoder, the decoder and the discriminator."""
        posterior = self.posterior(x, y, mask)
        observation = self.likelihood(posterior.rsample(), y)
        draw = self.likelihood(torch.randn_like(posterior.mean), y).mean
        scaled = map(self.observation_model.encoder_input, (x, observation.mean, draw))
        real, reconstruction, draw = observed(mask, *scaled)
        difference = self._difference(real, reconstruction)
        distances = 0.5 * difference.square().sum(1)
        fit = self._fit(distances, difference.shape[1], weight)
        kl = average(kl_divergence(posterior, self.prior(y)), weight)
        on_fakes = self.discriminator(torch.cat([reconstruction, draw]))
        # Draws from the prior have weight 1 each.
        fake_weight = None if weight is None else torch.cat([weight, torch.ones_like(weight)])
        deception = generator_loss(on_fakes, fake_weight)
        verdict = discriminator_loss(
            self.discriminator(real), on_fakes, real_weight=weight, fake_weight=fake_weight
        )
        learns = verdict > math.log(2.0) - self.margin
        alpha = self.adversarial_weight
        nll = -average(observation.log_prob(x, mask), weight)
        objectives = {
            "model": fit + self.kl_weight * kl,
            "decoder": (1.0 - alpha) * fit + alpha * deception,
            "discriminator": torch.where(learns, verdict, verdict.detach()),
            **self.calibration(nll),
        }
        terms = {"reconstruction": nll, "features": average(distances, weight), "kl": kl}
        return Losses(objectives, {**terms, "deception": deception})
