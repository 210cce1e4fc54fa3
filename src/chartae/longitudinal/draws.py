"""What longitudinal models return: draws of visits, and joint likelihoods."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from chartae.checks import check_number
from chartae.data import Form

__all__ = ["Draws", "How", "JointLikelihood"]

How = Literal["best", "resample", "naive"]
"""How draws are chosen given what was observed, see `SequenceModel.impute`."""


@dataclass(frozen=True, repr=False)
class Draws:
    """Draws of the visits of individuals at some times.

    Attributes:
        values: ``(draws, N, K, *input_shape)``, floats in the range of the data.
        times: ``(N, K)``, the times of the visits.
        log_fit: ``(draws, N)``, log p(observed visits | draw): how well each draw fits what was
            observed of the individual.
        how: how the draws were chosen, which decides what `point` is.
        effective_samples: ``(N,)``, the effective sample size of the importance weights; None if
            the draws were not weighted. Weights that would leave few draws are tempered
            (`SequenceModel.impute`); this is the size before.
        observed: ``(N, K, *input_shape)`` bool, True where the data are known.
        data: ``(N, K, *input_shape)``, the data there.
        form: the form in which data were given; results are returned in it.
    """

    values: Tensor
    times: Tensor
    log_fit: Tensor
    how: How
    form: Form
    effective_samples: Tensor | None = None
    observed: Tensor | None = None
    data: Tensor | None = None

    def __len__(self) -> int:
        """The number of draws."""
        return len(self.values)

    def __repr__(self) -> str:
        draws, count, visits, *shape = self.values.shape
        return f"Draws({draws} of {count} individuals at {visits} times, of shape {tuple(shape)})"

    def mean(self) -> Any:
        """Return the mean of the draws, ``(N, K, *input_shape)``."""
        return self._restored(self.values.mean(0))

    def best(self) -> Any:
        """Return the draw of each individual that fits what was observed best."""
        return self._restored(self._best())

    def quantile(self, q: float) -> Any:
        """Return a quantile of the draws of each value.

        Args:
            q: in [0, 1].
        """
        check_number("q", q, minimum=0.0, maximum=1.0)
        # torch.quantile takes at most 2 ** 24 numbers.
        rows = max(1, 2**24 // self.values[:, 0].numel())
        parts = [part.quantile(q, 0) for part in self.values.split(rows, 1)]
        return self._restored(torch.cat(parts))

    def std(self) -> Tensor:
        """Return the standard deviation of the draws of each value, as a tensor of floats."""
        return self.values.std(0, correction=0)

    def point(self) -> Any:
        """Return one value for each visit: the best draw, the mean, or the first (``"naive"``)."""
        return self._restored(self.point_values())

    def completed(self) -> Any:
        """Return the data where they are known, and `point` elsewhere."""
        values = self.point_values()
        if self.observed is not None and self.data is not None:
            values = torch.where(self.observed, self.data, values)
        return self._restored(values)

    def point_values(self) -> Tensor:
        """Return `point` as a tensor of floats in the range of the data, with channels first."""
        if self.how == "best":
            return self._best()
        return self.values[0] if self.how == "naive" else self.values.mean(0)

    def _best(self) -> Tensor:
        index = self.log_fit.argmax(0)
        return self.values[index, torch.arange(len(index), device=index.device)]

    def _restored(self, values: Tensor) -> Any:
        """Return values ``(N, K, *input_shape)`` in the form in which the data were given."""
        frames = self.form.restore(values.flatten(0, 1))
        return frames.reshape(*values.shape[:2], *frames.shape[1:])


@dataclass(frozen=True)
class JointLikelihood:
    """Estimates of log p(x_1, ..., x_T) of individuals, in nats, of what was observed of them.

    Attributes:
        log_prob: ``(N,)``.
        effective_samples: ``(N,)``, the effective sample size of the importance weights, at most
            ``num_samples``. If it is near 1, the estimate is loose.
        num_samples: the number of importance samples of each individual.
        num_visits: ``(N,)``, the number of observed visits.
        num_features: ``(N,)``, the number of observed features of all visits.
    """

    log_prob: Tensor
    effective_samples: Tensor
    num_samples: int
    num_visits: Tensor
    num_features: Tensor

    def per_visit(self, *, constant: bool = True) -> float:
        """Return the mean over individuals of -log p / number of visits (thesis Table 6.1).

        Args:
            constant: False leaves out log(2 pi) / 2 for each observed feature, which is the
                constant of a normal likelihood.
        """
        nats = -self.log_prob.double()
        if not constant:
            nats = nats - 0.5 * math.log(2.0 * math.pi) * self.num_features
        return float((nats / self.num_visits).mean())
