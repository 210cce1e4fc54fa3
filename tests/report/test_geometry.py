import math

import numpy as np
import pytest
import torch

from chartae.errors import ConfigurationError, DataError, DivergenceError
from chartae.geometry import (
    CentroidMetric,
    Chain,
    ConformalMetric,
    ConstantMetric,
    EuclideanMetric,
    PoincareMetric,
)
from chartae.report import (
    Chart,
    chain_traces,
    distance_field,
    exponential_fan,
    interpolation_figure,
)


def metric(d):
    return CentroidMetric(torch.randn(6, d), torch.eye(d).repeat(6, 1, 1), 0.8, 0.1)


def images(z):
    """Images of one grey, the first coordinate of the latent."""
    return z[:, :1, None].expand(-1, 3, 3)


def line(d, steps=11):
    return torch.linspace(0, 1, steps)[:, None].expand(-1, d)


def lines_of(axes):
    return [np.stack(curve.get_data(), -1) for curve in axes.lines]


class TestInterpolationFigure:
    def test_draws_curves_and_what_they_decode_to(self):
        curves = {"straight line": line(2), "geodesic": line(2) ** 2}
        figure = interpolation_figure(Chart(torch.randn(9, 2)), curves, images, columns=6)
        world, *strips = figure.axes
        for drawn, curve in zip(lines_of(world), curves.values(), strict=True):
            assert np.allclose(drawn, curve)
        assert [text.get_text() for text in world.get_legend().texts] == list(curves)
        assert [axes.get_title(loc="left") for axes in strips] == list(curves)
        for axes, curve in zip(strips, curves.values(), strict=True):
            sheet = axes.images[0].get_array()
            assert sheet.shape == (3, 6 * 3 + 5)
            assert np.allclose(sheet[0, ::4], curve[::2, 0])
            assert axes.images[0].get_clim() == (0.0, 1.0)

    def test_dots_mark_what_is_decoded(self):
        figure = interpolation_figure(
            Chart(torch.randn(9, 2)), {"line": line(2)}, images, columns=3
        )
        dots = [spots.get_offsets() for spots in figure.axes[0].collections]
        assert any(np.allclose(spots, line(2, 3)) for spots in dots if len(spots) == 3)

    def test_pairs_are_numbered(self):
        curve = torch.stack([line(2), -line(2)])
        figure = interpolation_figure(Chart(torch.randn(9, 2)), {"a": curve, "b": curve}, images)
        world, *strips = figure.axes
        assert [axes.get_title(loc="left") for axes in strips] == ["a 1", "b 1", "a 2", "b 2"]
        assert [text.get_text() for text in world.texts] == ["1", "2"]

    def test_projects_curves(self):
        codes = torch.randn(20, 5)
        figure = interpolation_figure(Chart(codes, metric=metric(5)), {"a": line(5)}, images)
        world = figure.axes[0]
        mean = codes.mean(0)
        flat = (line(5) - mean) @ torch.linalg.svd(codes - mean).Vh[:2].mT
        assert np.allclose(lines_of(world)[0], flat, atol=1e-5)
        assert "curves are projected" in world.get_title()
        figure.canvas.draw()

    def test_the_map_holds_the_curves(self):
        axes = interpolation_figure(Chart(torch.randn(9, 2)), {"a": 9 * line(2)}, images).axes[0]
        assert axes.get_xlim()[1] > 9

    def test_vectors_are_curves(self):
        figure = interpolation_figure(Chart(torch.randn(9, 2)), {"a": line(2)}, lambda z: z)
        assert len(figure.axes[1].lines) == 10
        figure.canvas.draw()

    @pytest.mark.parametrize(
        "curves",
        [
            {"a": line(3)},
            {"a": line(2)[0]},
            {"a": line(2) * math.nan},
            {"a": line(2), "b": line(2).expand(2, -1, -1)},
            {"a": torch.zeros(0, 2)},
        ],
    )
    def test_wrong_curves(self, curves):
        with pytest.raises(DataError, match="curves"):
            interpolation_figure(Chart(torch.randn(9, 2)), curves, images)

    def test_no_curves(self):
        with pytest.raises(ConfigurationError, match="curves"):
            interpolation_figure(Chart(torch.randn(9, 2)), {}, images)


def field_of(figure):
    """Return the distances of a figure, and the points where they are drawn."""
    image = figure.axes[0].images[0]
    values, (left, right, below, above) = image.get_array(), image.get_extent()
    rows, columns = values.shape
    x = left + (np.arange(columns) + 0.5) * (right - left) / columns
    y = below + (np.arange(rows) + 0.5) * (above - below) / rows
    return values.filled(np.nan), np.stack(np.meshgrid(x, y), -1)


