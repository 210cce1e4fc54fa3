"""Training conv and resnet VAEs on images of 3 x 32 x 32: a plain loop, chartae, Pythae.

All three have the very same networks, made by chartae, and a Gaussian likelihood of scale 1. The
plain loop has fused Adam and the better of two memory formats; it does nothing but train. chartae
is timed around the whole call of `fit`, Pythae by its epochs alone (`peer.train`).
"""

import copy
import math

import peer
import torch
from harness import Row, interleave, main
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import Tensor, nn

import chartae

SHAPE, LATENT_DIM, BATCH = (3, 32, 32), 16, 128
IMAGES = {"conv": 4096, "resnet": 1024}


def library_vae(network: str) -> chartae.VAE:
    return chartae.VAE(
        SHAPE,
        LATENT_DIM,
        encoder=network,
        decoder=network,
        likelihood={"name": "gaussian", "scale": 1.0},
    )


class PlainVAE(nn.Module):
    """The same model by hand, with copies of its networks."""

    def __init__(self, model: chartae.VAE) -> None:
        super().__init__()
        parts = (model.encoder, model.posterior_head.linear, model.decoder)
        self.encoder, self.head, self.decoder = map(copy.deepcopy, parts)

    def loss(self, x: Tensor) -> Tensor:
        loc, raw = self.head(self.encoder(x).flatten(1)).chunk(2, -1)
        scale = nn.functional.softplus(raw) + 1e-5
        mean = self.decoder(loc + scale * torch.randn_like(scale))
        error = 0.5 * (x - mean).square().sum() + 0.5 * x.numel() * math.log(2.0 * math.pi)
        kl = 0.5 * (loc.square() + scale.square() - 1.0 - 2.0 * scale.log()).sum()
        return (error + kl) / len(x)


def train(model: PlainVAE, x: Tensor, memory_format: torch.memory_format) -> None:
    model, x = model.to(memory_format=memory_format), x.contiguous(memory_format=memory_format)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    for index in torch.randperm(len(x)).split(BATCH):
        optimizer.zero_grad()
        model.loss(x[index]).backward()
        optimizer.step()


class PeerEncoder(BaseEncoder):  # type: ignore[misc]
    def __init__(self, model: chartae.VAE) -> None:
        super().__init__()
        self.body = copy.deepcopy(model.encoder)
        self.heads = nn.ModuleList(nn.Linear(model.num_features, LATENT_DIM) for _ in range(2))

    def forward(self, x: Tensor) -> ModelOutput:
        features = self.body(x).flatten(1)
        mean, log_covariance = (head(features) for head in self.heads)
        return ModelOutput(embedding=mean, log_covariance=log_covariance)


class PeerDecoder(BaseDecoder):  # type: ignore[misc]
    def __init__(self, model: chartae.VAE) -> None:
        super().__init__()
        self.body = copy.deepcopy(model.decoder)

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.body(z))


def pythae(model: chartae.VAE, x: Tensor) -> float:
    config = peer.VAEConfig(SHAPE, LATENT_DIM, reconstruction_loss="mse")
    theirs = peer.VAE(config, encoder=PeerEncoder(model), decoder=PeerDecoder(model))
    return peer.train(theirs, x, epochs=1, batch_size=BATCH, fused=True)


def rows(network: str, rounds: int) -> list[Row]:
    x = torch.rand(IMAGES[network], *SHAPE, generator=torch.Generator().manual_seed(0))
    model = library_vae(network)
    torch.manual_seed(1)
    ours = model.train().loss(x[:BATCH]).objectives["model"]
    torch.manual_seed(1)
    torch.testing.assert_close(PlainVAE(model).train().loss(x[:BATCH]), ours)

    def fit() -> None:
        mine = copy.deepcopy(model)
        chartae.fit(mine, x, epochs=1, batch_size=BATCH, seed=0, progress=False)

    contestants = {
        "contiguous": lambda: train(PlainVAE(model), x, torch.contiguous_format),
        "channels last": lambda: train(PlainVAE(model), x, torch.channels_last),
        "ours": fit,
        "pythae": lambda: pythae(model, x),
    }
    times = interleave(contestants, rounds)
    rate = {name: len(x) / times.median(name) for name in contestants}
    best = max(("contiguous", "channels last"), key=rate.__getitem__)
    what = f"{network} VAE, 3 x 32 x 32, batch {BATCH}: images/s"

    def row(name: str, against: str, reach: float) -> Row:
        detail = f"{rate['ours']:,.0f} against {rate[name]:,.0f} images/s"
        return Row(what, against, times.ratios(name, "ours"), reach, detail=detail)

    return [
        row(best, f"plain PyTorch loop, fused Adam, {best}", 0.95),
        row("pythae", "Pythae 0.1.2, the same networks, fused Adam", 1.5),
    ]


def measure(rounds: int) -> list[Row]:
    return [row for network in IMAGES for row in rows(network, rounds)]


if __name__ == "__main__":
    main(measure, rounds=3)
