"""What the explorer computes, against closed forms and brute force."""

import numpy as np
import pytest
import torch

import chartae
from chartae.app import view
from chartae.app.landscape import Landscape
from chartae.data import ArrayDataset, Sequences
from chartae.errors import ConfigurationError, DataError, DivergenceError
from chartae.geometry import EuclideanMetric, PoincareMetric
from chartae.longitudinal import SEQUENCE_MODELS, FlowVAE
from chartae.models import MODELS
from chartae.report.latent import Plane


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def images():
    return ArrayDataset(
        noise(60, 6, 6).sigmoid(), torch.arange(60) % 3, class_names=("a", "b", "c")
    )


@pytest.fixture(scope="module")
def space(images):
    return Landscape.of(chartae.VAE((6, 6), 3, likelihood="bernoulli"), images)


@pytest.fixture(scope="module")
def individuals():
    times = torch.arange(4.0) + noise(10, 1).abs()
    return Sequences(noise(10, 4, 5), times=times, dtype=None)


@pytest.fixture(scope="module")
def courses(individuals):
    return Landscape.of_sequences(FlowVAE((5,), 2), individuals)


class TestSpace:
    def test_codes_are_embeddings(self, space, images):
        assert torch.equal(space.codes, space.model.encode(images.x))
        assert space.columns["label"][:4].tolist() == ["a", "b", "c", "a"]

    def test_columns_of_a_table_are_named(self):
        data = ArrayDataset.from_arrays(noise(20, 2).numpy(), columns=["mass", "size"])
        space = Landscape.of(chartae.VAE((2,), 2), data, columns={"extra": np.arange(20)})
        assert list(space.columns) == ["mass", "size", "extra"]
        assert np.allclose(space.columns["size"], data.x[:, 1])

    def test_conditions_of_numbers_are_their_mean(self):
        model = chartae.VAE((2,), 2, conditions=(3,))
        y = noise(20, 3)
        space = Landscape.of(model, ArrayDataset(noise(20, 2)), y)
        assert torch.allclose(view.conditions(space, 4, None), y.mean(0).expand(4, 3))

    def test_covariates_of_individuals_are_a_column(self, individuals):
        labels = torch.arange(10) % 2
        people = Sequences(
            individuals.x,
            covariates=labels,
            times=individuals.times,
            covariate_names=["sex"],
            dtype=None,
        )
        space = Landscape.of_sequences(FlowVAE((5,), 2), people)
        assert (
            space.columns["sex"].tolist()
            == labels.repeat_interleave(4).numpy().astype(str).tolist()
        )

    def test_wrong_spaces_are_refused(self, space, images):
        with pytest.raises(
            DataError, match=r"columns\['mass'\] has shape \(3,\): expected \(60,\)"
        ):
            Landscape(space.model, space.x, space.codes, {"mass": np.zeros(3)})
        with pytest.raises(ConfigurationError, match="FlowVAE: expected Landscape.of_sequences"):
            Landscape.of(FlowVAE((6, 6), 2), images)
        with pytest.raises(ConfigurationError, match="metric='model': VAE has no learned metric"):
            Landscape.of(space.model, images, metric="model")

    def test_many_points_are_drawn_with_their_columns(self, images):
        model = chartae.VAE((6, 6), 2, likelihood="bernoulli")
        few = Landscape.of(model, images, columns={"number": np.arange(60)}, max_points=20)
        kept = few.columns["number"]
        assert len(set(kept.tolist())) == len(few.x) == 20
        assert torch.equal(few.x, images.x[kept])
        assert few.columns["label"].tolist() == [images.class_names[k % 3] for k in kept]

    def test_without_data_shows_samples(self):
        model = chartae.CVAE((6, 6), 2, conditions=3, likelihood="bernoulli").eval()
        space = Landscape.of(model, class_names=("a", "b", "c"))
        assert space.drawn
        assert torch.allclose(model.decode(space.codes, space.y), space.x, atol=1e-6)
        # The prior is a standard normal: the mean of 1000 draws has a deviation of 0.03.
        assert space.codes.mean(0).abs().max() < 0.15

    @pytest.mark.parametrize("name", MODELS)
    def test_shows_every_model(self, name, images):
        dim = 8 if name in ("vqvae", "hrqvae") else 3
        given = {"conditions": 3} if name == "cvae" else {}
        model = MODELS[name]((6, 6), dim, likelihood="bernoulli", **given)
        space = Landscape.of(model, images)
        plane = Plane(space.codes)
        view.volume_map(space, plane, 3)
        if view.without_decoding(space) is None:
            z = plane.lift(5.0 * noise(2, 2))
            assert view.decode(space, z, 1).shape == (2, 6, 6)
        if space.joins:
            join = view.geodesic_and_line(space, space.codes[0], space.codes[1], num_points=8)
            assert np.isfinite(join.lengths[0])

    def test_bad_input(self, images):
        with pytest.raises(ConfigurationError, match="one dimension"):
            Landscape.of(chartae.VAE((6, 6), 1, likelihood="bernoulli"), images)
        with pytest.raises(DataError, match="x has shape"):
            Landscape.of(chartae.VAE((5, 5), 2), images)
        with pytest.raises(ConfigurationError, match="no prior: expected data"):
            Landscape.of(chartae.AE((6, 6), 2))
        with pytest.raises(DataError, match=r"columns\['n'\] has shape"):
            Landscape.of(chartae.VAE((6, 6), 2), images, columns={"n": np.arange(3)})


