"""The metrics of a model's latent space, as maps and paths take them."""

import pytest
import torch

import chartae
from chartae.errors import ConfigurationError
from chartae.geometry import ConformalMetric, PoincareMetric, PosteriorMetric, PullbackMetric
from chartae.models.paths import natural_metrics

SHAPE = (2, 2)
X = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "options", "metric", "message"),
    [
        ("VAE", {}, "model", "VAE has no learned metric: expected posterior or pullback"),
        ("VAE", {}, "posterior", "needs the training data"),
        ("VAE", {}, "space", "the latents of VAE are not points of a sphere or a ball"),
        ("VAE", {"conditions": 2}, "pullback", "the decoder of this VAE depends on the class"),
        ("AE", {}, "posterior", "AE has no posterior: expected pullback"),
        ("SVAE", {}, "pullback", "are points of a sphere, .*: expected auto or space"),
        ("VAE", {}, "riemann", "metric='riemann' is not known"),
    ],
)
def test_a_metric_that_the_model_lacks_is_refused(name, options, metric, message):
    model = getattr(chartae, name)(SHAPE, 2, **options)
    with pytest.raises(ConfigurationError, match=message):
        natural_metrics(model, metric=metric)


def test_the_first_metric_that_a_model_has_is_chosen():
    learned = chartae.RHVAE(SHAPE, 2)
    learned.on_fit_end([{"x": X}])
    assert natural_metrics(learned) == (learned.metric, learned.metric)
    volume, paths = natural_metrics(chartae.VAE(SHAPE, 2), X)
    assert isinstance(volume, PosteriorMetric)
    assert isinstance(paths, ConformalMetric)
    volume, paths = natural_metrics(chartae.AE(SHAPE, 2))
    assert isinstance(volume, PullbackMetric)
    assert paths is volume
    assert natural_metrics(chartae.SVAE(SHAPE, 2)) == (None, None)
    volume, paths = natural_metrics(chartae.PoincareVAE(SHAPE, 2))
    assert isinstance(volume, PoincareMetric)
    assert paths is volume
