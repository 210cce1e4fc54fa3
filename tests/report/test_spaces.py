"""Figures of latent spaces: what they draw is where it should be."""

import math

import numpy as np
import pytest
import torch

import chartae
from chartae.errors import ConfigurationError, DataError
from chartae.geometry import PoincareMetric, SphereMetric, distance
from chartae.report import latent_spaces, sampler_maps, sphere_and_disk

X = torch.rand(12, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3


def models():
    torch.manual_seed(0)
    shape = (4, 4)
    return {
        "normal": chartae.VAE(shape, 2).eval(),
        "disk": chartae.PoincareVAE(shape, 2, curvature=0.25).eval(),
        "sphere": chartae.SVAE(shape, 3).eval(),
    }


def points(axes):
    """Return all points of the scatter plots of a panel."""
    return np.concatenate([part.get_offsets() for part in axes.collections])


def test_each_space_has_the_codes_of_its_model_on_its_chart():
    spaces = models()
    normal, disk, sphere = latent_spaces(spaces, X, LABELS, class_names=("a", "b", "c")).axes
    order = np.concatenate([np.flatnonzero(k == LABELS) for k in range(3)])
    for axes, name in ((normal, "normal"), (disk, "disk")):
        codes = spaces[name].encode(X).detach().numpy()[order]
        np.testing.assert_allclose(points(axes), codes, atol=1e-6)
    assert disk.patches[0].get_radius() == pytest.approx(2.0)  # 1 / sqrt(0.25)
    longitude, latitude = points(sphere).T
    back = [
        np.cos(latitude) * np.cos(longitude),
        np.cos(latitude) * np.sin(longitude),
        np.sin(latitude),
    ]
    codes = spaces["sphere"].encode(X).detach().numpy()[order]
    np.testing.assert_allclose(np.stack(back, 1), codes, atol=1e-5)


def test_one_legend_names_the_classes():
    figure = latent_spaces(models(), X, LABELS, class_names=("a", "b", "c"))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.texts] == ["a", "b", "c"]
    assert all(axes.get_legend() is None for axes in figure.axes)
    assert latent_spaces(models(), X).legends == []


@pytest.mark.parametrize("titles", [["normal", "disk", "sphere"], ["normal"], ["sphere"]])
def test_nothing_of_a_figure_is_cut_off(titles, tmp_path):
    some = {title: model for title, model in models().items() if title in titles}
    figure = latent_spaces(some, X, torch.arange(12))
    figure.savefig(tmp_path / "figure.png")
    everything = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert everything.x0 >= 0
    assert everything.y0 >= 0
    assert everything.x1 <= width
    assert everything.y1 <= height


def test_sampler_maps_show_the_same_latents_as_the_samplers():
    model = chartae.VAE((4, 4), 2).eval()
    samplers = {
        "prior": chartae.NormalSampler(model),
        "mixture": chartae.MixtureSampler(model, num_components=2).fit(X),
    }
    figure = sampler_maps(samplers, X, LABELS, n=20, seed=3)
    codes = model.encode(X).detach().numpy()
    panels = dict(zip(samplers, figure.axes[1:], strict=True))
    for name, axes in panels.items():
        drawn = samplers[name].sample_latents(20, 3).numpy()
        np.testing.assert_allclose(points(axes), np.concatenate([codes, drawn]), atol=1e-6)
    assert {axes.get_xlim() for axes in figure.axes} == {figure.axes[0].get_xlim()}


@pytest.mark.parametrize("length", [0.5, 1.2])
def test_rays_have_the_length_and_paths_end_on_their_space(length):
    solid, flat = sphere_and_disk(rays=5, length=length).axes
    for axes, metric, place in (
        (solid, SphereMetric(2), SphereMetric(2).to_chart),
        (flat, PoincareMetric(2), lambda z: z),
    ):
        curves = axes.get_lines()
        assert len(curves) == 6
        data = [np.stack(c.get_data_3d() if axes is solid else c.get_data(), 1) for c in curves]
        ends = [place(torch.tensor(np.asarray(curve)[[0, -1]]).double()) for curve in data]
        for start, end in ends[:5]:
            assert distance(metric, start, end).item() == pytest.approx(length, abs=1e-3)
    assert math.hypot(*data[-1][-1]) < 1


def test_bad_input_is_refused():
    shape = (4, 4)
    with pytest.raises(ConfigurationError, match=r"models is empty"):
        latent_spaces({}, X)
    with pytest.raises(ConfigurationError, match=r"models\['big'\]: latent_dim=3: expected 2"):
        latent_spaces({"big": chartae.VAE(shape, 3)}, X)
    with pytest.raises(ConfigurationError, match="its latents are codes of a codebook"):
        latent_spaces({"codes": chartae.VQVAE(shape, 4, grid=(1,), num_codes=4)}, X)
    with pytest.raises(DataError, match="labels has shape"):
        latent_spaces(models(), X, LABELS[:3])
    with pytest.raises(ConfigurationError, match="samplers is empty"):
        sampler_maps({}, X)
    with pytest.raises(ConfigurationError, match="samplers are of several models"):
        sampler_maps({name: chartae.NormalSampler(chartae.VAE(shape, 2)) for name in "ab"}, X)
    with pytest.raises(ConfigurationError, match="rays=0"):
        sphere_and_disk(rays=0)
    with pytest.raises(ConfigurationError, match="length"):
        sphere_and_disk(length=0.0)
