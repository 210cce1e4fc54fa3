"""Latents from the standard normal prior."""

from torch import Tensor

from chartae.samplers.base import Sampler

__all__ = ["NormalSampler"]


class NormalSampler(Sampler):
    """Draw z ~ N(0, I), the prior of a plain VAE; there is nothing to fit.

    Args:
        model: a trained model.

    >>> import chartae
    >>> NormalSampler(chartae.VAE((8, 8), latent_dim=2)).sample(5, seed=0).shape
    torch.Size([5, 8, 8])
    """

    def draw_latents(self, n: int, seed: int) -> Tensor:
        return self.noise((n, self.model.latent_dim), seed)
