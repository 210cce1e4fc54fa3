"""Networks that compute maps again in the backward pass: the same gradients from less memory."""

import pytest
import torch

import chartae
from chartae.errors import ConfigurationError
from chartae.nn import build_decoder, build_encoder

SHAPE = (1, 9, 8, 7)
SMALL = {"channels": [4, 6, 8], "features": 5}
MIRROR = {"channels": [8, 6, 4], "features": 5}
NAMES = [("conv", {}), ("conv3d", {}), ("resnet", {}), ("resnet", {"blocks": 2})]


def gradients(model, x):
    torch.manual_seed(1)
    sum(model.loss(x).objectives.values()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("name", "options"), NAMES, ids=str)
@pytest.mark.parametrize("kind", ["VAE", "RHVAE", "AE"])
def test_gradients_are_equal(kind, name, options):
    """RHVAE differentiates the decoder twice."""
    found = []
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    for recompute in (False, True):
        torch.manual_seed(0)
        networks = {
            "encoder": {"name": name, **SMALL, **options, "recompute": recompute},
            "decoder": {"name": name, **MIRROR, **options, "recompute": recompute},
        }
        if kind == "RHVAE":
            networks["metric_network"] = networks["encoder"]
        model = getattr(chartae, kind)(SHAPE, 2, **networks)
        model.train()
        found.append(gradients(model, x))
    plain, again = found
    assert plain.keys() == again.keys()
    assert any(name.startswith("decoder") and grad.any() for name, grad in plain.items())
    for parameter, grad in plain.items():
        torch.testing.assert_close(again[parameter], grad, rtol=0, atol=0)


def kept(network, x):
    """The number of values that a forward pass keeps for the backward pass."""
    sizes = []

    def pack(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(x).sum()
    return sum(sizes)


@pytest.mark.parametrize("training", [True, False])
def test_less_is_kept_in_training(training):
    networks = [
        build_decoder({"name": "resnet", **MIRROR, "recompute": recompute}, 2, (1, 32, 32, 32))
        for recompute in (False, True)
    ]
    plain, again = (kept(network.train(training), torch.randn(2, 2)) for network in networks)
    assert (again < 0.25 * plain) if training else (again == plain)


def test_weights_are_those_of_the_plain_network(tmp_path):
    plain, again = (
        build_encoder({"name": "conv3d", **SMALL, "recompute": recompute}, SHAPE)
        for recompute in (False, True)
    )
    again.load_state_dict(plain.state_dict())
    x = torch.randn(2, *SHAPE)
    assert torch.equal(plain(x), again(x))
    spec = {"name": "conv3d", **SMALL, "recompute": True}
    model = chartae.VAE(SHAPE, 2, encoder=spec).eval()
    model.save_pretrained(tmp_path)
    assert torch.equal(chartae.load(tmp_path).encode(x), model.encode(x))


def test_a_trained_decoder_has_a_pullback_metric():
    """Forward-mode derivatives pass through the network."""
    spec = {"name": "conv3d", **MIRROR, "recompute": True}
    model = chartae.AE(SHAPE, 2, decoder=spec).eval()
    metric = chartae.geometry.PullbackMetric(model.decode, 2)
    jacobian = torch.func.jacfwd(lambda z: model.decode(z[None])[0].flatten())(torch.zeros(2))
    torch.testing.assert_close(metric.tensor(torch.zeros(2)), jacobian.mT @ jacobian)


def test_recompute_is_true_or_false():
    with pytest.raises(ConfigurationError, match="recompute='yes': expected True or False"):
        build_encoder({"name": "conv3d", "recompute": "yes"}, SHAPE)
