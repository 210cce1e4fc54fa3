"""The two objectives of adversarial training: those of the discriminator and of the generator."""

from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["discriminator_loss", "generator_loss"]


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    r"""Return the mean cross-entropy of telling real from fake (Goodfellow et al., 2014).

    .. math:: -\frac12 E \log D(\text{real}) - \frac12 E \log(1 - D(\text{fake}))

    Both arguments are logits of D, ``(batch,)``.
    """
    return 0.5 * (softplus(-real).mean() + softplus(fake).mean())


def generator_loss(fake: Tensor) -> Tensor:
    r"""Return the mean :math:`-\log D(\text{fake})`, whose gradient does not fade when D is sure.

    Args:
        fake: logits of the discriminator D, ``(batch,)``.
    """
    return softplus(-fake).mean()