class TestDecoding:
    def test_is_the_models(self, space):
        z = noise(4, 3, seed=1)
        assert torch.allclose(view.decode(space, z), space.model.decode(z))

    def test_takes_the_class(self, images):
        model = chartae.CVAE((6, 6), 2, conditions=3, likelihood="bernoulli").eval()
        space = Landscape.of(model, images)
        z = noise(1, 2)
        expected = model.decode(z, torch.tensor([2]))
        assert torch.allclose(view.decode(space, z, 2), expected)
        assert not torch.allclose(view.decode(space, z, 0), expected)

    def test_points_beside_a_sphere_or_a_ball_are_moved_there(self):
        sphere = chartae.SVAE((6, 6), 3)
        assert torch.allclose(view.on_the_space(sphere, noise(5, 3)).norm(dim=-1), torch.ones(5))
        ball = chartae.PoincareVAE((6, 6), 2)
        z = torch.tensor([[0.1, 0.2], [3.0, 4.0]])
        moved = view.on_the_space(ball, z)
        assert torch.equal(moved[0], z[0])
        assert moved[1].norm() < 1 / ball.curvature**0.5
        assert torch.allclose(moved[1] / moved[1].norm(), torch.tensor([0.6, 0.8]))

    def test_a_grid_of_codes_says_why_not(self, images):
        model = chartae.VQVAE((6, 6), 8, grid=(2, 2), num_codes=4, likelihood="bernoulli").eval()
        space = Landscape.of(model, images)
        assert "grid of codes" in view.without_decoding(space)
        with pytest.raises(DataError, match="grid of codes"):
            view.decode(space, space.codes[:1])
        rows = torch.tensor([5, 2])
        assert torch.allclose(view.reconstruct(space, rows), model.reconstruct(images.x[rows]))
        assert view.offered_samplers(space) == []

    def test_along_a_curve_shows_both_ends(self, space):
        curve = noise(33, 3)
        shown = view.decoded_along(space, curve, 5)
        assert torch.allclose(shown, space.model.decode(curve[[0, 8, 16, 24, 32]]))


