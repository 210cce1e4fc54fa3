"""How good imputed, predicted and generated follow-ups are."""

from dataclasses import dataclass

import torch
from torch import Tensor

from chartae.checks import check_number, check_shape
from chartae.data import Sequences
from chartae.errors import DataError
from chartae.longitudinal import Draws

__all__ = [
    "Calibration",
    "Nearest",
    "calibration",
    "carried_forward",
    "coverage",
    "hidden_error",
    "nearest_sequences",
    "roughness",
]


@dataclass(frozen=True)
class Calibration:
    """Shares of true values inside the central intervals of draws.

    Attributes:
        levels: ``(L,)``, the nominal levels of the intervals, in (0, 1).
        shares: ``(L,)``, the shares of hidden values inside; equal to the levels if the
            uncertainty is right, less if it is too small.
    """

    levels: Tensor
    shares: Tensor


@dataclass(frozen=True)
class Nearest:
    """The nearest training individual of each generated one.

    Attributes:
        index: ``(n,)``, its place in the training set.
        distance: ``(n,)``, the root mean square difference of a feature.
    """

    index: Tensor
    distance: Tensor


def carried_forward(seen: Sequences) -> Tensor:
    """Return the last observed value of each feature at every visit, ``(N, T, *input_shape)``.

    It is the simplest imputation and prediction. Visits before the first observed value have that
    value. A feature that was never observed of an individual has its mean over the others.

    >>> import torch
    >>> truth = Sequences(torch.tensor([[[1.0], [2.0], [4.0]]]), times=[0, 1, 2])
    >>> carried_forward(truth.first(2)).flatten()
    tensor([1., 2., 2.])
    """
    known, x = seen.known, seen.x
    visit = torch.arange(x.shape[1], device=x.device).reshape(1, -1, *[1] * (x.ndim - 2))
    last = torch.where(known, visit, -1).cummax(1).values
    first = known.float().argmax(1, keepdim=True)  # the first True
    values = x.gather(1, torch.where(last >= 0, last, first))
    mean = torch.where(known, x, 0.0).sum((0, 1)) / known.sum((0, 1)).clamp(min=1)
    return torch.where(known.any(1, keepdim=True), values, mean)


def hidden_error(draws: Draws, truth: Sequences, seen: Sequences) -> float:
    """Return the mean square error of what was hidden, at least 0 (thesis Figs 6.3 and 6.13).

    Args:
        draws: the result of ``model.impute(seen)``; its `point` is compared.
        truth: the individuals before hiding.
        seen: the same individuals with a part hidden (`Sequences.hidden`, `Sequences.first`).

    Raises:
        DataError: if nothing was hidden, or if the three do not belong together.

    >>> import torch
    >>> from chartae.longitudinal import FlowVAE
    >>> truth = Sequences(torch.rand(5, 4, 3), times=torch.arange(4.0))
    >>> seen = truth.first(2)
    >>> draws = FlowVAE((3,), latent_dim=2).eval().impute(seen)
    >>> hidden_error(draws, truth, seen) > 0.0
    True
    """
    hidden = _hidden(draws, truth, seen)
    values = draws.point_values().to(truth.x)  # not in the form of the data, such as bytes
    return float((values - truth.x)[hidden].square().mean())


def coverage(draws: Draws, truth: Sequences, seen: Sequences, *, level: float = 0.9) -> float:
    """Return the share of hidden values inside the central interval of the draws, in [0, 1].

    Draws should be those of observations (``noise=True``), and 50 or more. Arguments and errors as
    in `hidden_error`.

    Args:
        draws: the draws.
        truth: the individuals before hiding.
        seen: the same individuals with a part hidden.
        level: the nominal level of the interval, in (0, 1).
    """
    check_number("level", level, above=0.0, below=1.0)
    return float(_shares(draws, truth, seen, torch.tensor([level]))[0])


def calibration(
    draws: Draws, truth: Sequences, seen: Sequences, *, features: Tensor | None = None
) -> Calibration:
    """Return the shares of hidden values inside central intervals of levels .05, .1, ..., .95.

    Errors as in `coverage`.

    Args:
        draws: the draws.
        truth: the individuals before hiding.
        seen: the same individuals with a part hidden.
        features: bool ``(*input_shape)``, the features that count, such as the pixels that are not
            background; None means all.
    """
    levels = torch.arange(1, 20) / 20.0
    return Calibration(levels, _shares(draws, truth, seen, levels, features))


