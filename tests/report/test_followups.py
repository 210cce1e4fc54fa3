"""Figures of follow-ups show the data that they are given."""

import math
import re

import numpy as np
import pytest
import torch
from torch import Tensor

from chartae.data import Form, Sequences
from chartae.errors import ConfigurationError, DataError
from chartae.evaluation import Calibration
from chartae.longitudinal import SEQUENCE_MODELS, Draws, FlowVAE, SequenceModel, TrajectoryVAE
from chartae.report import (
    HiddenPart,
    calibration_plot,
    filmstrips,
    latent_courses,
    pace_strips,
    score_fits,
    write_followup_report,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def people(*shape: int, individuals: int = 5, visits: int = 4, **options: object) -> Sequences:
    x = torch.rand(individuals, visits, *shape, generator=rng())
    return Sequences(x, times=torch.arange(float(visits)) * 1.5, **options)  # type: ignore[arg-type]


def draws(values: Tensor, times: Tensor) -> Draws:
    return Draws(values, times, torch.zeros(values.shape[:2]), "best", Form(values.dtype))


def untrained(data: Sequences, kind: type[SequenceModel] = FlowVAE) -> SequenceModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(data.input_shape, latent_dim=3).eval()
    model.set_units([data.tensors])
    return model


class TestPaceStrips:
    @pytest.mark.parametrize("shape", [(5, 4), (1, 5, 4), (3, 5, 4), (1, 3, 5, 4)])
    def test_show_an_individual_with_other_delays_and_speeds(self, shape: tuple[int, ...]) -> None:
        data = people(*shape).first(3)
        model = untrained(data, TrajectoryVAE)
        assert isinstance(model, TrajectoryVAE)
        figure = pace_strips(model, data, individual=2, steps=3)
        sheets = [np.ma.filled(axes.images[0].get_array(), np.nan) for axes in figure.axes]
        assert len(sheets) == 2 * (1 + 3)
        names = [axes.get_ylabel() for axes in figure.axes]
        spread, delay = model.pace_scales()
        assert names[1:4] == [f"{-2 * delay:+.3g}", "+0", f"{2 * delay:+.3g}"]
        assert names[5:] == [f"× {math.exp(2 * place * spread):.3g}" for place in (-1, 0, 1)]
        # The two middle strips are the individual as it is, the others differ.
        assert np.array_equal(sheets[2], sheets[6], equal_nan=True)
        for other in (1, 3, 5, 7):
            assert not np.array_equal(sheets[other], sheets[2], equal_nan=True)
        if len(shape) == 2:
            expected = model.varied(data, data.times[2, :3])[2].numpy()
            assert np.allclose(sheets[2][:5, :4], expected[0])
            assert np.allclose(sheets[0][:5, -4:], data.x[2, 2].numpy())

    def test_names_that_read_alike_have_their_own_strips(self) -> None:
        data = people(5, 4)
        model = untrained(data, TrajectoryVAE)
        assert isinstance(model, TrajectoryVAE)
        with torch.no_grad():
            model.log_scales.fill_(-12.0)
        assert len(pace_strips(model, data).axes) == 2 * (1 + 5)

    def test_refuse_vectors_and_numbers_out_of_range(self) -> None:
        scores, images = people(3), people(5, 4)
        with pytest.raises(DataError, match="expected images"):
            pace_strips(untrained(scores, TrajectoryVAE), scores)
        model = untrained(images, TrajectoryVAE)
        for wrong in ({"individual": 5}, {"steps": 1}):
            with pytest.raises(ConfigurationError, match="expected"):
                pace_strips(model, images, **wrong)


class TestFilmstrips:
    def sheets(
        self, shape: tuple[int, ...]
    ) -> tuple[Sequences, Sequences, Draws, list[np.ndarray]]:
        truth = people(*shape)
        seen = truth.first(2)
        values = torch.rand(6, *truth.x.shape, generator=rng(1))
        drawn = draws(values, truth.times)
        figure = filmstrips(truth, seen, drawn, individuals=2)
        return truth, seen, drawn, [axes.images[0].get_array() for axes in figure.axes]

    @pytest.mark.parametrize("shape", [(5, 4), (1, 5, 4)])
    def test_show_seen_hidden_imputed_and_spread(self, shape: tuple[int, ...]) -> None:
        truth, _, drawn, sheets = self.sheets(shape)
        assert len(sheets) == 2 * 4
        seen, hidden, imputed, spread = (np.ma.filled(sheet, np.nan) for sheet in sheets[4:])
        x = truth.x.reshape(5, 4, 5, 4).double().numpy()
        place = [slice(5 * k, 5 * k + 4) for k in range(4)]  # a gap of one pixel between images
        assert np.array_equal(seen[:, place[1]], x[1, 1])
        assert np.isnan(seen[:, place[2]]).all()
        assert np.isnan(hidden[:, place[1]]).all()
        assert np.array_equal(hidden[:, place[3]], x[1, 3])
        values = drawn.values.reshape(6, 5, 4, 5, 4).double().numpy()
        assert np.allclose(imputed[:, place[3]], values[0, 1, 3])
        assert np.allclose(spread[:, place[0]], values[:, 1, 0].std(0), atol=1e-6)

    def test_colours(self) -> None:
        truth, _, drawn, sheets = self.sheets((3, 5, 4))
        assert np.allclose(sheets[0][:, :4, :3], truth.x[0, 0].movedim(0, -1))
        assert (sheets[0][:, 15:, 3] == 0.0).all()  # hidden
        spread = drawn.values[:, 0, 0].std(0, correction=0).mean(0)
        assert np.allclose(np.ma.filled(sheets[3], np.nan)[:, :4], spread, atol=1e-6)

    @pytest.mark.parametrize("shape", [(7, 5, 4), (1, 7, 5, 4)])
    def test_volumes_show_their_middle(self, shape: tuple[int, ...]) -> None:
        truth, _, drawn, sheets = self.sheets(shape)
        assert np.array_equal(sheets[0][:, :4], truth.x[0, 0].reshape(7, 5, 4)[3].double())
        spread = drawn.values[:, 0, 0].reshape(6, 7, 5, 4)[:, 3].std(0, correction=0)
        assert np.allclose(np.ma.filled(sheets[3], np.nan)[:, :4], spread, atol=1e-6)

    def test_times_stand_below(self) -> None:
        truth = people(5, 4)
        figure = filmstrips(truth, truth.first(1), draws(truth.x[None], truth.times), individuals=1)
        labels = [text.get_text() for text in figure.axes[-1].get_xticklabels()]
        assert labels == ["0", "1.5", "3", "4.5"]

    def test_long_ones_are_thinned_out_and_unobserved_visits_left_out(self) -> None:
        truth = people(3, 3, visits=40).first(30)
        figure = filmstrips(truth, truth.first(2), draws(truth.x[None], truth.times))
        labels = [text.get_text() for text in figure.axes[3].get_xticklabels()]
        assert (len(labels), labels[0], labels[-1]) == (12, "0", "43.5")

    def test_refuse_vectors_and_what_does_not_belong_together(self) -> None:
        vectors, images = people(3), people(4, 4)
        with pytest.raises(DataError, match="expected images or volumes"):
            filmstrips(vectors, vectors, draws(vectors.x[None], vectors.times))
        with pytest.raises(DataError, match="expected the same individuals"):
            filmstrips(images, images, draws(images.x[None, :2], images.times[:2]))


class TestScoreFits:
    def test_dots_and_bands(self) -> None:
        truth = people(2, columns=["memory", "speed"])
        grid = torch.linspace(0.0, 4.5, 7).expand(5, -1)
        courses = draws(torch.rand(50, 5, 7, 2, generator=rng(1)), grid)
        figure = score_fits(truth, truth.first(3), courses, individuals=3)
        assert len(figure.axes) == 6
        axes = figure.axes[3]  # the second individual, the second score
        median, seen, hidden = axes.lines
        assert np.allclose(median.get_ydata(), courses.values[:, 1, :, 1].quantile(0.5, 0))
        assert np.allclose(seen.get_xdata(), [0.0, 1.5, 3.0])
        assert np.allclose(hidden.get_ydata(), truth.x[1, 3:, 1])
        wide, narrow = (band.get_paths()[0].vertices[:, 1] for band in axes.collections)
        assert wide.max() == pytest.approx(
            float(courses.values[:, 1, :, 1].quantile(0.95, 0).max())
        )
        assert narrow.min() == pytest.approx(
            float(courses.values[:, 1, :, 1].quantile(0.25, 0).min())
        )
        assert [a.get_title() for a in figure.axes[:2]] == ["memory", "speed"]

    def test_values_that_were_not_observed_have_no_dot(self) -> None:
        mask = torch.ones(5, 4, 2, dtype=torch.bool)
        mask[0, 1, 0] = False
        truth = people(2, mask=mask)
        courses = draws(torch.rand(5, 5, 3, 2), torch.arange(3.0).expand(5, -1))
        figure = score_fits(truth, truth.first(3), courses, individuals=1)
        assert figure.axes[0].lines[1].get_xdata().tolist() == [0.0, 3.0]
        assert figure.axes[1].lines[1].get_xdata().tolist() == [0.0, 1.5, 3.0]

    def test_refuse_images_and_others(self) -> None:
        images, scores = people(4, 4), people(2)
        with pytest.raises(DataError, match="expected vectors of scores"):
            score_fits(images, images, draws(images.x[None], images.times))
        with pytest.raises(DataError, match="expected the same"):
            score_fits(scores, scores, draws(scores.x[None, :2], scores.times[:2]))


class TestLatentCourses:
    @pytest.mark.parametrize("name", sorted(SEQUENCE_MODELS))
    def test_of_every_model(self, name: str) -> None:
        data = people(4, individuals=6)
        model = untrained(data, SEQUENCE_MODELS[name])
        axes, bar = latent_courses(model, data.first(3), individuals=2, num_draws=2).axes
        dots = axes.collections[0]
        assert len(dots.get_offsets()) == 6 * 3
        assert sorted(set(dots.get_array().tolist())) == [0.0, 1.5, 3.0]
        assert bar.get_ylabel() == "time"
        assert len(axes.lines) == 2 + 2  # individuals, the mean course and its start

    def test_needs_two_dimensions(self) -> None:
        data = people(4)
        with pytest.raises(DataError, match="expected at least two"):
            latent_courses(FlowVAE((4,), latent_dim=1).eval(), data)


def test_latent_means_of_one_draw_are_its_path() -> None:
    """A trajectory is a line in time along the first coordinate, and constant in the others."""
    data = people(4, individuals=3)
    model = untrained(data, TrajectoryVAE)
    z = model.latent_means(data, torch.tensor([[-1.0, 2.0, 5.0]]).expand(3, -1), num_draws=1)
    assert z.shape == (3, 3, 3)
    assert bool((z[:, 1, 0] > z[:, 0, 0]).all())
    torch.testing.assert_close(z[:, 1] - z[:, 0], z[:, 2] - z[:, 1])
    torch.testing.assert_close(z[:, 0, 1:], z[:, 2, 1:])


def test_calibration_is_drawn_in_percent() -> None:
    levels = torch.tensor([0.1, 0.5, 0.9])
    curves = {"a": Calibration(levels, levels**2), "b": Calibration(levels, levels)}
    (axes,) = calibration_plot(curves).axes
    diagonal, first, second = axes.lines
    assert list(diagonal.get_ydata()) == [0, 100]
    assert np.allclose(first.get_xdata(), [10.0, 50.0, 90.0])
    assert np.allclose(first.get_ydata(), [1.0, 25.0, 81.0])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    assert np.allclose(second.get_ydata(), second.get_xdata())


@pytest.mark.slow
class TestReport:
    @pytest.mark.parametrize(
        ("shape", "heading"), [((3,), "median"), ((8, 8), "bright pixels are uncertain")]
    )
    def test_is_one_page_that_says_what_was_hidden(self, tmp_path, shape, heading) -> None:
        data = people(*shape, individuals=6)
        found = write_followup_report(tmp_path / "r.html", untrained(data), data, num_draws=4)
        page = (tmp_path / "r.html").read_text("utf-8")
        assert page.count("data:image/png;base64,") == 4
        assert "<script" not in page
        assert not re.search(r'(src|href)="(?!data:)', page)
        assert heading in page
        assert "6 individuals that the FlowVAE has not seen in training" in page
        assert [part.name for part in found] == [
            "visits at random",
            "all visits after the first 2",
        ]
        for part in found:
            assert part.sentence in page
            assert (part.visits, part.total) == (12, 24)
            assert part.error > 0.0
            assert 0.0 <= part.coverage <= 1.0
        apart = data.x[:, 2:] - data.x[:, 1:2]
        if len(shape) == 1:  # in standard deviations of each score
            own = [carried for _, _, carried in found[1].scores]
            assert own == pytest.approx(apart.square().mean((0, 1)).sqrt().tolist(), rel=1e-5)
            apart = apart / data.x.std((0, 1), correction=0)
            assert "Each score; hidden: visits at random" in page
        direct = apart.square().mean().sqrt()
        assert found[1].carried == pytest.approx(float(direct), rel=1e-5)

    def test_says_that_individuals_were_used_in_training(self, tmp_path) -> None:
        data = people(3)
        model = untrained(data)
        write_followup_report(tmp_path / "r.html", model, data, held_out=False, num_draws=2)
        assert "because none were held out" in (tmp_path / "r.html").read_text("utf-8")

    def test_individuals_with_one_visit_are_left_out(self, tmp_path) -> None:
        seen = torch.ones(5, 4, dtype=torch.bool)
        seen[:2, 1:] = False
        data = people(3, observed=seen)
        found = write_followup_report(tmp_path / "r.html", untrained(data), data, num_draws=4)
        assert found[0].total == 3 * 4
        with pytest.raises(DataError, match="two observed visits"):
            write_followup_report(tmp_path / "r.html", untrained(data), data.subset([0, 1]))

    def test_refuses_a_share_out_of_range(self, tmp_path) -> None:
        data = people(3)
        with pytest.raises(ConfigurationError, match="hidden"):
            write_followup_report(tmp_path / "r.html", untrained(data), data, hidden=1.0)
        assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (0.5, "50% less than"),
        (1.2, "20% more than"),
        (30.0, "30 times"),
        (1.001, "equal to"),
    ],
)
def test_errors_are_compared_in_words(error: float, words: str) -> None:
    part = HiddenPart("visits at random", 3, 9, error, 1.0, 0.88)
    assert f"{words} that of the last value carried forward" in part.sentence
    assert "contain 88% of the hidden values" in part.sentence
