"""The variational autoencoder that reconstructs the features of a discriminator."""

from typing import Annotated, Unpack

import torch
from torch import Tensor

from chartae.checks import Range, check_integer
from chartae.distributions import kl_divergence
from chartae.models.adversarial import discriminator_loss, generator_loss
from chartae.models.distance import DistanceVAE, observed
from chartae.models.losses import Extra, Losses, average
from chartae.models.variational import GaussianNetworks
from chartae.nn import Discriminator, NetworkSpec

__all__ = ["VAEGAN"]


class VAEGAN(DistanceVAE):
    r"""VAE/GAN (Larsen et al., 2016): the distance is between features of a discriminator.

    .. math:: \Delta(x, \hat x) = \tfrac12 \| D_l(x) - D_l(\hat x) \|^2

    The encoder minimises :math:`\Delta + KL(q(z|x) \| p(z))`, the decoder minimises
    :math:`(1 - \alpha) \Delta + \alpha \mathcal L_{GAN}`, and the discriminator D learns to
    distinguish data from reconstructions and from decoded draws of the prior. :math:`D_l` is the
    output of layer l of D.

    Use it for sharp image samples, with convolutional networks. Adversarial training takes many
    epochs and can be unstable. Use a discriminator with batch normalisation
    (``"thesis/discriminator"``): without it the features grow as the discriminator becomes
    confident. The best epoch is the one with the lowest reconstruction error of pixels.

    Args:
        adversarial_weight: :math:`\alpha` in [0, 1].
        discriminator: body of the discriminator, an encoder specification for ``input_shape``; it
            must be a Sequential if ``layer`` is given.
        layer: l, from 1; None takes the last layer before the logit.
        networks: ``input_shape``, ``latent_dim`` and the other arguments of `Autoencoder`.
    """

    adversaries = ("decoder", "discriminator")
    monitored = "reconstruction"

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int,
        *,
        adversarial_weight: Annotated[float, Range(minimum=0.0, maximum=1.0)] = 0.5,
        discriminator: NetworkSpec = "mlp",
        layer: int | None = None,
        **networks: Unpack[GaussianNetworks],
    ) -> None:
        super().__init__(input_shape, latent_dim, **networks)
        self.adversarial_weight, self.layer = adversarial_weight, layer
        self.discriminator = Discriminator(discriminator, self.input_shape)
        if layer is not None:
            check_integer("layer", layer, minimum=1, maximum=max(1, self.discriminator.depth))

    def distance(self, x: Tensor, mean: Tensor) -> Tensor:
        """Return the distances between features of the discriminator, ``(batch,)``."""
        features = self.discriminator.features
        difference = features(x, self.layer) - features(mean, self.layer)
        return 0.5 * difference.square().flatten(1).sum(1)

    def loss(
        self, x: Tensor, *, y: Extra = None, mask: Extra = None, weight: Extra = None
    ) -> Losses:
        """Return the objectives of the encoder, the decoder and the discriminator."""
        posterior = self.posterior(x, y, mask)
        observation = self.likelihood(posterior.rsample(), y)
        draw = self.likelihood(torch.randn_like(posterior.mean), y).mean
        scaled = map(self.observation_model.encoder_input, (x, observation.mean, draw))
        real, reconstruction, draw = observed(mask, *scaled)
        distance = average(self.distance(real, reconstruction), weight)
        kl = average(kl_divergence(posterior, self.prior(y)), weight)
        on_fakes = self.discriminator(torch.cat([reconstruction, draw]))
        # Draws from the prior have weight 1 each.
        fake_weight = None if weight is None else torch.cat([weight, torch.ones_like(weight)])
        deception = generator_loss(on_fakes, fake_weight)
        alpha = self.adversarial_weight
        nll = -average(observation.log_prob(x, mask), weight)
        objectives = {
            "model": distance + self.kl_weight * kl,
            "decoder": (1.0 - alpha) * distance + alpha * deception,
            "discriminator": discriminator_loss(
                self.discriminator(real), on_fakes, real_weight=weight, fake_weight=fake_weight
            ),
            **self.calibration(nll),
        }
        terms = {"reconstruction": nll, "features": distance, "kl": kl, "deception": deception}
        return Losses(objectives, terms)
