"""Small models to train: a VAE, a parabola whose steps can be computed by hand, two opponents."""

import pytest
import torch
from torch import nn

import chartae
from chartae.models import Autoencoder, Losses

SMALL = {"name": "mlp", "hidden": [8]}


class Parabola(Autoencoder):
    """Minimises p^2 for a parameter p, whatever the data; p starts at ``start``."""

    def __init__(self, input_shape=(3,), latent_dim=1, *, start=1.0):
        super().__init__(input_shape, latent_dim, encoder=SMALL, decoder=SMALL)
        self.start = start
        self.p = nn.Parameter(torch.tensor(start))

    def loss(self, x):
        return Losses.of(self.p.square() + 0.0 * x.sum(), p=self.p)

    def embed(self, x):
        return torch.zeros(len(x), self.latent_dim)

    def optimization_groups(self):
        return {"model": [self.p]}


class Duel(Parabola):
    """The model lowers p q, its opponent raises it."""

    def __init__(self, input_shape=(3,), latent_dim=1, *, start=1.0):
        super().__init__(input_shape, latent_dim, start=start)
        self.q = nn.Parameter(torch.tensor(2.0))

    def loss(self, x):
        product = self.p * self.q + 0.0 * x.sum()
        return Losses({"model": product, "opponent": -product}, {})

    def optimization_groups(self):
        return {"model": [self.p], "opponent": [self.q]}


@pytest.fixture
def parabola():
    return Parabola


@pytest.fixture
def duel():
    return Duel


@pytest.fixture
def make_vae():
    """A function that builds the same small model each time."""

    def build(name="VAE", seed=0, **options):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = getattr(chartae, name)
            return model((6,), 2, encoder=SMALL, decoder=SMALL, likelihood="bernoulli", **options)

    return build


@pytest.fixture
def data():
    """30 samples of 6 features in [0, 1]."""
    return torch.rand(30, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def fit():
    """`chartae.fit` on the CPU, silent, with seed 0."""

    def run(*arguments, **options):
        options = {"accelerator": "cpu", "progress": False, "seed": 0, **options}
        return chartae.fit(*arguments, **options)

    return run
