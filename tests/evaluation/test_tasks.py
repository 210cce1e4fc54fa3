"""The five tasks of one model: what each sees, and that flawed models are ranked last."""

import pytest
import torch
from torch import Tensor

from chartae.data import ArrayDataset, digits
from chartae.errors import ConfigurationError, DataError
from chartae.evaluation import METRICS, TASKS, Splits, evaluate_model, split_data, train_classifier
from chartae.evaluation.tasks import PAIRS, POINTS, SHOWN
from chartae.models import AE, CVAE, SVAE, VAE, VQVAE
from chartae.training import fit

SPLITS = split_data(digits().subset(range(900)), seed=0)


@pytest.fixture(scope="module")
def classifier():
    return train_classifier(SPLITS.train.x, SPLITS.train.y, epochs=15, seed=0)


@pytest.fixture(scope="module")
def trained() -> AE:
    torch.manual_seed(0)
    model = AE((8, 8), latent_dim=8, likelihood="bernoulli")
    fit(model, SPLITS.train.x, epochs=60, seed=0, progress=False)
    return model


@pytest.fixture(scope="module")
def good(trained, classifier):
    return evaluate_model(trained, SPLITS, features=classifier, samplers=["mixture"], runs=3)


class Constant(AE):
    """Reconstructs everything as the mean."""

    def decode(self, z, y=None, *, batch_size=None) -> Tensor:
        return SPLITS.train.x.mean(0).expand(len(z), 8, 8)


class Shuffled(AE):
    """Decodes each latent as that of another observation, of the same distribution."""

    def decode(self, z, y=None, *, batch_size=None) -> Tensor:
        return super().decode(z.roll(1, 0), y, batch_size=batch_size)


class Memoriser(AE):
    """Decodes every latent as the nearest training observation."""

    def decode(self, z, y=None, *, batch_size=None) -> Tensor:
        codes = self.encode(SPLITS.train.x)
        return SPLITS.train.x[torch.cdist(z, codes).argmin(1)]


class ModeDropper(AE):
    """Decodes only what it decodes of its first two classes."""

    def decode(self, z, y=None, *, batch_size=None) -> Tensor:
        kept = SPLITS.train.subset((SPLITS.train.y < 2).nonzero()[:, 0])
        codes = self.encode(kept.x)
        nearest = codes[torch.cdist(z, codes).argmin(1)]
        return super().decode(0.9 * nearest + 0.1 * z, y, batch_size=batch_size)


def flawed(kind: type[AE], trained: AE, classifier):
    model = kind((8, 8), latent_dim=8, likelihood="bernoulli")
    model.load_state_dict(trained.state_dict())
    model.eval()
    return evaluate_model(model, SPLITS, features=classifier, samplers=["mixture"], runs=1)


class TestFlaws:
    """Each flaw is seen by the figure that should see it."""

    def test_a_constant_model(self, good, trained, classifier) -> None:
        found = flawed(Constant, trained, classifier)
        assert found.figures["test"]["mse"] > 2.0 * good.figures["test"]["mse"]
        sampled, of_good = found.samplers["mixture"]["test"], good.samplers["mixture"]["test"]
        assert sampled["coverage"] < 0.1 < 0.5 < of_good["coverage"]
        assert sampled["inception_score"] == pytest.approx(1.0, abs=1e-5)
        assert sampled["frechet"] > 3.0 * of_good["frechet"]

    def test_a_shuffled_decoder(self, good, trained, classifier) -> None:
        found = flawed(Shuffled, trained, classifier)
        assert found.figures["test"]["mse"] > 2.0 * good.figures["test"]["mse"]
        assert found.figures["test"]["psnr"] < good.figures["test"]["psnr"] - 3.0
        # Its reconstructions have the right distribution, and so have its samples.
        assert found.figures["test"]["reconstruction_frechet"] == pytest.approx(
            good.figures["test"]["reconstruction_frechet"]
        )
        assert found.samplers["mixture"]["test"]["frechet"] == pytest.approx(
            good.samplers["mixture"]["test"]["frechet"]
        )

    def test_a_memoriser(self, good, trained, classifier) -> None:
        found = flawed(Memoriser, trained, classifier)
        sampled, of_good = found.samplers["mixture"]["test"], good.samplers["mixture"]["test"]
        assert sampled["copies"] == 1.0 > 0.3 > of_good["copies"]
        assert sampled["novelty"] == 0.0 < 0.5 < of_good["novelty"]
        assert sampled["precision"] > 0.9  # which does not see it

    def test_a_mode_dropper(self, good, trained, classifier) -> None:
        found = flawed(ModeDropper, trained, classifier)
        sampled, of_good = found.samplers["mixture"]["test"], good.samplers["mixture"]["test"]
        for name in ("recall", "coverage", "prd_f8"):
            assert sampled[name] < 0.6 * of_good[name], name
        assert sampled["inception_score"] < 0.5 * of_good["inception_score"]

    def test_interpolations_of_a_memoriser_stay_on_data(self, good, trained, classifier) -> None:
        found = flawed(Memoriser, trained, classifier)
        assert found.figures["test"]["straight"] == 0.0 < good.figures["test"]["straight"]


