"""The five tasks of the thesis' benchmark, for one trained model (section 4.4)."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from chartae.checks import check_choice, check_integer
from chartae.data import ArrayDataset
from chartae.errors import ConfigurationError, DataError
from chartae.evaluation.features import Classifier, Extractor, pixels
from chartae.evaluation.fidelity import (
    density_coverage,
    frechet_distance,
    inception_score,
    kernel_distance,
    prd,
    precision_recall,
)
from chartae.evaluation.memorisation import copies, nearest_distance_ratio
from chartae.evaluation.neighbours import as_rows, nearest
from chartae.evaluation.reconstruction import mse, psnr, ssim
from chartae.evaluation.representation import cluster_accuracy, linear_probe
from chartae.geometry import (
    Metric,
    PoincareMetric,
    PosteriorMetric,
    great_circle,
    shortest_paths,
)
from chartae.models import Autoencoder, VariationalAutoencoder
from chartae.randomness import derive_seed, make_generator, seeded
from chartae.samplers import SAMPLERS, Sampler, natural_sampler

__all__ = ["METRICS", "TASKS", "TEST_ONLY", "Evaluation", "Measure", "Splits", "evaluate_model"]

Figures = dict[str, float]

TASKS = ("reconstruction", "generation", "classification", "clustering", "interpolation")
"""The tasks of the benchmark."""
SAMPLES = 2000
"""Largest number of samples of a generator that are compared with real data."""
LIKELIHOODS, IMPORTANCE = 200, 50
"""Numbers of held-out observations, and of importance samples of each, for log p(x)."""
PAIRS, POINTS = 10, 10
"""Numbers of interpolated pairs of observations, and of points between both ends."""
SHOWN = 10
"""Number of observations in each row of pictures."""
CENTROIDS = 500
"""Largest number of posteriors in the metric of a model without its own."""
NEIGHBOURS = 5
"""Number of neighbours of precision, recall, density and coverage."""


@dataclass(frozen=True)
class Measure:
    """What a figure says.

    Attributes:
        task: the task that it belongs to.
        title: its name on a page.
        higher: whether a higher value is better.
    """

    task: str
    title: str
    higher: bool


TEST_ONLY = ("prd_f8", "prd_f1_8", "novelty", "copies")
"""Figures that no configuration is chosen by; there are none on the validation set."""
METRICS: dict[str, Measure] = {
    "mse": Measure("reconstruction", "mean squared error", False),
    "psnr": Measure("reconstruction", "PSNR (dB)", True),
    "ssim": Measure("reconstruction", "SSIM", True),
    "reconstruction_frechet": Measure("reconstruction", "Frechet distance", False),
    "log_likelihood": Measure("reconstruction", "log p(x)", True),
    "frechet": Measure("generation", "Frechet distance", False),
    "kernel": Measure("generation", "kernel distance", False),
    "inception_score": Measure("generation", "inception score", True),
    "precision": Measure("generation", "precision", True),
    "recall": Measure("generation", "recall", True),
    "density": Measure("generation", "density", True),
    "coverage": Measure("generation", "coverage", True),
    "prd_f8": Measure("generation", "PRD F8 (recall)", True),
    "prd_f1_8": Measure("generation", "PRD F1/8 (precision)", True),
    "novelty": Measure("generation", "distance to training data", True),
    "copies": Measure("generation", "near copies", False),
    "probe_accuracy": Measure("classification", "accuracy of a linear probe", True),
    "cluster_accuracy": Measure("clustering", "k-means accuracy", True),
    "cluster_nmi": Measure("clustering", "NMI", True),
    "cluster_ari": Measure("clustering", "ARI", True),
    "straight": Measure("interpolation", "distance of straight lines from data", False),
    "geodesic": Measure("interpolation", "distance of geodesics from data", False),
}
"""All figures; the first of each task decides, and for interpolation ``straight``."""


@dataclass(frozen=True)
class Splits:
    """Data of an evaluation: models learn from ``train``, ``validation`` chooses, ``test`` reports.

    Args:
        train: the training set.
        validation: real data that choose among configurations.
        test: real data that are used for nothing else; None while configurations are chosen.

    Raises:
        DataError: if their shapes or classes differ, or values are unobserved.
    """

    train: ArrayDataset
    validation: ArrayDataset
    test: ArrayDataset | None = None

    def __post_init__(self) -> None:
        for name, part in self.held_out.items():
            if part.input_shape != self.train.input_shape:
                raise DataError(
                    f"{name} has observations of shape {part.input_shape}: expected "
                    f"{self.train.input_shape}, as train"
                )
            if part.class_names != self.train.class_names:
                raise DataError(
                    f"{name} has the classes {', '.join(part.class_names) or 'none'}: expected "
                    f"{', '.join(self.train.class_names) or 'none'}, as train"
                )
        for name, part in {"train": self.train, **self.held_out}.items():
            if part.mask is not None and not bool(part.mask.all()):
                raise DataError(
                    f"{name} has {int((~part.mask).sum())} unobserved value(s): expected none; "
                    "leave out their rows or columns, or fill them first"
                )

    @property
    def held_out(self) -> dict[str, ArrayDataset]:
        """The data that no model learns from, by name."""
        test = {} if self.test is None else {"test": self.test}
        return {"validation": self.validation, **test}

    @property
    def labelled(self) -> bool:
        """Whether observations have labels of at least two classes."""
        return len(self.train.class_names) > 1


@dataclass(frozen=True)
class Evaluation:
    """The figures of one model.

    Attributes:
        figures: for ``"validation"``, and for ``"test"`` if there is such a set, the figures of the
            model by name (`METRICS`).
        samplers: the same for each sampler.
        skipped: what was left out, with the reason.
        pictures: observations to show, by name: ``"real"`` and ``"reconstruction"`` ``(n,
            *input_shape)``; ``"samples/NAME"`` and the nearest training data ``"nearest/NAME"``;
            ``"straight"`` and ``"geodesic"`` ``(pairs, points, *input_shape)``.
    """

    figures: Mapping[str, Figures]
    samplers: Mapping[str, Mapping[str, Figures]] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, Tensor] = field(default_factory=dict)


def evaluate_model(
    model: Autoencoder,
    splits: Splits,
    *,
    features: Extractor | Classifier | None = None,
    samplers: Sequence[str] = ("auto",),
    tasks: Sequence[str] = TASKS,
    runs: int = 20,
    seed: int = 0,
) -> Evaluation:
    """Evaluate a trained model on the five tasks of the thesis' benchmark.

    * Reconstruction: mean squared error, PSNR and SSIM of images, Frechet distance between data and
      their reconstructions. Features of vectors are divided by their standard deviation in the
      training set first, as their units may differ. log p(x) of 200 observations, for models that
      have it.
    * Generation, for each sampler: distances between samples and held-out data, precision, recall,
      density and coverage in the features; copies of training data. As many samples as held-out
      observations are drawn, at most 2,000.
    * Classification: accuracy of a linear classifier on the embeddings.
    * Clustering: agreement of k-means of the training set's embeddings with classes.
    * Interpolation, straight and along geodesics, between ten pairs of held-out observations: the
      mean distance of decoded points to the nearest training observation, in the features, relative
      to that of held-out observations. It is about 1 if points between are like data.

    Tasks that need labels are left out without, and ``skipped`` says so.

    Args:
        model: a trained model.
        splits: the data.
        features: where distributions are compared: a function from data to features, or a
            `Classifier`, which gives the inception score, too; None takes the data themselves.
        samplers: names of samplers; ``"auto"`` is the natural one of the model. Those that do not
            support the model are left out.
        tasks: names of tasks.
        runs: number of runs of the linear probe and of k-means.
        seed: the same seed gives the same figures.

    Raises:
        DataError: if the data do not fit the model.
        ConfigurationError: for an unknown sampler or task.
    """
    for name in samplers:
        check_choice("samplers", name, ["auto", *SAMPLERS])
    for name in tasks:
        check_choice("tasks", name, TASKS)
    check_integer("runs", runs, minimum=1)
    *_, (name, part) = splits.held_out.items()  # of one shape
    model.check_data(name, part.x[:1].to(model.device, model.dtype))
    task = _Task(model, splits, features or pixels, seed)
    skipped: dict[str, str] = {}
    figures: dict[str, Figures] = {name: {} for name in splits.held_out}
    pictures: dict[str, Tensor] = {}
    if "reconstruction" in tasks:
        for name in figures:
            figures[name] |= task.reconstruction(name)
        pictures |= task.reconstructed()
    if not splits.labelled:
        skipped |= dict.fromkeys({"classification", "clustering"} & {*tasks}, "no labels")
    else:
        if "classification" in tasks:
            for name in figures:
                figures[name]["probe_accuracy"] = task.probe(name, runs)
        if "clustering" in tasks:
            found = task.clusters(runs)
            for name in figures:
                figures[name] |= found
    if "interpolation" in tasks:
        for name in figures:
            curves, reasons = task.interpolation(name)
            figures[name] |= task.distances(name, curves)
        pictures |= curves  # those of the last set
        skipped |= reasons
    by_sampler: dict[str, dict[str, Figures]] = {}
    if "generation" in tasks:
        for name in dict.fromkeys(_names(samplers, model)):
            if reason := SAMPLERS[name].unsupported_reason(model):
                skipped[name] = reason
                continue
            by_sampler[name], shown = task.generation(name)
            pictures |= shown
    return Evaluation(figures, by_sampler, skipped, pictures)


def _names(samplers: Sequence[str], model: Autoencoder) -> list[str]:
    return [natural_sampler(model) if name == "auto" else name for name in samplers]


class _Task:
    """The tasks of one model, with what they share."""

    def __init__(
        self, model: Autoencoder, splits: Splits, features: Extractor | Classifier, seed: int
    ) -> None:
        self.model, self.splits, self.seed = model, splits, seed
        self.classifier = features if isinstance(features, Classifier) else None
        self.features = features.features if isinstance(features, Classifier) else features
        # Features of vectors may have different units, which neither errors nor distances may see.
        self.units = torch.ones(()).to(splits.train.x)
        if len(splits.train.input_shape) == 1:
            deviation = splits.train.x.std(0)
            self.units = torch.where(deviation > 0.0, deviation, 1.0)
            if features is pixels:
                self.features = lambda x: pixels(torch.as_tensor(x).cpu() / self.units)
        self.last = [*splits.held_out][-1]
        parts = {"train": splits.train, **splits.held_out}
        self.x = {name: part.x.to(model.device, model.dtype) for name, part in parts.items()}
        self.y = {
            name: part.y.to(model.device) if model.condition_dim and part.y is not None else None
            for name, part in parts.items()
        }

    # --- reconstruction ---------------------------------------------------------------------------

    def reconstruction(self, name: str) -> Figures:
        real, made = self.x[name], self._reconstruct(name)
        units = self.units.to(real)
        found = {"mse": mse(real / units, made / units)}
        if len(self.splits.train.input_shape) > 1:
            low, high = self.splits.train.x.aminmax()
            span = float(high - low) or 1.0
            found["psnr"] = psnr(real, made, data_range=span)
            with suppress(DataError):  # images that are smaller than its window
                found["ssim"] = ssim(real, made, data_range=span)
        found["reconstruction_frechet"] = frechet_distance(self.features(real), self.features(made))
        if isinstance(self.model, VariationalAutoencoder):
            x, y = real[:LIKELIHOODS], self.y[name]
            with torch.no_grad(), seeded(self.seed, "log_likelihood"):
                values = self.model.log_likelihood(
                    x, IMPORTANCE, y=None if y is None else y[:LIKELIHOODS]
                )
            found["log_likelihood"] = float(values.double().mean())
        return found

    def reconstructed(self) -> dict[str, Tensor]:
        return {
            "real": self.x[self.last][:SHOWN].cpu(),
            "reconstruction": self._reconstruct(self.last)[:SHOWN].cpu(),
        }

    @torch.no_grad()
    def _reconstruct(self, name: str) -> Tensor:
        y = self.y[name]
        z = self.model.encode(self.x[name], y, batch_size=1024)
        return self.model.decode(z, y, batch_size=1024)

    @torch.no_grad()
    def _codes(self, name: str) -> Tensor:
        return self.model.encode(self.x[name], self.y[name], batch_size=1024)

    # --- representation ---------------------------------------------------------------------------

    def probe(self, name: str, runs: int) -> float:
        train, held_out = self.splits.train, self.splits.held_out[name]
        assert train.y is not None
        assert held_out.y is not None
        codes = self._codes("train").cpu(), self._codes(name).cpu()
        return linear_probe(
            *(codes[0], train.y, codes[1], held_out.y), runs=runs, seed=self.seed
        ).mean

    def clusters(self, runs: int) -> Figures:
        train = self.splits.train
        assert train.y is not None
        found = cluster_accuracy(self._codes("train").cpu(), train.y, runs=runs, seed=self.seed)
        nmi, ari = (sum(values) / len(values) for values in (found.nmi, found.ari))
        return {"cluster_accuracy": found.accuracy, "cluster_nmi": nmi, "cluster_ari": ari}

    # --- generation -------------------------------------------------------------------------------

    def generation(self, name: str) -> tuple[dict[str, Figures], dict[str, Tensor]]:
        """Return the figures of a sampler, and samples with their nearest training images."""
        sampler = self._fitted(name)
        count = min(SAMPLES, max(len(self.x[part]) for part in self.splits.held_out))
        seed = derive_seed(self.seed, "samples")
        fake = sampler.sample(count, seed, self._drawn_conditions(count))
        train = self.x["train"]
        figures = {part: self._compare(self.x[part], fake) for part in self.splits.held_out}
        rows, seen, (synthetic,) = as_rows(train, {"samples": fake})
        closest = nearest(synthetic[:SHOWN], torch.ones_like(synthetic[:SHOWN]), rows, seen)
        shown = {f"samples/{name}": fake, f"nearest/{name}": train[closest.indices]}
        if "test" in figures:
            figures["test"] |= self._memory(fake)
        return figures, {key: value[:SHOWN].cpu() for key, value in shown.items()}

    def _fitted(self, name: str) -> Sampler:
        sampler = SAMPLERS[name](self.model).to(self.model.device)
        with seeded(self.seed, "sampler", name):
            return sampler.fit(self.x["train"], self.y["train"])

    def _drawn_conditions(self, count: int) -> Tensor | None:
        """Return conditions of held-out data, as many as samples; None for other models."""
        y = self.y[self.last]
        if y is None:
            return None
        generator = make_generator(self.seed, "conditions")
        return y[torch.randint(len(y), (count,), generator=generator).to(y.device)]

    def _compare(self, real: Tensor, fake: Tensor) -> Figures:
        real, fake = real[: len(fake)], fake[: len(real)]
        a, b = self.features(real), self.features(fake)
        k = min(NEIGHBOURS, len(a) - 1)
        support, balls = precision_recall(a, b, k=k), density_coverage(a, b, k=k)
        figures = {
            "frechet": frechet_distance(a, b),
            "kernel": kernel_distance(a, b),
            "precision": support.precision,
            "recall": support.recall,
            "density": balls.density,
            "coverage": balls.coverage,
        }
        if self.classifier is not None:
            figures["inception_score"] = inception_score(self.classifier.probabilities(fake))
        return figures

    def _memory(self, fake: Tensor) -> Figures:
        """Return the figures that are for the test set only."""
        real = self.x["test"]
        curve = prd(self.features(real[: len(fake)]), self.features(fake[: len(real)]))
        figures = {"prd_f8": curve.f_8, "prd_f1_8": curve.f_1_8}
        figures["copies"] = copies(self.x["train"], real, fake).near
        with suppress(DataError):  # most test observations are in the training set
            figures["novelty"] = nearest_distance_ratio(self.x["train"], real, fake)
        return figures

    # --- interpolation ----------------------------------------------------------------------------

    def interpolation(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return decoded curves ``(pairs, points, *input_shape)``, and what was left out."""
        if self.model.latent_space == "codes":
            return {}, {"interpolation": "single latents of a grid of codes are not decoded"}
        if self.model.condition_dim:
            return {}, {"interpolation": "the decoder depends on conditions"}
        if self.model.latent_dim < 2:
            return {}, {"interpolation": "the latent space has one dimension"}
        pairs = min(PAIRS, len(self.x[name]) // 2)
        z = self._codes(name)[: 2 * pairs]
        start, end = z[:pairs], z[pairs:]
        weights = torch.linspace(0.0, 1.0, POINTS + 2).to(z)[1:-1, None]
        curves: dict[str, Tensor] = {}
        reasons: dict[str, str] = {}
        if self.model.latent_space == "sphere":
            curves["geodesic"] = great_circle(start, end, weights[:, 0])
            return {name: self._decoded(curve) for name, curve in curves.items()}, reasons
        if self.model.latent_space == "euclidean":
            curves["straight"] = torch.lerp(start[:, None], end[:, None], weights)
        metric = self._metric()
        if metric is None:
            reasons["geodesic"] = "the model has no Gaussian posterior"
        else:
            paths = shortest_paths(metric, start, end, num_points=POINTS + 2).points
            curves["geodesic"] = paths[:, 1:-1]
        return {name: self._decoded(curve) for name, curve in curves.items()}, reasons

    def _metric(self) -> Metric | None:
        """Return the metric whose geodesics stay near the data; None without one."""
        model: Any = self.model
        if model.latent_space == "ball":
            ball = PoincareMetric(model.latent_dim, float(model.curvature))
            return ball.to(model.device, model.dtype)
        if hasattr(type(model), "metric"):
            learned: Metric = model.metric
            return learned
        x = self.x["train"]
        try:
            return PosteriorMetric.from_model(model, x, num_centroids=min(CENTROIDS, len(x)))
        except (ConfigurationError, AttributeError):
            return None

    @torch.no_grad()
    def _decoded(self, curves: Tensor) -> Tensor:
        flat = self.model.decode(curves.flatten(0, 1)).cpu()
        return flat.reshape(*curves.shape[:2], *flat.shape[1:])

    def distances(self, part: str, curves: Mapping[str, Tensor]) -> Figures:
        """Return how far curves are from the training data, relative to held-out data."""
        train = self.features(self.x["train"])
        parts = {part: self.x[part], **{n: c.flatten(0, 1) for n, c in curves.items()}}
        rows, seen, others = as_rows(train, {n: self.features(p) for n, p in parts.items()})
        search: Callable[..., Any] = partial(nearest, b=rows, seen_b=seen)
        found = [float(search(o, torch.ones_like(o)).distances.mean()) for o in others]
        return {
            name: distance / found[0]
            for name, distance in zip(curves, found[1:], strict=True)
            if found[0] > 0.0
        }
