"""Likelihoods p(x|z): modules that turn a decoder's output into a distribution over x.

Every density includes its constants, so that log p(x) can be compared between models and with
published results (MATH.md section 1). With a mask, the sum runs over the observed features only.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Laplace, Normal
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from chartae.checks import check_choice, check_finite, check_integer, check_number, named_options
from chartae.distributions.bounded import ContinuousBernoulli, DiscretizedLogistic
from chartae.distributions.moments import Moments
from chartae.errors import ConfigurationError, DataError

__all__ = [
    "LIKELIHOODS",
    "BernoulliLikelihood",
    "ContinuousBernoulliLikelihood",
    "DiscretizedLogisticLikelihood",
    "GaussianLikelihood",
    "LaplaceLikelihood",
    "Likelihood",
    "Observation",
    "ScaledLikelihood",
    "make_likelihood",
    "register_likelihood",
]

ScaleKind = Literal["learned", "per_feature"]
Link = Literal["auto", "identity", "sigmoid"]


class Observation(Independent[Distribution]):
    """A distribution over a whole observation, whose ``log_prob`` accepts a mask of features."""

    def log_prob(self, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return log p(x|z), summed over the event.

        Args:
            value: observations, broadcastable with ``(..., *event_shape)``.
            mask: boolean, True where a feature is observed; None if all are. The entries of
                ``value`` where it is False, NaN included, change neither the result nor its
                gradients. A variable of several entries is observed if all its entries are.
        """
        if mask is None and isinstance(self.base_dist, Summed):
            return self.base_dist.sum_log_prob(value, self.reinterpreted_batch_ndims)
        if mask is not None:
            value = torch.where(mask, value, 0.0)
        terms: Tensor = self.base_dist.log_prob(value)
        if mask is not None:
            for _ in self.base_dist.event_shape:
                mask = mask.all(-1)
            terms = torch.where(mask, terms, 0.0)
        dims = self.reinterpreted_batch_ndims
        return terms.flatten(-dims).sum(-1) if dims else terms


class Summed(Distribution):
    """A distribution of features that computes the sum of its log density in fewer passes."""

    def sum_log_prob(self, value: Tensor, dims: int) -> Tensor:
        """Return the log density, summed over the last ``dims`` dimensions, at least one."""
        raise NotImplementedError


class BernoulliFeatures(Bernoulli, Summed):
    """Bernoulli features."""

    def sum_log_prob(self, value: Tensor, dims: int) -> Tensor:
        logits, value = torch.broadcast_tensors(self.logits, value)
        nats = binary_cross_entropy_with_logits(logits, value, reduction="none")
        return -nats.flatten(-dims).sum(-1)


class NormalFeatures(Normal, Summed):
    """Normal features."""

    own_scale: Tensor | None = None
    """The scale before it is expanded: one for all features, ``()``, or one for each."""

    def sum_log_prob(self, value: Tensor, dims: int) -> Tensor:
        scale = self.scale if self.own_scale is None else self.own_scale
        # The difference is divided by the scale first, so that the square does not overflow.
        squares = ((value - self.loc) / scale).square().flatten(-dims).sum(-1)
        event = self.loc.shape[-dims:]
        logs = scale.log()
        constant = logs.expand(event).sum() if logs.dim() <= dims else logs.flatten(-dims).sum(-1)
        return -0.5 * squares - constant - 0.5 * math.log(2.0 * math.pi) * math.prod(event)


