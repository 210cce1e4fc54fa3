"""The models under contract: a new one joins every contract test by one line of `MODELS`."""

from functools import partial

import pytest
import torch
from sklearn.datasets import load_digits

from chartae.models import AE, HVAE, IWAE, RHVAE, VAE, BetaVAE, VariationalAutoencoder

SMALL = {"name": "mlp", "hidden": [16]}

MODELS = {
    "AE": (AE, {}),
    "VAE": (VAE, {}),
    "BetaVAE": (BetaVAE, {"beta": 2.5}),
    "IWAE": (IWAE, {"num_samples": 3}),
    "HVAE": (HVAE, {"num_leapfrog": 2, "step_size": 0.1, "sqrt_beta_0": 0.5}),
    "RHVAE": (
        RHVAE,
        {
            "num_leapfrog": 2,
            "step_size": 0.03,
            "sqrt_beta_0": 0.5,
            "regularization": 0.1,
            "temperature": 1.5,
            "metric_network": SMALL,
        },
    ),
    "RHVAE posterior": (
        RHVAE,
        {
            "geometry": "posterior",
            "num_leapfrog": 2,
            "step_size": 0.03,
            "sqrt_beta_0": 0.5,
            "regularization": 1.0,
            "rho": 1.5,
        },
    ),
}


def build(name, input_shape=(8, 8), latent_dim=2, *, seed=0, dtype=torch.float32, **changes):
    model_class, options = MODELS[name]
    arguments = {"encoder": SMALL, "decoder": SMALL, **options, **changes}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return model_class(input_shape, latent_dim, **arguments).to(dtype)


@pytest.fixture(params=MODELS)
def make(request):
    """A function that builds the model under test, small and seeded."""
    return partial(build, request.param)


@pytest.fixture(params=[n for n, (c, _) in MODELS.items() if issubclass(c, VariationalAutoencoder)])
def make_variational(request):
    """The same, for the models that have a posterior."""
    return partial(build, request.param)


@pytest.fixture(params=[n for n, (c, _) in MODELS.items() if issubclass(c, HVAE)])
def make_hamiltonian(request):
    """The same, for the models with a Hamiltonian flow."""
    return partial(build, request.param)


@pytest.fixture(scope="session")
def digits():
    """64 handwritten digits, (64, 8, 8) in [0, 1]."""
    return torch.tensor(load_digits().images[:64] / 16, dtype=torch.float32)
