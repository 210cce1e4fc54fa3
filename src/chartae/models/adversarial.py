"""The two objectives of adversarial training: the discriminator's and the generator's."""

from torch import Tensor
from torch.nn.functional import softplus

from chartae.models.losses import Extra, average

__all__ = ["discriminator_loss", "generator_loss"]


def discriminator_loss(
    real: Tensor, fake: Tensor, *, real_weight: Extra = None, fake_weight: Extra = None
) -> Tensor:
    r"""Return the mean cross-entropy of classifying real and fake (Goodfellow et al., 2014).

    .. math:: -\frac12 E \log D(\text{real}) - \frac12 E \log(1 - D(\text{fake}))

    Args:
        real: logits of D for real samples, ``(batch,)``.
        fake: logits of D for fake samples, ``(batch,)``.
        real_weight: how much each real sample counts, ``(batch,)``; None counts all equally.
        fake_weight: how much each fake sample counts, ``(batch,)``; None counts all equally.
    """
    return 0.5 * (average(softplus(-real), real_weight) + average(softplus(fake), fake_weight))


def generator_loss(fake: Tensor, weight: Extra = None) -> Tensor:
    r"""Return the mean :math:`-\log D(\text{fake})`; its gradient does not vanish near D = 0.

    Args:
        fake: logits of the discriminator D, ``(batch,)``.
        weight: how much each sample counts, ``(batch,)``; None counts all equally.
    """
    return average(softplus(-fake), weight)