def roughness(sequences: Sequences) -> float:
    """Return how far visits are from the line between their neighbours in time, at least 0.

    It is the root mean square of the difference between a visit and the linear interpolation of the
    visits before and after it, divided by the root mean square of the change from visit to visit.
    Straight courses have 0; visits without order about 0.87, that is the root of 3/4.

    Args:
        sequences: individuals of which some have three consecutive visits that were observed in
            full; others do not count.

    Raises:
        DataError: if no individual has three such visits.
    """
    full = sequences.known.flatten(2).all(-1)
    x, times = sequences.x.flatten(2).double(), sequences.times
    three = full[:, :-2] & full[:, 1:-1] & full[:, 2:]
    if not bool(three.any()):
        raise DataError("no individual has three consecutive visits: expected at least one")
    before, here, after = x[:, :-2][three], x[:, 1:-1][three], x[:, 2:][three]
    start, middle, end = times[:, :-2][three], times[:, 1:-1][three], times[:, 2:][three]
    share = ((middle - start) / (end - start))[:, None]
    deviation = here - (1.0 - share) * before - share * after
    change = 0.5 * ((here - before).square().mean() + (after - here).square().mean())
    return float((deviation.square().mean() / change).sqrt()) if change > 0.0 else 0.0


def nearest_sequences(train: Sequences, generated: Tensor) -> Nearest:
    """Return the training individual nearest to each generated one (thesis Fig. 6.6).

    Visits are compared one by one, features that the training individual was not observed in are
    left out, and individuals are as far apart as a feature is on average.

    Args:
        train: the training set.
        generated: ``(n, T, *input_shape)``, at the times of the training set's visits.

    Raises:
        DataError: if the shapes are different.
    """
    if tuple(generated.shape[1:]) != tuple(train.x.shape[1:]):
        raise DataError(
            f"generated has shape {tuple(generated.shape)}: expected (n, "
            f"{', '.join(map(str, train.x.shape[1:]))}), as the training set"
        )
    known = train.known.flatten(1).double()
    x, y = train.x.flatten(1).double() * known, generated.flatten(1).to(train.x).double()
    # sum of known (x - y)^2, by matrix products
    squares = (x.square().sum(1) + (y.square() @ known.mT) - 2.0 * (y @ x.mT)).clamp(min=0.0)
    distances = (squares / known.sum(1)).sqrt()
    nearest = distances.min(1)
    return Nearest(nearest.indices, nearest.values)


def _hidden(draws: Draws, truth: Sequences, seen: Sequences) -> Tensor:
    if not truth.x.shape == seen.x.shape == draws.values.shape[1:]:
        raise DataError(
            f"draws are of shape {tuple(draws.values.shape[1:])}, truth {tuple(truth.x.shape)} and "
            f"seen {tuple(seen.x.shape)}: expected the same individuals and visits"
        )
    hidden = truth.known & ~seen.known
    if not bool(hidden.any()):
        raise DataError("nothing is hidden: expected seen to have less observed than truth")
    return hidden


def _shares(
    draws: Draws,
    truth: Sequences,
    seen: Sequences,
    levels: Tensor,
    features: Tensor | None = None,
) -> Tensor:
    hidden = _hidden(draws, truth, seen)
    if features is not None:
        check_shape("features", features, truth.input_shape)
        hidden = hidden & features
        if not bool(hidden.any()):
            raise DataError("no value of these features is hidden: expected some")
    # Values of one feature side by side, sorted once for all levels; torch.quantile takes at most
    # 2 ** 24 numbers.
    values, target = draws.values[:, hidden].mT, truth.x[hidden].double()
    ends = torch.cat([0.5 - levels.double() / 2.0, 0.5 + levels.double() / 2.0]).to(target)
    inside = torch.zeros(len(levels), dtype=torch.float64, device=target.device)
    size = max(1, 2**24 // len(draws))
    for part, true in zip(values.split(size), target.split(size), strict=True):
        low, high = part.double().contiguous().quantile(ends, -1).chunk(2)
        inside += ((low <= true) & (true <= high)).sum(1)
    return inside / len(target)
