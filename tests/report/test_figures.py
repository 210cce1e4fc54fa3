import numpy as np
import pytest
import torch

from chartae.augmentation import REAL, StudyResult, TrainingSet
from chartae.errors import ConfigurationError, DataError
from chartae.geometry import CentroidMetric
from chartae.report import (
    Chart,
    image_grid,
    latent_map,
    latent_maps,
    one_row_per_class,
    scaling_plot,
    score_plot,
    training_curves,
)
from chartae.training import History

random = np.random.default_rng(0)


def metric(d):
    return CentroidMetric(torch.randn(6, d), torch.eye(d).repeat(6, 1, 1), 0.8, 0.1)


class TestImageGrid:
    @pytest.mark.parametrize("shape", [(5, 4), (1, 5, 4)])
    def test_grey_images_stand_row_by_row(self, shape):
        x = random.random((7, *shape))
        (axes,) = image_grid({"real": x}, columns=3).axes
        sheet = axes.images[0].get_array().filled(np.nan)
        assert sheet.shape == (3 * 5 + 2, 3 * 4 + 2)
        assert np.array_equal(sheet[:5, :4], x[0].reshape(5, 4))
        assert np.array_equal(sheet[6:11, 5:9], x[4].reshape(5, 4))
        assert np.isnan(sheet[12:, 5:]).all()

    def test_colour_images(self):
        x = random.random((2, 3, 5, 4))
        (axes,) = image_grid({"real": x}).axes
        sheet = axes.images[0].get_array()
        assert sheet.shape == (5, 9, 4)
        assert np.allclose(sheet[:, :4, :3], np.moveaxis(x[0], 0, -1))
        assert (sheet[:, 4, 3] == 0).all()

    @pytest.mark.parametrize("shape", [(3, 4, 4), (3, 3, 4, 4)])
    def test_contrast_is_never_made_up(self, shape):
        """Values in [0, 1] are drawn on that scale, others on their own, alike in all groups."""
        dull = 0.33 + 0.26 * random.random(shape)
        (axes,) = image_grid({"dull": dull}).axes
        drawn = axes.images[0]
        if len(shape) == 3:
            assert drawn.get_clim() == (0.0, 1.0)
        else:
            assert drawn.get_array()[:4, :4, :3].min() >= 0.33
            assert drawn.get_array()[:4, :4, :3].max() <= 0.59
        outlying = np.concatenate([dull, dull, dull])
        outlying.flat[:2] = -0.4, 1.7  # as a decoder or noise may have them
        (axes,) = image_grid({"outlying": outlying}).axes
        drawn = axes.images[0]
        assert drawn.get_clim() == (0.0, 1.0) or 0.33 <= drawn.get_array()[1, 1, 0] <= 0.59
        first, second = image_grid({"dull": dull, "wide": 10 * dull - 3}).axes
        if len(shape) == 3:
            assert first.images[0].get_clim() == second.images[0].get_clim()
            assert second.images[0].get_clim()[1] > 2
        else:
            alpha = second.images[0].get_array()[..., 3]
            assert set(np.unique(alpha)) == {0.0, 1.0}

    def test_volumes_show_their_middle(self):
        x = random.random((1, 1, 5, 4, 4))
        (axes,) = image_grid({"real": x}).axes
        assert np.array_equal(axes.images[0].get_array(), x[0, 0, 2])

    def test_vectors_are_curves(self):
        (axes,) = image_grid({"real": random.random((7, 12))}).axes
        assert len(axes.lines) == 7

    @pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 10])
    def test_one_panel_per_group_on_one_scale(self, count):
        groups = {str(k): k + random.random((4, 3, 3)) for k in range(count)}
        figure = image_grid(groups)
        assert [axes.get_title() for axes in figure.axes] == list(groups)
        assert len({axes.images[0].get_clim() for axes in figure.axes}) == 1

    def test_constant_images(self):
        image_grid({"real": np.zeros((2, 3, 4, 4))}).canvas.draw()
        image_grid({"real": np.zeros((2, 4))}).canvas.draw()

    @pytest.mark.parametrize(
        "groups",
        [{}, {"a": np.zeros((0, 4, 4))}, {"a": np.zeros((2, 4)), "b": np.zeros((2, 5))}],
    )
    def test_wrong_groups(self, groups):
        with pytest.raises(DataError, match="group"):
            image_grid(groups)


def test_one_row_per_class_fills_up_with_nothing():
    x = np.arange(3.0)[:, None]
    rows = one_row_per_class(x, [1, 0, 1], columns=2)
    assert np.array_equal(rows.ravel(), [1, np.nan, 0, 2], equal_nan=True)


