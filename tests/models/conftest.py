"""The models under contract: a new one joins every contract test by one line of `MODELS`."""

from functools import partial

import pytest
import torch
from sklearn.datasets import load_digits

from chartae import models
from chartae.models import AE, HVAE, IWAE, RHVAE, VAE, BetaVAE, VariationalAutoencoder

SMALL = {"name": "mlp", "hidden": [16]}

MODELS = {
    "AE": (AE, {}),
    "VAE": (VAE, {}),
    "BetaVAE": (BetaVAE, {"beta": 2.5}),
    "DisentangledBetaVAE": (models.DisentangledBetaVAE, {"beta": 2.0, "capacity": 0.5}),
    "BetaTCVAE stratified": (models.BetaTCVAE, {"beta": 2.5}),
    "BetaTCVAE weighted": (models.BetaTCVAE, {"beta": 2.5, "estimator": "mws"}),
    "FactorVAE": (models.FactorVAE, {"gamma": 2.0, "discriminator": SMALL}),
    "IWAE": (IWAE, {"num_samples": 3}),
    "MIWAE": (models.MIWAE, {"num_samples": 3, "num_groups": 2}),
    "PIWAE": (models.PIWAE, {"num_samples": 3, "num_groups": 2}),
    "CIWAE": (models.CIWAE, {"num_samples": 3, "beta": 0.3}),
    "InfoVAE": (models.InfoVAE, {}),
    "WAE imq": (models.WAE, {}),
    "WAE rbf": (models.WAE, {"kernel": "rbf"}),
    "WAE gan": (models.WAE, {"regularization": "gan", "discriminator": SMALL}),
    "AAE": (models.AAE, {"discriminator": SMALL}),
    "AAE deterministic": (models.AAE, {"discriminator": SMALL, "stochastic": False}),
    "VAMP": (models.VAMP, {"num_pseudo_inputs": 5}),
    "MixtureVAE": (models.MixtureVAE, {"num_components": 3}),
    "PlanarFlowVAE": (models.PlanarFlowVAE, {"flows": "PRP"}),
    "IAFVAE": (models.IAFVAE, {"hidden": [8], "context_dim": 3}),
    "VAEGAN": (models.VAEGAN, {"discriminator": SMALL}),
    "MSSSIMVAE": (models.MSSSIMVAE, {"weight": 300.0}),
    "MSSSIMVAE l1": (models.MSSSIMVAE, {"distance": "l1", "weight": 1.0}),
    "VQVAE": (models.VQVAE, {"num_codes": 8, "grid": (1,)}),
    "HRQVAE": (models.HRQVAE, {"num_codes": 4, "num_levels": 3, "grid": (1,)}),
    "RAE l2": (models.RAE, {}),
    "RAE gp": (models.RAE, {"regularization": "gp"}),
    "RAE sn": (models.RAE, {"regularization": "sn"}),
    "RAE none": (models.RAE, {"regularization": "none"}),
    "SVAE": (models.SVAE, {}),
    "PoincareVAE": (models.PoincareVAE, {"curvature": 0.7}),
    "PoincareVAE riemannian": (models.PoincareVAE, {"posterior": "riemannian"}),
    "CVAE": (models.CVAE, {"conditions": 3}),
    "CVAE learned prior": (models.CVAE, {"conditions": (2,), "learned_prior": True}),
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
    if arguments.get("distance", "ms_ssim") == "ms_ssim" and name == "MSSSIMVAE":
        flat = isinstance(input_shape, tuple) and len(input_shape) == 1
        arguments["distance"] = "l2" if flat else "ms_ssim"  # which is for images only
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return model_class(input_shape, latent_dim, **arguments).to(dtype)


def least_latent_dim(make):
    """The smallest latent space of the model that ``make`` builds."""
    return 2 if make.args[0] == "SVAE" else 1


def conditions_of(model, count):
    """Conditions of ``count`` observations, all different as far as can be; or None."""
    if model.conditions is None:
        return None
    order = torch.arange(count)
    if isinstance(model.conditions, int):
        return order % model.conditions
    return torch.sin(order[:, None] + torch.arange(model.condition_dim)).to(model.dtype)


def batch_of(model, x):
    """What training hands to the model: x, and conditions if it has any."""
    y = conditions_of(model, len(x))
    return {"x": x} if y is None else {"x": x, "y": y}


def has_posterior(model):
    return isinstance(model, VariationalAutoencoder) and getattr(model, "stochastic", True)


@pytest.fixture(params=MODELS)
def make(request):
    """A function that builds the model under test, small and seeded."""
    return partial(build, request.param)


VARIATIONAL = [
    name
    for name, (model, options) in MODELS.items()
    if issubclass(model, VariationalAutoencoder) and options.get("stochastic", True)
]


@pytest.fixture(params=VARIATIONAL)
def make_variational(request):
    """The same, for the models that have a posterior."""
    return partial(build, request.param)


EUCLIDEAN = [name for name in VARIATIONAL if MODELS[name][0].latent_space == "euclidean"]
# Their posterior is a Gaussian of which a linear encoder gives mean and variance, their prior the
# standard normal.
GAUSSIAN = [n for n in EUCLIDEAN if n not in ("VAMP", "MixtureVAE", "PlanarFlowVAE", "IAFVAE")]
GAUSSIAN = [n for n in GAUSSIAN if not n.startswith("CVAE")]


@pytest.fixture(params=EUCLIDEAN)
def make_euclidean(request):
    """The same, for those whose latents are vectors."""
    return partial(build, request.param)


@pytest.fixture(params=GAUSSIAN)
def make_gaussian(request):
    """The same, for those with a Gaussian posterior, a standard normal prior and no conditions."""
    return partial(build, request.param)


@pytest.fixture(params=[n for n, (c, _) in MODELS.items() if issubclass(c, HVAE)])
def make_hamiltonian(request):
    """The same, for the models with a Hamiltonian flow."""
    return partial(build, request.param)


# Models that between them override each method of the base: no posterior, conditions, codes, a
# latent space with a shape of its own, a flow and a metric.
DISTINCT = ["AE", "CVAE learned prior", "VQVAE", "SVAE", "PoincareVAE", "RHVAE"]


def each_case_of(cases, names, *, fixture="make", models=MODELS):
    """Parametrise a fixture of models and the values of a case, a dictionary by id.

    Every case goes to the `DISTINCT` models, and the first case to all. It is for what the base
    class does by one line of its own: a model that escapes from it escapes from all cases.
    """
    first = next(iter(cases))
    pairs = [
        pytest.param(model, *values, id=f"{model}-{case}")
        for model in models
        for case, values in cases.items()
        if model in DISTINCT or case == first
    ]
    return pytest.mark.parametrize((fixture, *names), pairs, indirect=[fixture])


@pytest.fixture(scope="session")
def digits():
    """64 handwritten digits, (64, 8, 8) in [0, 1]."""
    return torch.tensor(load_digits().images[:64] / 16, dtype=torch.float32)
