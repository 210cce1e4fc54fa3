"""Whatever is handed over by mistake is refused by one clear sentence of ours."""

import contextlib
import math

import numpy as np
import pytest
import torch
from tests.models.conftest import SMALL
from torch import nn

from chartae import samplers
from chartae.errors import ConfigurationError, DataError
from chartae.models import AAE, AE, CVAE, RHVAE, VAE, VQVAE

NETWORKS = {"encoder": SMALL, "decoder": SMALL}
JUNK = {
    "none": None, "string": "abc", "negative": -1, "float": 2.5, "nan": math.nan, "list": [1, 2],
    "empty": [], "mapping": {}, "tensor": torch.ones(3), "class": dict, "array": np.array(["a"]),
    "set": {1, 2}, "complex": 1j, "nested": [[1, 2], [3]], "lambda": len,
}  # fmt: skip
every_junk = pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)


@every_junk
@pytest.mark.parametrize("name", ["encoder", "decoder", "likelihood"])
def test_networks_and_likelihoods_of_another_kind(name, junk):
    with pytest.raises(ConfigurationError, match=f"^{name}="):
        VAE((8, 8), 2, **{**NETWORKS, name: junk})


@every_junk
def test_bodies_of_another_kind(junk):
    with pytest.raises(ConfigurationError, match="encoder="):
        RHVAE((8, 8), 2, metric_network=junk, **NETWORKS)
    if junk is not None:
        with pytest.raises(ConfigurationError, match="encoder="):
            AAE((8, 8), 2, discriminator=junk, **NETWORKS)


def test_a_module_is_no_likelihood():
    with pytest.raises(
        ConfigurationError, match="likelihood=Linear.*expected a name, or a mapping"
    ):
        VAE((8, 8), 2, likelihood=nn.Linear(2, 2))


@every_junk
@pytest.mark.parametrize("name", ["conv", "resnet", "conv_map"])
def test_options_of_networks_of_another_kind(name, junk):
    for option in ("channels", "features", "blocks"):
        for part in ("encoder", "decoder"):
            spec = {"name": name, option: junk}
            with contextlib.suppress(ConfigurationError):  # and no other
                AE((1, 16, 16), 16, **{**NETWORKS, part: spec})


@every_junk
def test_switches_of_another_kind(junk):
    model = RHVAE((8, 8), 2, **NETWORKS)
    for make in (
        lambda: AAE((8, 8), 2, stochastic=junk, **NETWORKS),
        lambda: CVAE((8, 8), 2, conditions=2, learned_prior=junk, **NETWORKS),
        lambda: samplers.RandomWalkSampler(model, exact=junk),
    ):
        with pytest.raises(ConfigurationError, match="expected True or False"):
            make()


@pytest.mark.parametrize("shape", [torch.ones(2), "ab", {8}, 8, (), None], ids=str)
def test_shapes_of_another_kind(shape):
    with pytest.raises(ConfigurationError, match="input_shape="):
        VAE(shape, 2)


def test_sparse_tensors_are_told_to_be_dense():
    model, x = VAE((8, 8), 2, **NETWORKS), torch.rand(3, 8, 8)
    for call in (model.encode, model.elbo, samplers.MixtureSampler(model).fit):
        with pytest.raises(DataError, match=r"x is a sparse tensor: .* x.to_dense\(\)"):
            call(x.to_sparse())
    with pytest.raises(DataError, match="mask is a sparse tensor"):
        model.log_likelihood(x, mask=(x > 0.5).to_sparse())


def test_tensors_of_another_device_are_refused():
    model, x = VAE((8, 8), 2, conditions=2, **NETWORKS), torch.rand(3, 8, 8)
    y = torch.zeros(3, dtype=torch.int64)
    for call in (
        lambda: model.encode(x.to("meta"), y),
        lambda: model.elbo(x, y=y, mask=(x > 0.5).to("meta")),
        lambda: model.decode(torch.zeros(3, 2), y.to("meta")),
    ):
        with pytest.raises(DataError, match="is on meta: the model is on cpu; move one of them"):
            call()


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_codes_that_no_mixture_fits():
    model = AE((4,), 2, encoder=nn.Linear(4, 2), decoder=SMALL)
    with torch.no_grad():
        model.encoder.weight.mul_(1e13)
    with pytest.raises(DataError, match="no mixture fits the codes of x.*regularization=1e-06"):
        samplers.MixtureSampler(model, num_components=2).fit(torch.full((20, 4), 1e17))


@pytest.mark.parametrize("model_class", [VAE, VQVAE])
def test_data_of_another_kind_in_every_call(model_class):
    model = model_class((8, 8), 16, **NETWORKS)
    calls = [model.encode, model.reconstruct]
    calls += [model.codes] if model_class is VQVAE else [model.elbo, model.log_likelihood]
    for x in (
        torch.zeros(3, 8, 8, dtype=torch.bfloat16), torch.zeros(3, 8, 8, dtype=torch.complex64),
        np.zeros((3, 8, 8), object), np.zeros((3, 8, 8), "U1"), np.zeros((3, 8, 8), "M8[s]"),
        torch.zeros(8, 8), torch.zeros(0, 8, 8), "abc", {1: 2},
    ):  # fmt: skip
        for call in calls:
            with pytest.raises(DataError, match="^x "):
                call(x)