class TestLatentMap:
    @pytest.mark.parametrize("d", [2, 5])
    def test_grey_is_the_log_volume(self, d):
        codes, shown = torch.randn(20, d), metric(d)
        axes = latent_map(codes, metric=shown, resolution=9).axes[0]
        values, extent = axes.images[0].get_array(), axes.images[0].get_extent()
        step = (extent[1] - extent[0]) / 9
        flat = torch.tensor([extent[0] + 2.5 * step, extent[2] + 6.5 * step])
        if d > 2:
            mean = codes.mean(0)
            flat = mean + flat @ torch.linalg.svd(codes - mean).Vh[:2]
        assert values[6, 2] == pytest.approx(float(shown.log_volume(flat)), abs=1e-4)

    @pytest.mark.parametrize("d", [2, 5])
    def test_codes_are_their_projections(self, d):
        codes = torch.randn(20, d)
        points = latent_map(codes).axes[0].collections[0].get_offsets()
        if d == 2:
            assert np.allclose(points, codes)
        else:
            spread = torch.linalg.svdvals(codes - codes.mean(0))[:2] ** 2
            assert np.allclose((points**2).sum(0), spread, rtol=1e-4)

    def test_one_colour_per_class(self):
        labels = [0, 1, 2, 0, 1, 2]
        axes = latent_map(torch.randn(6, 2), labels, class_names=("a", "b", "c")).axes[0]
        assert len(axes.collections) == 3
        assert [text.get_text() for text in axes.get_legend().texts] == ["a", "b", "c"]

    def test_many_classes(self):
        latent_map(torch.randn(30, 2), range(30)).canvas.draw()

    def test_codes_at_one_point(self):
        latent_map(torch.ones(4, 3), metric=metric(3), resolution=3).canvas.draw()

    def test_maps_share_their_grey_scale(self):
        charts = {
            str(k): Chart(torch.randn(5, 3), metric=metric(3), samples=torch.randn(9, 3))
            for k in range(3)
        }
        *panels, bar = latent_maps(charts, resolution=5).axes
        assert [axes.get_title() for axes in panels] == list(charts)
        assert len({axes.images[0].get_clim() for axes in panels}) == 1
        assert "log-volume" in bar.get_ylabel()

    @pytest.mark.parametrize(
        ("codes", "options"),
        [
            (torch.randn(5), {}),
            (torch.randn(5, 1), {}),
            (torch.randn(1, 2), {}),
            (torch.full((3, 2), torch.nan), {}),
            (torch.randn(5, 2), {"labels": [0, 1]}),
            (torch.randn(5, 2), {"samples": torch.randn(5, 3)}),
        ],
    )
    def test_wrong_data(self, codes, options):
        with pytest.raises(DataError):
            latent_map(codes, **options)


def test_training_curves_have_a_panel_for_each_term():
    terms = {"loss": [3.0, 2.0, 1.0], "kl": [0.0, 1.0, 1.0]}
    first = History(train=terms, validation=terms, seconds=[1.0] * 3, best_epoch=2)
    second = History(train=terms, seconds=[1.0] * 3)
    figure = training_curves({"a": first, "b": second})
    assert [axes.get_title() for axes in figure.axes] == ["loss", "kl"]
    assert list(figure.axes[0].lines[0].get_ydata()) == terms["loss"]
    assert list(figure.axes[0].lines[0].get_xdata()) == [1, 2, 3]
    assert all(tick == round(tick) for tick in figure.axes[0].get_xticks())
    with pytest.raises(ConfigurationError):
        training_curves({"a": History()})


@pytest.mark.parametrize("repeats", [1, 4])
def test_score_plot_has_a_panel_for_each_classifier(repeats):
    sets = (REAL, TrainingSet("real + synthetic", "m"), TrainingSet("synthetic only", "m"))
    accuracy = random.random((3, 3, repeats))
    names = ("LR", "MLP", "k-NN")
    study = StudyResult(sets, names, {"test": {"accuracy": accuracy}}, {}, {"metric": "accuracy"})
    figure = score_plot(study)
    assert [axes.get_title() for axes in figure.axes] == list(names)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["m"]
    figure.canvas.draw()


def test_scaling_plot_has_a_line_of_means_for_each_training_set():
    sets = (REAL, TrainingSet("real + synthetic", "m", "x3"), TrainingSet("synthetic only", "m"))
    studies = {
        size: StudyResult(
            *(sets, ("LR", "k-NN"), {"test": {"accuracy": random.random((3, 2, 4))}}, {}),
            {"metric": "accuracy"},
        )
        for size in (50, 20)
    }
    figure = scaling_plot(studies)
    assert [axes.get_title() for axes in figure.axes] == ["LR", "k-NN"]
    lines = [container.lines[0] for container in figure.axes[1].containers]
    for row, line in enumerate(lines):
        assert list(line.get_xdata()) == [20, 50]
        expected = [100 * studies[size].mean[row, 1] for size in (20, 50)]
        assert list(line.get_ydata()) == pytest.approx(expected)
    assert [line.get_linestyle() for line in lines] == ["-", "-", "--"]
    figure.canvas.draw()
