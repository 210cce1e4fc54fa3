"""Arguments out of range are refused before any work, by name."""

import pytest

from chartae import models
from chartae.errors import ConfigurationError


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("BetaVAE", {"beta": -1.0}, "beta=-1.0: expected a finite number at least 0"),
        ("DisentangledBetaVAE", {"capacity": -1.0}, "capacity=-1.0"),
        ("DisentangledBetaVAE", {"warmup": -1}, "warmup=-1: expected an integer at least 0"),
        ("BetaTCVAE", {"estimator": "msw"}, "estimator='msw' is not known.*mean 'mws'"),
        ("BetaTCVAE", {"gamma": float("nan")}, "gamma=nan: expected a finite number"),
        ("FactorVAE", {"gamma": -0.5}, "gamma=-0.5"),
        ("FactorVAE", {"discriminator": "mpl"}, "mpl' is not known.*mean 'mlp'"),
        ("MIWAE", {"num_groups": 0}, "num_groups=0: expected an integer at least 1"),
        ("CIWAE", {"beta": 1.5}, "beta=1.5: expected a finite number at least 0 and at most 1"),
        ("InfoVAE", {"alpha": 2.0}, "alpha=2.0: expected a finite number at most 1"),
        ("InfoVAE", {"kernel": "gauss"}, "kernel='gauss' is not known"),
        ("WAE", {"regularization": "mdd"}, "regularization='mdd' is not known.*mean 'mmd'"),
        ("WAE", {"bandwidth": 0.0}, "bandwidth=0.0: expected a finite number greater than 0"),
        ("AAE", {"weight": -1.0}, "weight=-1.0"),
        ("VAMP", {"num_pseudo_inputs": 0}, "num_pseudo_inputs=0"),
        ("MixtureVAE", {"num_components": 0}, "num_components=0: expected an integer at least 1"),
        ("PlanarFlowVAE", {"flows": "PXR"}, "flows='PXR': expected letters P .* and R"),
        ("PlanarFlowVAE", {"flows": ""}, "flows='': expected letters"),
        ("IAFVAE", {"num_flows": 0}, "num_flows=0"),
        ("IAFVAE", {"hidden": [16, 0]}, "hidden=0: expected an integer at least 1"),
        ("IAFVAE", {"hidden": 16}, "hidden=16: expected a sequence of integers"),
        ("VQVAE", {"grid": 4}, "grid=4: expected a sequence of integers"),
        ("IAFVAE", {"context_dim": -1}, "context_dim=-1"),
        ("PoincareVAE", {"curvature": 0.0}, "curvature=0.0: expected .* greater than 0"),
        ("PoincareVAE", {"posterior": "warped"}, "posterior='warped' is not known.*'wrapped'"),
        ("VAEGAN", {"adversarial_weight": 1.1}, "adversarial_weight=1.1"),
        ("MSSSIMVAE", {"weight": 0.0}, "weight=0.0"),
        ("RAE", {"regularization": "l1"}, "regularization='l1' is not known"),
        ("RAE", {"embedding_weight": -1.0}, "embedding_weight=-1.0"),
        ("HRQVAE", {"num_levels": 0}, "num_levels=0"),
    ],
)
def test_bad_arguments_are_refused(name, arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        getattr(models, name)((8, 8), 16, **arguments)
