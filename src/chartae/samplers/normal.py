"""Latents from the standard normal prior."""

from torch import Tensor

from chartae.distributions import DiagonalNormal
from chartae.models import Autoencoder
from chartae.samplers.base import Sampler, prior_of

__all__ = ["NormalSampler", "has_standard_prior"]


class NormalSampler(Sampler):
    """Draw z ~ N(0, I), the prior of a plain VAE; there is nothing to fit.

    Args:
        model: a trained model whose prior is N(0, I), or one that has none, such as an AE or WAE:
            how near its embeddings are to N(0, I) is then its own affair.

    Raises:
        ConfigurationError: for a model with another prior, or whose latents are no vectors.

    >>> import chartae
    >>> NormalSampler(chartae.VAE((8, 8), latent_dim=2)).sample(5, seed=0).shape
    torch.Size([5, 8, 8])
    """

    @classmethod
    def unsupported_reason(cls, model: Autoencoder) -> str | None:
        """Return what latents or which prior the model has, if they are not N(0, I)."""
        if reason := super().unsupported_reason(model):
            return reason
        return None if has_standard_prior(model) in (True, None) else "its prior is not N(0, I)"

    def draw_latents(self, n: int, seed: int, y: Tensor | None = None) -> Tensor:
        return self.noise((n, self.model.latent_dim), seed)


def has_standard_prior(model: Autoencoder) -> bool | None:
    """Return whether the prior of a model is N(0, I), whatever the conditions; None without one."""
    prior = prior_of(model)
    if prior is None:
        return None
    return (
        isinstance(prior, DiagonalNormal)
        and prior.batch_shape == ()
        and not bool(prior.mean.any())
        and bool((prior.stddev == 1.0).all())
    )