class TestMap:
    def test_neighbours_are_those_of_brute_force(self):
        codes, z = noise(50, 4), noise(4, seed=3)
        found = view.nearest_points(codes, z, 7)
        distances = torch.tensor([float((row - z).norm()) for row in codes])
        assert torch.equal(found.indices, distances.argsort()[:7])
        assert torch.allclose(found.distances, distances.sort().values[:7])

    def test_volume_is_that_of_the_metric(self, space):
        plane = Plane(space.codes)
        square, values = view.volume_map(space, plane, 8)
        expected = space.volume.log_volume(plane.lift(square.points[3, 5]))
        assert torch.allclose(values[3, 5], expected)

    def test_volume_outside_a_ball_is_blank(self, images):
        space = Landscape.of(chartae.PoincareVAE((6, 6), 2, likelihood="bernoulli"), images)
        wide = Landscape(space.model, space.x, 2.0 * noise(60, 2), {}, volume=PoincareMetric(2))
        square, values = view.volume_map(wide, Plane(wide.codes), 20)
        outside = square.points.norm(dim=-1) >= 1.0
        assert outside.any()
        assert not outside.all()
        assert torch.equal(values.isnan(), outside)

    @pytest.mark.parametrize("principal", [True, False])
    def test_a_plane_through_a_point_contains_it(self, principal):
        plane = Plane(noise(40, 5), (0, 2), principal=principal)
        z = noise(5, seed=7)
        moved = plane.through(z)
        assert torch.allclose(moved.lift(moved.project(z)), z, atol=1e-5)
        assert torch.allclose(moved.project(z), plane.project(z), atol=1e-5)

    def test_coordinates_of_a_plane_are_those_of_the_space(self):
        codes = noise(40, 5)
        assert torch.allclose(
            Plane(codes, (1, 3), principal=False).project(codes), codes[:, [1, 3]], atol=1e-6
        )


class TestGeometry:
    def flat(self, space):
        return Landscape(space.model, space.x, space.codes, {}, metric=EuclideanMetric(3))

    def test_geodesics_of_flat_space_are_straight(self, space):
        a, b = noise(2, 3)
        found = view.geodesic_and_line(self.flat(space), a, b)
        assert torch.allclose(found.geodesic, found.line, atol=1e-5)
        assert found.lengths == pytest.approx([float((a - b).norm())] * 2, rel=1e-5)

    def test_geodesics_of_a_model_are_not_longer_than_the_line(self, space):
        found = view.geodesic_and_line(space, space.codes[0], space.codes[1])
        assert found.lengths[0] <= found.lengths[1] * (1 + 1e-4)

    def test_a_fan_in_flat_space_is_a_circle(self, space):
        start, plane = noise(3, seed=2), Plane(space.codes)
        fan = view.exponential_fan(self.flat(space), plane, start, 0.7, count=8)
        steps = plane.project(fan.paths[:, -1]) - plane.project(start)
        assert torch.allclose(steps.norm(dim=-1), torch.full((8,), 0.7), atol=1e-5)
        assert fan.length == pytest.approx(0.7, rel=1e-5)
        assert not fan.shortened

    def test_a_fan_in_the_ball_ends_at_one_distance(self, images):
        space = Landscape.of(chartae.PoincareVAE((6, 6), 2, likelihood="bernoulli"), images)
        start = torch.tensor([0.3, 0.1])
        fan = view.exponential_fan(space, Plane(space.codes), start, 0.2)
        reached = chartae.geometry.distance(space.metric, start, fan.paths[:, -1])
        assert torch.allclose(reached, torch.full_like(reached, fan.length), rtol=1e-3)

    @pytest.mark.parametrize(("reach", "length"), [(0.7, 0.7), (0.4, 0.35), (0.0, None)])
    def test_a_fan_is_as_long_as_geodesics_can_be(self, space, monkeypatch, reach, length):
        """Beyond ``reach`` they diverge: the length is halved until it is shorter."""

        def bounded(metric, start, velocities, *, num_steps):
            if (velocities.norm(dim=-1) > reach + 1e-5).any():
                raise DivergenceError("too long")
            return chartae.geometry.exponential_path(metric, start, velocities, num_steps=num_steps)

        monkeypatch.setattr(view, "exponential_path", bounded)
        flat, plane = self.flat(space), Plane(space.codes)
        if length is None:
            with pytest.raises(DataError, match="diverge at any length"):
                view.exponential_fan(flat, plane, space.codes[0], 0.7)
            return
        fan = view.exponential_fan(flat, plane, space.codes[0], 0.7, count=4)
        assert fan.length == pytest.approx(length, rel=1e-5)
        assert fan.shortened == (length < 0.7)

    def test_no_metric_is_said(self, space):
        bare = Landscape(space.model, space.x, space.codes, {}, joins=False)
        with pytest.raises(DataError, match="no geodesics"):
            view.geodesic_and_line(bare, space.codes[0], space.codes[1])
        with pytest.raises(DataError, match="no metric"):
            view.exponential_fan(bare, Plane(space.codes), space.codes[0], 1.0)


