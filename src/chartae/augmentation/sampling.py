"""How many samples of each class are wanted, and how a sampler draws them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from chartae.checks import check_choice, check_integer
from chartae.errors import ConfigurationError
from chartae.samplers import Sampler

__all__ = ["Count", "counts_by_name", "draw"]

Count = int | Mapping[Any, int] | Literal["balance"]


def counts_by_name(
    per_class: Count, names: Sequence[str], sizes: Mapping[str, int]
) -> dict[str, int]:
    """Return the number of samples of each class, as `Augmenter.sample` understands it.

    Args:
        per_class: as in `Augmenter.sample`.
        names: names of the classes that can be sampled.
        sizes: the number of real examples of each class, by name.

    Raises:
        ConfigurationError: for an unknown label, a count below 1, or if nothing is to be balanced.
    """
    if per_class == "balance":
        largest = max(sizes.values())
        per_class = {name: largest - sizes[name] for name in names if sizes[name] < largest}
        if not per_class:
            raise ConfigurationError(
                "per_class='balance', and all classes have the same size: expected a number"
            )
    if isinstance(per_class, str):
        raise ConfigurationError(
            f"per_class={per_class!r}: expected a number, a mapping or 'balance'"
        )
    if not isinstance(per_class, Mapping):
        per_class = dict.fromkeys(names, per_class)
    if not per_class:
        raise ConfigurationError(f"per_class is empty: expected counts of {', '.join(names)}")
    counts = {str(label): n for label, n in per_class.items()}
    for name, n in counts.items():
        check_choice("per_class", name, names)
        check_integer(f"per_class[{name!r}]", n, minimum=1)
    return {name: int(n) for name, n in counts.items()}


def draw(sampler: Sampler, n: int, seed: int, y: int | None) -> Tensor:
    """Return n observations: draws from the likelihood if its means are not valid observations."""
    return sampler.sample(n, seed=seed, y=y, draw=sampler.model.observation_model.samples_are_draws)
