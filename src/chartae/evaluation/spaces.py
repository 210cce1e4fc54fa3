"""Search spaces: what `tune` may choose, and what it chooses from for each model."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chartae.checks import check_choice
from chartae.data import ArrayDataset
from chartae.errors import ConfigurationError
from chartae.evaluation.grids import GRIDS
from chartae.models import MODELS
from chartae.training import fit_defaults

__all__ = ["Choice", "Interval", "Space", "default_space", "read_range"]

BATCH_SIZE = 128
"""The default of `chartae.fit`."""
NETWORKS = ("discriminator", "layer")
"""Arguments of the grid that suit the thesis' images only."""
WIDE = 20.0
"""From this ratio of the largest to the smallest value, a range is searched by orders."""


@dataclass(frozen=True)
class Interval:
    """Numbers from ``low`` to ``high``, both included; integers if both are.

    Args:
        low: the smallest value.
        high: the largest value.
        log: search orders of magnitude evenly, not values; then ``low`` is above 0.

    Raises:
        ConfigurationError: for other bounds.

    >>> Interval(1e-4, 1e-2, log=True)
    Interval(0.0001 to 0.01, by orders)
    >>> Interval(2, 64)
    Interval(2 to 64)
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        numbers = (self.low, self.high)
        fit = all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in numbers)
        if not fit or not -math.inf < self.low < self.high < math.inf:
            raise ConfigurationError(
                f"the range {self.low!r} to {self.high!r} is empty: expected two finite numbers, "
                "the smaller one first"
            )
        if self.log and self.low <= 0.0:
            raise ConfigurationError(
                f"the range {self.low!r} to {self.high!r} by orders: expected numbers above 0"
            )

    def __repr__(self) -> str:
        return f"Interval({self})"

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{', by orders' if self.log else ''}"

    @property
    def integer(self) -> bool:
        """Whether the values are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def ends(self) -> tuple[Any, ...]:
        """The smallest and the largest value."""
        return self.low, self.high

    def __contains__(self, value: object) -> bool:
        numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
        whole = isinstance(value, int) or not self.integer
        return numeric and whole and self.low <= value <= self.high  # type: ignore[operator]


@dataclass(frozen=True)
class Choice:
    """One of some values, in no order; they are JSON values.

    Args:
        values: one at least, all different.

    Raises:
        ConfigurationError: for other values.

    >>> Choice([2, 4, 8])
    Choice(2, 4 or 8)
    """

    values: Sequence[Any]

    def __post_init__(self) -> None:
        try:
            texts = [json.dumps(value, allow_nan=False) for value in self.values]
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"the choices {self.values!r} are not JSON: {error}"
            ) from error
        if not texts or len(set(texts)) < len(texts):
            raise ConfigurationError(
                f"the choices {self.values!r}: expected one value at least, all different"
            )

    def __repr__(self) -> str:
        return f"Choice({self})"

    def __str__(self) -> str:
        texts = [value if isinstance(value, str) else json.dumps(value) for value in self.values]
        return " or ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))

    @property
    def ends(self) -> tuple[Any, ...]:
        """All values."""
        return tuple(self.values)

    def __contains__(self, value: object) -> bool:
        return value in self.values


Space = Mapping[str, Interval | Choice]
"""For each name of an argument, the values to choose from."""
# On 1,000 MNIST images a betavae uses no latent from 30 on; all figures at 10 are worse than at 1.
NARROWER: Mapping[str, Space] = {"betavae": {"beta": Interval(0.01, 10.0, log=True)}}
"""Ranges of a model in place of those of the thesis' grid, where these would waste trials."""


def read_range(name: str, text: str) -> Interval | Choice:
    """Return the values that a text describes, for the argument ``name``.

    ``2:64`` are integers, ``0.1:1.0`` numbers, ``1e-4:1e-2:log`` numbers by orders of magnitude,
    and ``2,4,8`` or ``rbf,imq`` choices.

    Raises:
        ConfigurationError: for another form.

    >>> read_range("latent_dim", "2:64"), read_range("kernel", "rbf,imq")
    (Interval(2 to 64), Choice(rbf or imq))
    """
    low, colon, rest = text.partition(":")
    try:
        if not colon:
            return Choice([_value(part) for part in text.split(",")])
        high, colon, how = rest.partition(":")
        if colon and how != "log":
            raise ConfigurationError(f"{how!r} follows the second number: expected log")
        return Interval(_value(low), _value(high), log=bool(colon))
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{name}={text!r}: {error}; ranges are written as 2:64, 1e-4:1e-2:log or 2,4,8"
        ) from error


def _value(text: str) -> Any:
    """Return the JSON value of a text, or the text itself."""
    text = text.strip()
    if not text:
        raise ConfigurationError("a value is missing")
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def default_space(model: str, data: ArrayDataset) -> dict[str, Interval | Choice]:
    """Return what `tune` searches for a model, unless told otherwise.

    * ``learning_rate``: 1e-4 to 1e-2, by orders.
    * ``batch_size``: a quarter, a half, one and two times the default (128, and 5 for volumes), as
      far as the training set is as large.
    * ``latent_dim``: 2 to 32, by orders; models with a codebook keep theirs.
    * The arguments of the model that the thesis' benchmark varies, over the range of its grid
      (`GRIDS`); a narrower one for ``beta`` of a ``betavae``, 0.01 to 10.

    Args:
        model: a name (`chartae.models.MODELS`).
        data: the training set.

    Raises:
        ConfigurationError: for an unknown model.
    """
    check_choice("model", model, MODELS)
    size = int(fit_defaults(data).get("batch_size", BATCH_SIZE))
    sizes = sorted({max(1, round(size * times)) for times in (0.25, 0.5, 1, 2)})
    space: dict[str, Interval | Choice] = {
        "learning_rate": Interval(1e-4, 1e-2, log=True),
        "batch_size": Choice([one for one in sizes if one <= len(data)] or [len(data)]),
    }
    if MODELS[model].latent_space != "codes":
        space["latent_dim"] = Interval(2, 32, log=True)
    return space | own_space(model)


def own_space(model: str) -> dict[str, Interval | Choice]:
    """Return the ranges of a model's own arguments in the thesis' grid; empty without a grid.

    >>> own_space("betavae"), own_space("iwae")
    ({'beta': Interval(0.01 to 10, by orders)}, {'num_samples': Interval(2 to 12)})
    """
    grid = GRIDS["thesis"].get(model, [])
    values: dict[str, list[Any]] = {}
    for configuration in grid:
        for name, value in configuration.items():
            known = values.setdefault(name, [])
            known += [value] if value not in known else []
    ranges = {name: _range_of(found) for name, found in values.items() if name not in NETWORKS}
    return {**ranges, **NARROWER.get(model, {})}


def _range_of(values: Sequence[Any]) -> Interval | Choice:
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    if not numbers or len(values) == 1:
        return Choice(values)
    low, high = min(values), max(values)
    return Interval(low, high, log=low > 0 and high / low >= WIDE)