class TestFigures:
    def test_every_figure_is_documented(self, good) -> None:
        names = {*good.figures["test"], *good.samplers["mixture"]["test"]}
        assert names <= set(METRICS)
        assert {METRICS[name].task for name in names} == set(TASKS)

    def test_validation_chooses_by_figures_of_its_own(self, good) -> None:
        only_test = {"prd_f8", "prd_f1_8", "novelty", "copies"}
        for both in (good.figures, good.samplers["mixture"]):
            assert set(both["test"]) - set(both["validation"]) <= only_test
            assert both["validation"] != both["test"]

    def test_pictures(self, good) -> None:
        shapes = {name: tuple(x.shape) for name, x in good.pictures.items()}
        rows = (SHOWN, 8, 8)
        assert shapes == {
            "real": rows,
            "reconstruction": rows,
            "samples/mixture": rows,
            "nearest/mixture": rows,
            "straight": (PAIRS, POINTS, 8, 8),
        }

    @pytest.mark.slow
    def test_the_same_seed_gives_the_same_figures(self, trained, good, classifier) -> None:
        again = evaluate_model(trained, SPLITS, features=classifier, samplers=["mixture"], runs=3)
        assert again.figures == good.figures
        assert again.samplers == good.samplers

    @pytest.mark.slow
    def test_a_vae_has_a_likelihood_and_geodesics(self, classifier) -> None:
        torch.manual_seed(0)
        model = VAE((8, 8), latent_dim=2, likelihood="bernoulli")
        fit(model, SPLITS.train.x, epochs=20, seed=0, progress=False)
        found = evaluate_model(model, SPLITS, tasks=["reconstruction", "interpolation"])
        assert {"log_likelihood", "geodesic", "straight"} <= set(found.figures["test"])
        assert not found.samplers
        assert not found.skipped


class TestKinds:
    """Models of every kind of latent space, before training."""

    def test_the_sphere_has_geodesics_only(self) -> None:
        found = evaluate_model(
            SVAE((8, 8), 3), SPLITS, samplers=["auto", "mixture"], tasks=["interpolation"]
        )
        assert set(found.figures["test"]) == {"geodesic"}

    def test_samplers_that_do_not_support_a_model_are_left_out(self) -> None:
        found = evaluate_model(
            SVAE((8, 8), 3), SPLITS, samplers=["auto", "mixture"], tasks=["generation"]
        )
        assert set(found.samplers) == {"sphere"}
        assert found.skipped["mixture"] == "its latents are points of a sphere"

    def test_codes_of_a_grid_are_not_interpolated(self) -> None:
        found = evaluate_model(VQVAE((8, 8), 16), SPLITS, tasks=["interpolation"])
        assert "grid of codes" in found.skipped["interpolation"]

    def test_a_conditional_model_sees_labels(self) -> None:
        model = CVAE((8, 8), 4, conditions=10)
        found = evaluate_model(
            model, SPLITS, tasks=["reconstruction", "generation", "interpolation"]
        )
        assert "mse" in found.figures["test"]
        assert "conditions" in found.skipped["interpolation"]

    def test_without_labels(self) -> None:
        bare = Splits(*(ArrayDataset(part.x) for part in (SPLITS.train, *SPLITS.held_out.values())))
        found = evaluate_model(AE((8, 8), 2), bare, tasks=["classification", "clustering"])
        assert found.skipped == {"classification": "no labels", "clustering": "no labels"}

    def test_vectors_have_no_ssim(self) -> None:
        data = ArrayDataset(torch.rand(60, 5), torch.arange(60) % 2, class_names=("a", "b"))
        found = evaluate_model(AE((5,), 2), split_data(data), tasks=["reconstruction"])
        assert not {"ssim", "psnr"} & set(found.figures["test"])

    def test_units_of_vectors_do_not_matter(self) -> None:
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(80, 3, generator=generator)
        units = torch.tensor([1.0, 1e3, 1e-3])

        class Zero(AE):
            def decode(self, z, y=None, *, batch_size=None) -> Tensor:
                return torch.zeros(len(z), 3)

        found = [
            evaluate_model(Zero((3,), 2), split_data(ArrayDataset(data)), tasks=["reconstruction"])
            for data in (x, x * units)
        ]
        for name in ("mse", "reconstruction_frechet"):
            values = [one.figures["test"][name] for one in found]
            assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_without_a_test_set_there_are_figures_of_the_validation_set_only() -> None:
    choosing = Splits(SPLITS.train, SPLITS.validation)
    model = AE((8, 8), 2).eval()
    tasks = ("reconstruction", "generation")
    whole, found = (evaluate_model(model, part, tasks=tasks) for part in (SPLITS, choosing))
    assert found.figures == {"validation": whole.figures["validation"]}
    assert [*found.samplers["mixture"]] == ["validation"]
    assert "copies" not in found.samplers["mixture"]["validation"]


class TestRefusals:
    def test_unknown_names(self) -> None:
        with pytest.raises(ConfigurationError, match="samplers='none'"):
            evaluate_model(AE((8, 8), 2), SPLITS, samplers=["none"])
        with pytest.raises(ConfigurationError, match="tasks='none'"):
            evaluate_model(AE((8, 8), 2), SPLITS, tasks=["none"])

    def test_data_that_do_not_fit_the_model(self) -> None:
        with pytest.raises(DataError, match="test has shape"):
            evaluate_model(AE((4, 4), 2), SPLITS)

    def test_splits_that_do_not_match(self) -> None:
        train = SPLITS.train
        other = ArrayDataset(torch.rand(5, 4, 4))
        with pytest.raises(DataError, match=r"validation has observations of shape \(4, 4\)"):
            Splits(train, other, other)
        with pytest.raises(DataError, match="test has the classes none"):
            Splits(train, SPLITS.validation, ArrayDataset(SPLITS.test.x))
        mask = torch.ones_like(train.x, dtype=torch.bool)
        mask[0, 0, 0] = False
        masked = ArrayDataset(train.x, train.y, mask, train.class_names)
        with pytest.raises(DataError, match=r"train has \d+ unobserved value\(s\)"):
            Splits(masked, SPLITS.validation, SPLITS.test)