CORNERS = torch.tensor([[-0.6, -0.6], [0.6, 0.6]], dtype=torch.float64)
SOURCE = torch.tensor([0.31, -0.17], dtype=torch.float64)


class TestDistanceField:
    def test_euclidean(self):
        chart = Chart(CORNERS, metric=EuclideanMetric(2).double())
        values, points = field_of(distance_field(chart, SOURCE, resolution=60))
        exact = np.linalg.norm(points - SOURCE.numpy(), axis=-1)
        assert (values >= exact - 1e-9).all()
        assert (values <= 1.006 * exact + 1e-9).all()

    def test_poincare(self):
        chart = Chart(CORNERS, metric=PoincareMetric(2))
        values, points = field_of(distance_field(chart, SOURCE))
        p, source = torch.as_tensor(points), SOURCE
        gap = 2 * (p - source).square().sum(-1)
        room = (1 - p.square().sum(-1)) * (1 - source.square().sum())
        inside = p.square().sum(-1) < 0.6
        exact = torch.acosh(1 + gap / room)[inside]
        assert np.allclose(values[inside], exact, rtol=0.01)

    def test_a_stretched_space(self):
        matrix = torch.tensor([[4.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
        chart = Chart(CORNERS, metric=ConstantMetric(matrix))
        values, points = field_of(distance_field(chart, SOURCE, resolution=60))
        exact = np.linalg.norm((points - SOURCE.numpy()) * [2.0, 1.0], axis=-1)
        assert (values >= exact - 1e-9).all()
        assert (values <= 1.022 * exact + 1e-9).all()

    def test_leaps_over_no_wall(self):
        wall = ConformalMetric(lambda z: 5.0 * torch.exp(-((z[:, 0] / 0.05) ** 2)), 2)
        values, points = field_of(distance_field(Chart(CORNERS, metric=wall), SOURCE))
        x = np.linspace(-0.5, 0.3, 2001)
        toll = np.trapezoid(np.exp(5.0 * np.exp(-((x / 0.05) ** 2))), x)
        beyond = values[points[..., 0] < -0.5].min()
        assert beyond == pytest.approx(toll, rel=0.03)

    def test_nothing_outside_of_the_metric(self):
        chart = Chart(1.4 * CORNERS, metric=PoincareMetric(2))
        values, points = field_of(distance_field(chart, SOURCE, resolution=40))
        assert np.array_equal(np.isnan(values), (points**2).sum(-1) >= 1.0)

    def test_measures_on_the_plane(self):
        codes = torch.randn(9, 4, dtype=torch.float64)
        figure = distance_field(
            Chart(codes, metric=EuclideanMetric(4).double()), codes[0], resolution=40
        )
        values, points = field_of(figure)
        star = figure.axes[0].lines[-1].get_xydata()[0]
        assert np.allclose(values, np.linalg.norm(points - star, axis=-1), rtol=0.01)
        assert "distances along paths on it" in figure.axes[0].get_title()

    def test_colours_end_where_nine_tenths_of_the_codes_are(self):
        codes = torch.randn(50, 2, dtype=torch.float64)
        figure = distance_field(Chart(codes, metric=EuclideanMetric(2).double()), SOURCE)
        reach = (codes - SOURCE).norm(dim=-1).quantile(0.9)
        assert figure.axes[0].images[0].get_clim()[1] == pytest.approx(float(reach), rel=0.1)

    def test_curves_over_it(self):
        chart = Chart(torch.randn(9, 2), metric=metric(2))
        figure = distance_field(chart, torch.zeros(2), curves={"a": line(2)}, resolution=20)
        assert np.allclose(lines_of(figure.axes[0])[0], line(2))
        assert figure.axes[0].get_legend() is not None

    @pytest.mark.parametrize("resolution", [2, 3, 5])
    def test_coarse_grids(self, resolution):
        chart = Chart(CORNERS, metric=EuclideanMetric(2).double())
        values, points = field_of(distance_field(chart, SOURCE, resolution=resolution))
        exact = np.linalg.norm(points - SOURCE.numpy(), axis=-1)
        assert np.allclose(values, exact, rtol=1e-6)

    def test_another_metric_than_the_charts(self):
        chart = Chart(CORNERS, metric=EuclideanMetric(2).double())
        twice = ConstantMetric(4 * torch.eye(2, dtype=torch.float64))
        one, _ = field_of(distance_field(chart, SOURCE, resolution=9))
        two, _ = field_of(distance_field(chart, SOURCE, metric=twice, resolution=9))
        assert np.allclose(two, 2 * one)

    def test_wrong_input(self):
        with pytest.raises(ConfigurationError, match="metric"):
            distance_field(Chart(CORNERS), SOURCE)
        chart = Chart(CORNERS, metric=PoincareMetric(2))
        for source in (SOURCE[:1], SOURCE * math.nan, 9 * SOURCE):
            with pytest.raises(DataError):
                distance_field(Chart(chart.codes, metric=chart.metric), source)


class TestExponentialFan:
    def test_shoots_geodesics(self):
        velocities = torch.tensor([[0.5, 0.0], [0.0, -1.0]])
        chart = Chart(CORNERS.float(), metric=PoincareMetric(2))
        axes = exponential_fan(chart, torch.zeros(2), velocities).axes[0]
        ends = [curve[-1] for curve in lines_of(axes)]
        assert np.allclose(ends, [[math.tanh(0.5), 0.0], [0.0, -math.tanh(1.0)]], atol=1e-3)

    def test_arrows_are_on_one_scale(self):
        velocities = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        chart = Chart(CORNERS.float(), metric=EuclideanMetric(2))
        axes = exponential_fan(chart, torch.zeros(3, 2), velocities).axes[0]
        assert len(axes.lines) == 6
        (arrows,) = [spots for spots in axes.collections if hasattr(spots, "U")]
        side = axes.get_xlim()[1] - axes.get_xlim()[0]
        assert np.allclose(arrows.U, np.tile([side / 8, 0.0], 3))
        assert np.allclose(arrows.V, np.tile([0.0, side / 16], 3))

    def test_velocities_of_each_point(self):
        chart = Chart(torch.randn(9, 3), metric=metric(3))
        start = torch.randn(2, 3)
        figure = exponential_fan(chart, start, torch.randn(2, 5, 3), metric=EuclideanMetric(3))
        assert len(figure.axes[0].lines) == 10
        assert "curves are projected" in figure.axes[0].get_title()
        figure.canvas.draw()

    def test_wrong_input(self):
        flat = Chart(CORNERS.float(), metric=EuclideanMetric(2))
        with pytest.raises(ConfigurationError, match="metric"):
            exponential_fan(Chart(CORNERS.float()), torch.zeros(2), torch.zeros(1, 2))
        for start, velocities in (
            (torch.zeros(3), torch.zeros(1, 2)),
            (torch.zeros(2), torch.zeros(2)),
            (torch.zeros(2, 2), torch.zeros(3, 1, 2)),
            (torch.zeros(2), torch.full((1, 2), math.nan)),
        ):
            with pytest.raises(DataError):
                exponential_fan(flat, start, velocities)
        ball = Chart(CORNERS.float(), metric=PoincareMetric(2))
        with pytest.raises(DivergenceError):
            exponential_fan(ball, torch.zeros(2), torch.tensor([[99.0, 0.0]]))


def chain_of(samples):
    chains = samples.shape[1]
    return Chain(samples, torch.ones(chains), torch.zeros(chains), 0.1)


class TestChainTraces:
    def test_a_panel_for_each_coordinate(self):
        chain = chain_of(torch.randn(30, 4, 2))
        figure = chain_traces(chain, max_chains=3)
        assert len(figure.axes) == 2
        for k, axes in enumerate(figure.axes):
            assert f"R-hat {chain.r_hat[k]:.2f}" in axes.get_title()
            assert f"size {chain.effective_sample_size[k]:.0f}" in axes.get_title()
            drawn = [curve.get_ydata() for curve in axes.lines]
            assert np.allclose(drawn, chain.samples[:, :3, k].T)

    def test_shows_the_coordinates_that_mix_worst(self):
        samples = torch.randn(50, 4, 6)
        samples[:, 0, [1, 4]] += 9.0
        titles = [a.get_title() for a in chain_traces(chain_of(samples), max_coordinates=2).axes]
        assert [title.split(":")[0] for title in titles] == ["$z_{2}$", "$z_{5}$"]

    @pytest.mark.parametrize("d", [2, 4])
    def test_paths_on_the_map(self, d):
        chain = chain_of(torch.randn(10, 2, d))
        figure = chain_traces(chain, Chart(torch.randn(9, d), metric=metric(d)))
        (world,) = [axes for axes in figure.axes if axes.images]
        assert len(world.lines) == 2
        if d == 2:
            assert np.allclose(lines_of(world), chain.samples.movedim(1, 0))
        figure.canvas.draw()

    def test_few_steps(self):
        figure = chain_traces(chain_of(torch.randn(2, 1, 2)))
        assert "R-hat nan" in figure.axes[0].get_title()
        figure.canvas.draw()

    def test_wrong_input(self):
        chain = chain_of(torch.randn(10, 2, 3))
        with pytest.raises(DataError, match="chain"):
            chain_traces(chain, Chart(torch.randn(9, 2)))
        with pytest.raises(ConfigurationError, match="max_chains"):
            chain_traces(chain, max_chains=0)