class Likelihood(nn.Module):
    """Base of all likelihoods. Calling one with a decoder's output returns an `Observation`.

    A subclass defines `features`, the distribution of each single feature. It also defines the
    shape of the decoder's output (`output_shape`), the range of valid data (`support`) and the
    scale of the encoder's input (`encoder_input`).

    Args:
        input_shape: shape of one observation.
    """

    support: tuple[float, float] = (-math.inf, math.inf)
    discrete: bool = False
    """Whether the data are discrete (counts, categories), so that a mean is not a valid value."""
    details: str = ""
    """Text that messages add to the likelihood's name."""
    has_units: bool = False
    """Whether it rescales the data by units that `set_units` computes from the training set."""
    optional_buffers: Mapping[str, float] = {}
    """Buffers that are missing in files of earlier versions, with their default values."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.input_shape = tuple(input_shape)

    @property
    def samples_are_draws(self) -> bool:
        """Whether a sample is a draw of p(x|z) (tables, counts, categories) and not its mean."""
        return self.discrete or (self.has_units and len(self.input_shape) == 1)

    @property
    def label(self) -> str:
        """The argument that selects this likelihood, for messages."""
        names = [name for name, kind in LIKELIHOODS.items() if kind is type(self)]
        chosen = f"likelihood={names[0]!r}" if names else f"the likelihood {type(self).__name__}"
        return chosen + self.details

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the decoder's output for one latent."""
        return self.input_shape

    def features(self, output: Tensor) -> Distribution:
        """Return the distribution of each feature, given the decoder's output."""
        raise NotImplementedError

    def forward(self, output: Tensor) -> Observation:
        distribution = self.features(output)
        dims = len(self.input_shape) - len(distribution.event_shape)
        return Observation(distribution, dims, validate_args=False)

    def set_units(self, moments: Moments) -> None:
        """Set the units of the data from the moments of a training set. `fit` calls it.

        It does nothing if the range of the likelihood is fixed.

        Raises:
            DataError: if a deviation is too small for the dtype to hold its square.
        """

    def filled(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return x with a neutral value where the mask is False; `check_data` accepts it."""
        return torch.where(mask, x, 0.0)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, value in self.optional_buffers.items():
            state_dict.setdefault(prefix + name, torch.full_like(self.get_buffer(name), value))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def encoder_input(self, x: Tensor) -> Tensor:
        """Return x on the scale of the networks' input; by default, x itself."""
        return x

    def squashed(self, raw: Tensor) -> Tensor:
        """Map unbounded numbers smoothly to the support, for example for pseudo-inputs."""
        low, high = self.support
        if math.isinf(low) and math.isinf(high):
            return raw
        if math.isinf(high):
            return low + softplus(raw)
        if math.isinf(low):
            return high - softplus(raw)
        return low + (high - low) * raw.sigmoid()

    def draw(self, output: Tensor) -> Tensor:
        """Return a draw of x given the decoder's output, from torch's global generators.

        Draws are valid data: `check_data` accepts them. If the density extends beyond the support
        (a Gaussian with a sigmoid link), draws are clamped to the support.
        """
        drawn: Tensor = self(output).sample()
        return drawn.clamp(*self.support)

    def check_data(self, name: str, x: Tensor) -> None:
        """Raise `DataError` if ``x`` is not finite or is outside the likelihood's support."""
        least, most = x.aminmax()
        if not bool((most - least).isfinite()):  # it is NaN if x has a NaN
            check_finite(name, x)
        self.check_range(name, least, most)

    def check_range(self, name: str, least: Tensor, most: Tensor) -> None:
        """Raise `DataError` unless data from ``least`` to ``most`` are in the support."""
        low, high = self.support
        if least < low or most > high:
            raise DataError(
                f"{name} has values in [{least:g}, {most:g}]: {self.label} expects values in "
                f"[{low:g}, {high:g}]; likelihood='gaussian' with link='identity' takes any values"
            )


LIKELIHOODS: dict[str, type[Likelihood]] = {}
"""The likelihoods by name; `register_likelihood` adds to them."""

AnyLikelihood = TypeVar("AnyLikelihood", bound=type[Likelihood])


def register_likelihood(name: str) -> Callable[[AnyLikelihood], AnyLikelihood]:
    """Register a class ``(input_shape, **options)`` as the likelihood ``name``.

    A model with a registered likelihood can be saved and loaded.
    """

    def add(likelihood: AnyLikelihood) -> AnyLikelihood:
        LIKELIHOODS[name] = likelihood
        return likelihood

    return add


@register_likelihood("bernoulli")
class BernoulliLikelihood(Likelihood):
    r"""Bernoulli: :math:`x \log p + (1 - x) \log(1 - p)`. The decoder gives logits.

    Grey values in [0, 1] are accepted, as is usual. The result is a log probability for binary data
    only. `ContinuousBernoulliLikelihood` has a density for grey values.
    """

    support = (0.0, 1.0)

    def features(self, output: Tensor) -> Distribution:
        return BernoulliFeatures(logits=output, validate_args=False)


@register_likelihood("continuous_bernoulli")
class ContinuousBernoulliLikelihood(Likelihood):
    """Continuous Bernoulli for grey values in [0, 1]. The decoder gives logits."""

    support = (0.0, 1.0)

    def features(self, output: Tensor) -> Distribution:
        return ContinuousBernoulli(output)


class ScaledLikelihood(Likelihood):
    r"""A location given by the decoder, and a scale: fixed, learned, or learned per feature.

    Without a sigmoid link it accepts data of any scale. It then has units: a centre c and a spread
    s, computed from the training set (`set_units`). The networks' input is (x - c) / s. The
    location is c + s a, where a is the decoder's output. Decoded values and densities are in the
    units of the data. Vectors have one spread for each feature. Images and other arrays have one
    spread in all: the root of the mean variance of a feature. Centre and spread are 0 and 1 for
    data that lie in [0, 1] and have a spread of at least 0.1.

    Other images and arrays often have bounds, as blank and saturated pixels show. Bounds are
    assumed if one value in 200, and at least ten values, are exactly equal to the minimum or to the
    maximum of the training set. The location is then kept between the minimum l and the maximum h.
    It is l + (h - l) sigmoid(b), with b linear in a, such that the location is c + s a to first
    order in a. In this formula, c is kept at a distance of at least a hundredth of the range from
    the bounds. The density is positive beyond the bounds, and data may lie there.

    Args:
        input_shape: shape of one observation.
        scale: a positive number (fixed), ``"learned"`` (one for all features) or
            ``"per_feature"``; in units of the spread.
        link: ``"sigmoid"`` keeps the mean in [0, 1], for data in [0, 1]. ``"auto"`` is the
            identity, or keeps the mean within the bounds of arrays that have them. ``"identity"``
            has no bounds.

    Raises:
        ConfigurationError: for another ``scale`` or ``link``.
    """

    floor = 1e-3  # lower bound of a learned scale: the density of constant data stays finite
    margin = 0.01  # minimum distance of the centre from the bounds, as a share of the range
    center: Tensor
    spread: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        input_shape: tuple[int, ...],
        scale: float | ScaleKind = "learned",
        link: Link = "auto",
    ) -> None:
        super().__init__(input_shape)
        check_choice("link", link, get_args(Link))
        self.link = link
        if link == "sigmoid":
            self.support = (0.0, 1.0)
            self.details = " with link='sigmoid'"
        if self.support == (-math.inf, math.inf):
            self.has_units = True
            of_units: tuple[int, ...] = self.input_shape if len(self.input_shape) == 1 else ()
            self.register_buffer("center", torch.zeros(self.input_shape))
            self.register_buffer("spread", torch.ones(of_units))
            self.optional_buffers = {"center": 0.0, "spread": 1.0}
        self.may_have_bounds = self.has_units and link == "auto" and len(self.input_shape) > 1
        if self.may_have_bounds:
            self.register_buffer("low", torch.tensor(-math.inf))
            self.register_buffer("high", torch.tensor(math.inf))
            self.optional_buffers = {**self.optional_buffers, "low": -math.inf, "high": math.inf}
        if isinstance(scale, str):
            check_choice("scale", scale, ("learned", "per_feature"))
            shape = self.input_shape if scale == "per_feature" else ()
            start = math.log(math.expm1(0.5))  # a scale of 1/2: half the range of data in [0, 1]
            self.raw_scale = nn.Parameter(torch.full(shape, start))
        else:
            check_number("scale", scale, above=0.0)
            self.register_buffer("fixed_scale", torch.tensor(float(scale)))

    @property
    def scale(self) -> Tensor:
        """The scale in the data's units, a scalar or of the shape of one observation.

        It is 1 for a constant feature, which gives no information about its scale.
        """
        scale = self.relative_scale
        if not self.has_units:
            return scale
        return torch.where(self.spread > 0.0, scale * self.spread, 1.0)

    @property
    def relative_scale(self) -> Tensor:
        """The scale in units of the spread."""
        if hasattr(self, "raw_scale"):
            return softplus(self.raw_scale) + self.floor
        scale: Tensor = self.get_buffer("fixed_scale")
        return scale

    @torch.no_grad()
    def set_units(self, moments: Moments) -> None:
        """Set centre, spread and bounds from the moments of the training set.

        Centre and spread are the mean and the standard deviation. They are 0 and 1 for data in
        [0, 1] with an overall spread of at least 0.1. A constant feature has the spread 0: its
        decoded value is always the constant. The networks' input is then the difference from the
        constant, without rescaling.

        Raises:
            DataError: if a deviation is too small for the dtype to hold its square.
        """
        if not self.has_units:
            return
        if moments.fills_unit_range:
            self.center.zero_()
            self.spread.fill_(1.0)
            self._set_bounds(-math.inf, math.inf)
            return
        constant = moments.low >= moments.high
        deviation = moments.deviation
        if not self.spread.dim():
            constant, deviation = constant.all(), moments.spread
        least, small = 1.0 / _largest(self.spread.dtype), deviation.masked_fill(constant, 1.0)
        if bool((small < least).any()):
            where = f" in feature {int(small.argmin())}" if small.dim() else ""
            raise DataError(
                f"x has a standard deviation of {small.min():.3g}{where}: expected at least "
                f"{least:g}, so that squares do not underflow {self.spread.dtype}; rescale x"
            )
        # Because of rounding, the mean of equal numbers may differ from that number.
        self.center.copy_(torch.where(moments.low == moments.high, moments.low, moments.mean))
        self.spread.copy_(torch.where(constant, 0.0, deviation))
        if moments.shows_bounds:
            self._set_bounds(float(moments.low.amin()), float(moments.high.amax()))
        else:
            self._set_bounds(-math.inf, math.inf)

    def _set_bounds(self, low: float, high: float) -> None:
        if self.may_have_bounds:
            self.low.fill_(low)
            self.high.fill_(high)

    def check_range(self, name: str, least: Tensor, most: Tensor) -> None:
        """Raise `DataError` unless data are in the support, and can be squared."""
        super().check_range(name, least, most)
        largest, limit = torch.maximum(-least, most), _largest(most.dtype)
        if self.has_units and bool(largest > limit):
            raise DataError(
                f"{name} has values up to {largest:.3g}: expected at most {limit:g}, so that "
                f"squares do not overflow {most.dtype}; rescale {name}"
            )

    def check_buffers(self) -> None:
        """Raise `DataError` if a loaded spread is negative, or the lower bound is not below the
        upper bound.
        """
        if self.has_units and not bool((self.spread >= 0.0).all()):
            raise DataError("spread has negative values: expected standard deviations, at least 0")
        if self.may_have_bounds and not bool(self.low < self.high):
            raise DataError(f"low={self.low:g} and high={self.high:g}: expected low below high")

    def encoder_input(self, x: Tensor) -> Tensor:
        """Return (x - centre) / spread."""
        if not self.has_units:
            return x
        return (x - self.center) / self.spread.where(self.spread > 0.0, 1.0)

    def filled(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return x with the centre wherever the mask is False."""
        if not self.has_units:
            return super().filled(x, mask)
        return torch.where(mask, x, self.center.to(x.device))

    def squashed(self, raw: Tensor) -> Tensor:
        """Map unbounded numbers to data: the inverse of `encoder_input`, up to bounds."""
        return self.location(raw) if self.has_units else super().squashed(raw)

    def location(self, output: Tensor) -> Tensor:
        """Return the mean of each feature, given the decoder's output."""
        if not self.has_units:
            return output.sigmoid() if self.link == "sigmoid" else output
        free = torch.addcmul(self.center, self.spread, output)
        if self._is_free():
            return free
        return torch.where(self.high < math.inf, self._within_bounds(output), free)

    def _is_free(self) -> bool:
        """Whether it is known without cost that there are no bounds.

        On a GPU the check would wait for the device, and in a compiled graph it would break the
        graph. In both cases the answer is False.
        """
        if not self.may_have_bounds:
            return True
        if torch.compiler.is_compiling() or not self.high.is_cpu:
            return False
        return self.high.item() == math.inf

    def _within_bounds(self, output: Tensor) -> Tensor:
        """Return the location between the bounds; without bounds, some finite numbers."""
        bounded = self.high < math.inf
        low, high = torch.where(bounded, self.low, 0.0), torch.where(bounded, self.high, 1.0)
        place = ((self.center - low) / (high - low)).clamp(self.margin, 1.0 - self.margin)
        slope = self.spread / ((high - low) * place * (1.0 - place))
        return torch.lerp(low, high, torch.addcmul(place.logit(), slope, output).sigmoid())

    def draw(self, output: Tensor) -> Tensor:
        """Return a draw of x given the decoder's output. Constant features keep their value.

        Draws are clamped to the bounds, if there are bounds.
        """
        drawn = super().draw(output)
        if not self.has_units:
            return drawn
        drawn = torch.where(self.spread > 0.0, drawn, self.center)
        return drawn.clamp(self.low, self.high) if self.may_have_bounds else drawn


def _largest(dtype: torch.dtype) -> float:
    """Return the largest allowed value. Its inverse is the smallest allowed deviation."""
    return 1e18 if dtype == torch.float32 else 1e150


@register_likelihood("gaussian")
class GaussianLikelihood(ScaledLikelihood):
    r"""Gaussian, with the term :math:`-D/2 \log 2\pi\sigma^2`; arguments of `ScaledLikelihood`."""

    def features(self, output: Tensor) -> Distribution:
        scale = self.scale
        features = NormalFeatures(self.location(output), scale, validate_args=False)
        features.own_scale = scale
        return features


@register_likelihood("laplace")
class LaplaceLikelihood(ScaledLikelihood):
    """Laplace: absolute error with a scale; arguments of `ScaledLikelihood`."""

    def features(self, output: Tensor) -> Distribution:
        return Laplace(self.location(output), self.scale, validate_args=False)


@register_likelihood("discretized_logistic")
class DiscretizedLogisticLikelihood(ScaledLikelihood):
    """Discretized logistic: probabilities of 8-bit images, scaled to [0, 1].

    Args:
        input_shape: shape of one observation.
        scale: as in `ScaledLikelihood`.
        levels: number of values of a pixel, at least 2.
    """

    support = (0.0, 1.0)

    def __init__(
        self,
        input_shape: tuple[int, ...],
        scale: float | ScaleKind = "learned",
        levels: int = 256,
    ) -> None:
        check_integer("levels", levels, minimum=2)
        super().__init__(input_shape, scale, link="sigmoid")
        self.levels = levels
        self.details = ""  # the link cannot be chosen

    def features(self, output: Tensor) -> Distribution:
        return DiscretizedLogistic(self.location(output), self.scale, self.levels)


def make_likelihood(
    spec: str | Mapping[str, Any] | Likelihood, input_shape: tuple[int, ...]
) -> Likelihood:
    """Return the likelihood for a name or a mapping ``{"name": ..., **options}``, or the object.

    >>> make_likelihood({"name": "gaussian", "scale": 0.1}, (28, 28)).scale
    tensor(0.1000)

    Raises:
        ConfigurationError: for an unknown name or option, or an object for another shape.
    """
    if isinstance(spec, Likelihood):
        if spec.input_shape != tuple(input_shape):
            raise ConfigurationError(
                f"likelihood is for data of shape {spec.input_shape}: expected {input_shape}"
            )
        return spec
    name, options = named_options("likelihood", spec, LIKELIHOODS, ", or a Likelihood")
    try:
        return LIKELIHOODS[name](tuple(input_shape), **options)
    except TypeError as error:
        raise ConfigurationError(f"likelihood={spec!r}: {error}") from error
