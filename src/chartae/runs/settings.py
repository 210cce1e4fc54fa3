"""Settings of runs: JSON values by name, and their hashes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from chartae.errors import ConfigurationError

__all__ = ["Settings", "canonical", "grid", "run_key"]

Settings = Mapping[str, Any]
"""What determines a row: JSON values by name, the seed among them."""


def grid(**choices: Sequence[Any]) -> list[dict[str, Any]]:
    """Return all combinations of values, the last name varying fastest.

    >>> grid(model=["ae", "vae"], seed=[0, 1])[1]
    {'model': 'ae', 'seed': 1}
    """
    return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]


def run_key(settings: Settings) -> str:
    """Return the hash that names a run; the order of its settings does not matter.

    Raises:
        ConfigurationError: if a setting is not a JSON value, or not finite.

    >>> run_key({"seed": 0, "model": "ae"}) == run_key({"model": "ae", "seed": 0})
    True
    """
    return hashlib.blake2b(canonical(settings).encode(), digest_size=8).hexdigest()


def canonical(value: Settings) -> str:
    """Return the JSON text of settings, the same for equal settings."""
    try:
        return json.dumps(dict(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"settings={value!r} are not finite JSON values: {error}"
        ) from error
