"""Likelihoods of categories and counts."""

from collections.abc import Mapping
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, NegativeBinomial, OneHotCategorical
from torch.nn.functional import softplus
from torch.types import _size

from chartae.checks import check_choice
from chartae.distributions.likelihoods import Likelihood, register_likelihood
from chartae.distributions.moments import Moments
from chartae.errors import DataError

__all__ = ["CategoricalLikelihood", "NegativeBinomialLikelihood"]


class _Categories(OneHotCategorical):
    """One-hot categories. ``log_prob`` also accepts probabilities, as a cross-entropy does."""

    def log_prob(self, value: Tensor) -> Tensor:
        return (value * self.logits).sum(-1)  # torch keeps logits normalised

    def __repr__(self) -> str:
        return f"{type(self).__name__}(logits: {self.logits.size()})"  # torch's is empty


@register_likelihood("categorical")
class CategoricalLikelihood(Likelihood):
    r"""Categories, one-hot along the last dimension: :math:`\sum_k x_k \log p_k`.

    The decoder gives logits. The mean is the vector of probabilities. Probabilities are accepted in
    place of one-hot rows, as `BernoulliLikelihood` accepts grey values. The result is a log
    probability for one-hot rows only. A category is observed if the mask is True at all its K
    entries.

    Args:
        input_shape: ``(..., K)``, any number of variables of K categories.

    >>> likelihood = CategoricalLikelihood((2, 3))
    >>> likelihood(torch.zeros(5, 2, 3)).log_prob(torch.eye(3)[:2])
    tensor([-2.1972, -2.1972, -2.1972, -2.1972, -2.1972])
    """

    support = (0.0, 1.0)
    discrete = True

    def squashed(self, raw: Tensor) -> Tensor:
        """Map unbounded numbers to probabilities along the last dimension."""
        return raw.softmax(-1)

    def features(self, output: Tensor) -> Distribution:
        return _Categories(logits=output, validate_args=False)

    def filled(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return x with equal probabilities for categories that were not observed."""
        return torch.where(mask.all(-1, keepdim=True), x, 1.0 / x.shape[-1])

    def check_data(self, name: str, x: Tensor) -> None:
        """Raise `DataError` unless x is finite, and probabilities along its last dimension."""
        super().check_data(name, x)
        totals = x.sum(-1)
        worst = float(totals.flatten()[(totals - 1.0).abs().argmax()])
        if abs(worst - 1.0) > 1e-3:
            raise DataError(
                f"{name} has a row of sum {worst:g}: {self.label} expects categories along the "
                "last dimension, one-hot or as probabilities of sum 1"
            )


class _Counts(NegativeBinomial):
    """Negative binomial in float64, because its log-gammas cancel; results have another dtype."""

    def __init__(self, log_mean: Tensor, dispersion: Tensor) -> None:
        self.dtype = log_mean.dtype
        size = 1.0 / dispersion.double()
        super().__init__(size, logits=log_mean.double() - size.log(), validate_args=False)

    def expand(self, batch_shape: _size, _instance: Self | None = None) -> Self:
        new = type(self).__new__(type(self)) if _instance is None else _instance
        NegativeBinomial.expand(self, batch_shape, new)
        new.dtype = self.dtype
        return new

    @property
    def mean(self) -> Tensor:
        return super().mean.to(self.dtype)

    @property
    def variance(self) -> Tensor:
        return super().variance.to(self.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        log_prob: Tensor = NegativeBinomial.log_prob(self, value.double())
        return log_prob.to(self.dtype)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        with torch.no_grad():
            rate = self._gamma.sample(torch.Size(sample_shape))
            # Torch's Poisson overflows above 2^63. Above 2^53 its noise is below rounding anyway.
            large = rate > 2.0**53
            counts = torch.where(large, rate, torch.poisson(rate.masked_fill(large, 0.0)))
            return counts.clamp(max=torch.finfo(self.dtype).max).to(self.dtype)


@register_likelihood("negative_binomial")
class NegativeBinomialLikelihood(Likelihood):
    r"""Negative binomial for counts, with mean m and variance :math:`m + \alpha m^2`.

    The decoder gives log m minus an offset. The offset is the log mean of the training set
    (`set_units`), of each feature for vectors, or of all values for other arrays. The encoder
    receives log(1 + x). The dispersion :math:`\alpha` is learned (scvi-tools calls
    :math:`\theta = 1/\alpha` the inverse dispersion).

    Args:
        input_shape: shape of one observation: counts 0, 1, 2, ... as floats.
        dispersion: ``"per_feature"``, or ``"learned"`` for one value shared by all features.

    Raises:
        ConfigurationError: for another ``dispersion``.

    >>> likelihood = NegativeBinomialLikelihood((3,))
    >>> likelihood(torch.tensor([[0.0, 1.0, 2.0]])).mean
    tensor([[1.0000, 2.7183, 7.3891]], grad_fn=...)
    """

    support = (0.0, torch.inf)
    discrete = True
    floor = 1e-4  # below it, the distribution is practically a Poisson
    ceiling = 80.0  # of log m: e^80 is still finite in float32
    has_units = True
    optional_buffers: Mapping[str, float] = {"log_mean": 0.0}
    log_mean: Tensor

    def __init__(
        self,
        input_shape: tuple[int, ...],
        dispersion: Literal["per_feature", "learned"] = "per_feature",
    ) -> None:
        check_choice("dispersion", dispersion, ("per_feature", "learned"))
        super().__init__(input_shape)
        shape = self.input_shape if dispersion == "per_feature" else ()
        self.raw_dispersion = nn.Parameter(torch.zeros(shape))
        vector = len(self.input_shape) == 1
        self.register_buffer("log_mean", torch.zeros(self.input_shape if vector else ()))

    @property
    def dispersion(self) -> Tensor:
        """The dispersion alpha, a scalar or of the shape of one observation."""
        return softplus(self.raw_dispersion) + self.floor

    @torch.no_grad()
    def set_units(self, moments: Moments) -> None:
        """Set the offset to the log mean of the training set. A total of 0 counts as one half."""
        found = moments if self.log_mean.dim() else moments.pooled()
        self.log_mean.copy_(found.mean.clamp_min(0.5 / found.count.clamp_min(1.0)).log())

    def encoder_input(self, x: Tensor) -> Tensor:
        """Return log(1 + x), because counts and their means span orders of magnitude."""
        return x.log1p()

    def squashed(self, raw: Tensor) -> Tensor:
        """Map unbounded numbers to positive ones, around the mean of the training set."""
        return softplus(raw + self.log_mean).expm1()

    def features(self, output: Tensor) -> Distribution:
        log_mean = (output + self.log_mean).clamp(max=self.ceiling)
        return _Counts(log_mean, self.dispersion)

    def check_data(self, name: str, x: Tensor) -> None:
        """Raise `DataError` unless x holds finite whole numbers, at least 0."""
        super().check_data(name, x)
        fractional = x != x.round()
        if bool(fractional.any()):
            raise DataError(
                f"{name} has {int(fractional.sum())} value(s) that are not whole numbers, such as "
                f"{float(x[fractional][0]):g}: {self.label} expects counts"
            )
