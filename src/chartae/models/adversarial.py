"""The two objectives of adversarial training: those of the discriminator and of the generator."""

from torch import Tensor
from torch.nn.functional import softplus

from chartae.models.losses import Extra, average

__all__ = ["discriminator_loss", "generator_loss"]


def discriminator_loss(
    real: Tensor, fake: Tensor, *, real_weight: Extra = None, fake_weight: Extra = None
) -> Tensor:
    r"""Return the mean cross-entropy of telling real from fake (Goodfellow et al., 2014).

    .. math:: -\frac12 E \log D(\text{real}) - \frac12 E \log(1 - D(\text{fake}))

    Args:
        real: logits of D, ``(batch,)``.
        fake: likewise.
        real_weight: how much each counts, ``(batch,)``; None counts all alike.
        fake_weight: likewise.
    """
    return 0.5 * (average(softplus(-real), real_weight) + average(softplus(fake), fake_weight))


def generator_loss(fake: Tensor, weight: Extra = None) -> Tensor:
    r"""Return the mean :math:`-\log D(\text{fake})`, whose gradient does not fade when D is sure.

    Args:
        fake: logits of the discriminator D, ``(batch,)``.
        weight: how much each counts, ``(batch,)``; None counts all alike.
    """
    return average(softplus(-fake), weight)
