"""Groups of individuals with similar courses."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from chartae.checks import check_integer
from chartae.data import Sequences
from chartae.data.arrays import as_tensor
from chartae.errors import ConfigurationError, DataError
from chartae.geometry import ConstantMetric, KMeans, Metric, kmeans
from chartae.longitudinal.base import SequenceModel
from chartae.longitudinal.visit_latents import VisitLatentModel

__all__ = ["Clusters", "cluster"]


@dataclass(frozen=True, repr=False)
class Clusters:
    """Groups of individuals, from `cluster`.

    Attributes:
        ids: the names of the individuals, N strings.
        labels: ``(N,)`` int64, the group of each, in [0, k).
        centers: ``(k, size)``, the latents of the centres, as in `SequenceModel.individuals`.
        coordinates: the latents that were compared.
        metric: what they were compared by.
        found: the result of `chartae.geometry.kmeans` on these latents.
    """

    ids: tuple[str, ...]
    labels: Tensor
    centers: Tensor
    coordinates: tuple[int, ...]
    metric: Metric
    found: KMeans

    def __len__(self) -> int:
        """The number k of groups."""
        return len(self.centers)

    def __repr__(self) -> str:
        sizes = torch.bincount(self.labels, minlength=len(self)).tolist()
        return f"Clusters({len(self.labels)} individuals, groups of {', '.join(map(str, sizes))})"

    def members(self, label: int) -> tuple[str, ...]:
        """Return the names of the individuals of a group, which is a number in [0, k)."""
        label = check_integer("label", label, minimum=0, maximum=len(self) - 1)
        rows = (self.labels == label).nonzero()[:, 0].tolist()
        return tuple(self.ids[row] for row in rows)

    def predict(self, model: SequenceModel, sequences: Sequences, *, seed: int = 0) -> Tensor:
        """Return the group of other individuals, ``(M,)``: that of the nearest centre.

        Args:
            model: the model that was given to `cluster`.
            sequences: the individuals.
            seed: as in `SequenceModel.individuals`.
        """
        points = model.individuals(sequences, seed=seed)[:, list(self.coordinates)]
        labels: Tensor = self.found.predict(self.metric, points)
        return labels

    @torch.no_grad()
    def courses(
        self,
        model: SequenceModel,
        times: ArrayLike | Tensor,
        *,
        y: ArrayLike | Tensor | None = None,
    ) -> Tensor:
        """Return the means of p(x | z(t)) on the courses of the centres, ``(k, K, *input_shape)``.

        Args:
            model: the model that was given to `cluster`.
            times: ``(K,)``, in the unit of the data.
            y: conditions of the k courses, for a model that has them.

        Raises:
            ConfigurationError: for a model whose individuals have one latent for each visit: its
                latents do not determine a course.
            DataError: for times that are not finite numbers, or conditions that do not fit.
        """
        if isinstance(model, VisitLatentModel):
            raise ConfigurationError(
                f"model is a {type(model).__name__}, with a latent for each visit: expected a "
                "model with one latent for each individual, such as TrajectoryVAE or FlowVAE"
            )
        when = as_tensor("times", times).double().to(model.device)
        if when.ndim != 1 or not when.numel() or not bool(when.isfinite().all()):
            raise DataError(f"times has shape {tuple(when.shape)}: expected finite numbers, (K,)")
        conditions = None if y is None else as_tensor("y", y).to(model.device)
        if conditions is not None and conditions.is_floating_point():
            conditions = conditions.to(model.dtype)
        model.check_conditions("y", conditions, len(self))
        owner = torch.arange(len(self), device=model.device).repeat_interleave(len(when))
        moments = model.model_times(when).repeat(len(self))
        z = model.path(self.centers, owner, moments, conditions)
        own = None if conditions is None else conditions[owner]
        means: Tensor = model.likelihood(z, own).mean.unflatten(0, (len(self), -1))
        return means


@torch.no_grad()
def cluster(
    model: SequenceModel,
    sequences: Sequences,
    k: int,
    *,
    coordinates: Sequence[int] | None = None,
    metric: Metric | None = None,
    num_restarts: int = 10,
    seed: int = 0,
) -> Clusters:
    """Group individuals by their latents, with the k-means of `chartae.geometry`.

    The latents are the posterior means of `SequenceModel.individuals`: the origin of the flow of a
    `FlowVAE`; the log speed, the delay and the coordinates in space of a `TrajectoryVAE`, in this
    order. By default each is measured in standard deviations of the prior. Latents on which the
    visits say little are then near the prior's mean for all, and do not separate individuals.

    Args:
        model: a trained model of sequences.
        sequences: the individuals, at least k.
        k: number of groups, at least 1.
        coordinates: the latents that are compared; None compares all. ``(0, 1)`` compares the
            log speed and the delay of a `TrajectoryVAE`.
        metric: a metric of `chartae.geometry` on the compared latents; None is the one above.
        num_restarts: as in `chartae.geometry.kmeans`.
        seed: the same seed gives the same groups.

    Raises:
        ConfigurationError: for a number out of range, or coordinates that the model does not have.
        DataError: if the sequences do not fit the model, or the latents the metric, or there are
            fewer different individuals than groups.

    >>> import torch, chartae
    >>> from chartae.longitudinal import TrajectoryVAE
    >>> data = Sequences(torch.rand(20, 4, 3), times=torch.arange(4.0))
    >>> model = TrajectoryVAE((3,), latent_dim=2).eval()
    >>> groups = cluster(model, data, 2)
    >>> groups.courses(model, times=[0.0, 6.0]).shape
    torch.Size([2, 2, 3])
    """
    k = check_integer("k", k, minimum=1)
    check_integer("num_restarts", num_restarts, minimum=1)
    check_integer("seed", seed, minimum=0)
    points = model.individuals(sequences, seed=seed)
    chosen = _coordinates(coordinates, points.shape[1])
    if metric is None:
        scales = model.individual_scales().expand(points.shape[1])
        metric = ConstantMetric(scales[list(chosen)].square().reciprocal().diag())
    found = kmeans(metric, points[:, list(chosen)], k, num_restarts=num_restarts, seed=seed)
    # The latents that were not compared have their mean over the group.
    members = torch.nn.functional.one_hot(found.labels, k).to(points)
    centers = (members.mT @ points) / members.sum(0).clamp_min(1.0)[:, None]
    centers[:, list(chosen)] = found.centers
    return Clusters(sequences.ids, found.labels, centers, chosen, metric, found)


def _coordinates(given: Sequence[int] | None, size: int) -> tuple[int, ...]:
    """Return the numbers of the compared latents."""
    if given is None:
        return tuple(range(size))
    numbers = [check_integer("coordinates", n, minimum=0, maximum=size - 1) for n in given]
    if not numbers or len(set(numbers)) < len(numbers):
        raise ConfigurationError(
            f"coordinates={tuple(given)}: expected different numbers, at least one"
        )
    return tuple(numbers)
