"""Plain PyTorch, as tight as it gets: the VAE 784-400-16 written out, the mathematics alone."""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

import chartae

__all__ = [
    "FEATURES",
    "LATENT_DIM",
    "PlainVAE",
    "binary_data",
    "check_same_mathematics",
    "library_vae",
    "train",
]

FEATURES, LATENT_DIM = 784, 16


def binary_data(n: int, seed: int = 0) -> Tensor:
    """Return ``n`` binary vectors with some structure, so that losses move: ``(n, 784)``."""
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(n, 8, generator=generator) @ torch.randn(8, FEATURES, generator=generator)
    noise = torch.randn(n, FEATURES, generator=generator)
    return (factors + noise > 2.0).float()


def library_vae() -> chartae.VAE:
    """Return the model in chartae: the thesis' networks for MNIST, a Bernoulli likelihood."""
    return chartae.VAE(
        (FEATURES,),
        LATENT_DIM,
        encoder="thesis/mnist",
        decoder="thesis/mnist",
        likelihood="bernoulli",
    )


class PlainVAE(nn.Module):
    """The same model by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(FEATURES, 400), nn.ReLU(), nn.Linear(400, 2 * LATENT_DIM)
        )
        self.decoder = nn.Sequential(
            nn.Linear(LATENT_DIM, 400), nn.ReLU(), nn.Linear(400, FEATURES)
        )

    def copy_weights_of(self, model: chartae.VAE) -> "PlainVAE":
        """Take the weights of the library's model, and return self."""
        source = [*model.encoder.parameters(), *model.posterior_head.parameters()]
        source += model.decoder.parameters()
        with torch.no_grad():
            for mine, its in zip(self.parameters(), source, strict=True):
                mine.copy_(its)
        return self

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        loc, raw = self.encoder(x).chunk(2, -1)
        return loc, softplus(raw) + 1e-5

    def loss(self, x: Tensor) -> Tensor:
        loc, scale = self.encode(x)
        logits = self.decoder(loc + scale * torch.randn_like(scale))
        reconstruction = binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = 0.5 * (loc.square() + scale.square() - 1.0 - 2.0 * scale.log()).sum()
        return (reconstruction + kl) / len(x)


def train(model: PlainVAE, x: Tensor, *, epochs: int, batch_size: int) -> None:
    """Fused Adam, batches indexed from the tensor, no record, no best weights, no checks."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    for _ in range(epochs):
        order = [slice(None)]  # a set that is one batch needs no other
        if batch_size < len(x):
            order = torch.randperm(len(x), device=x.device).split(batch_size)
        for index in order:
            optimizer.zero_grad()
            model.loss(x[index]).backward()
            optimizer.step()


def check_same_mathematics(x: Tensor) -> None:
    """Raise unless the plain model's loss is the library's, weights and noise being equal."""
    model = library_vae()
    plain = PlainVAE().copy_weights_of(model)
    torch.manual_seed(1)
    ours = model.loss(x).objectives["model"]
    torch.manual_seed(1)
    torch.testing.assert_close(plain.loss(x), ours)