class TestAttributes:
    def groups(self):
        """Two normal groups with the common covariance S, and means d apart."""
        root = torch.tensor([[1.0, 0.0], [1.2, 0.4]], dtype=torch.float64)
        codes = noise(4000, 2).double() @ root.mT
        has = torch.arange(4000) % 2 == 0
        step = torch.tensor([1.0, 0.2], dtype=torch.float64)
        codes[has] += step
        return codes, has, root @ root.mT, step

    def test_mean_is_the_difference_of_means(self):
        codes, has, _, step = self.groups()
        assert torch.allclose(view.attribute_direction(codes, has), step, atol=0.15)

    def test_logistic_is_the_optimal_discriminant(self):
        """For normal groups of one covariance it is S^-1 d, which is not the direction of d."""
        codes, has, covariance, step = self.groups()
        found = view.attribute_direction(codes, has, method="logistic")
        optimal = torch.linalg.solve(covariance, step)
        cosine = torch.cosine_similarity(found, optimal, dim=0)
        assert cosine > 0.99
        assert torch.cosine_similarity(step, optimal, dim=0) < 0.9
        means = codes[has].mean(0) - codes[~has].mean(0)
        assert float(found.norm()) == pytest.approx(float(means @ found / found.norm()))

    def test_needs_both_groups(self):
        with pytest.raises(DataError, match="the same for all"):
            view.attribute_direction(noise(5, 2), torch.ones(5, dtype=torch.bool))

    def test_columns_without_a_split(self):
        assert view.split_by(np.ones(5)) == {}
        assert view.split_by(np.array([str(k) for k in range(50)])) == {}


class TestSamples:
    def test_are_the_samplers(self, space):
        sampler = view.fitted_sampler(space, "normal")
        expected = chartae.NormalSampler(space.model).sample_latents(5, seed=3)
        assert torch.equal(view.sample_latents(space, sampler, 5, seed=3), expected)

    def test_only_those_that_support_the_model(self, space):
        assert {"normal", "mixture", "volume"} <= set(view.offered_samplers(space))
        with pytest.raises(ConfigurationError, match="vamp"):
            view.fitted_sampler(space, "vamp")


class TestIndividuals:
    @pytest.mark.parametrize("name", SEQUENCE_MODELS)
    def test_shows_every_model(self, name, individuals):
        space = Landscape.of_sequences(SEQUENCE_MODELS[name]((5,), 4), individuals)
        assert view.decode(space, space.codes[:3]).shape == (3, 5)
        assert view.trajectory(space, 1, num_points=5)[1].shape == (5, 4)
        assert view.futures(space, 1, num_times=5, count=2)[1].shape == (2, 5, 5)

    def test_codes_are_posterior_means_at_visits(self, courses, individuals):
        means = courses.model.latent_means(individuals, individuals.times)
        assert torch.allclose(courses.codes, means.flatten(0, 1), atol=1e-5)
        assert courses.owner.tolist() == [k // 4 for k in range(40)]
        assert np.allclose(courses.columns["time"], individuals.times.flatten())

    def test_a_trajectory_passes_its_first_visit(self, courses, individuals):
        times, z = view.trajectory(courses, 3, beyond=0.0)
        assert (float(times[0]), float(times[-1])) == pytest.approx(
            (float(individuals.times[3, 0]), float(individuals.times[3, -1]))
        )
        assert z.shape == (60, 2)

    def test_futures_go_beyond_the_last_visit(self, courses, individuals):
        times, values = view.futures(courses, 2, num_times=7, count=3, beyond=0.5)
        when = individuals.times[2]
        assert float(times[-1]) == pytest.approx(float(when[-1] + 0.5 * (when[-1] - when[0])))
        assert values.shape == (3, 7, 5)
        expected = courses.model.futures(individuals.subset([2]), times, 3, noise=False).values
        assert torch.equal(values, expected[:, 0])

    def test_other_observations_are_refused(self, space):
        with pytest.raises(DataError, match="not the visits"):
            view.trajectory(space, 0)
