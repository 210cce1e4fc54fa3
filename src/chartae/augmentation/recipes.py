"""The hyper-parameters of the thesis' tables, as arguments of an `Augmenter` by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["RECIPES", "Recipe"]

WHOLE = 1_000_000
"""Size of a batch that takes all examples, as the thesis trains on small sets."""
LIMIT = 10_000
"""Limit of epochs; training ends before, when the loss stops falling."""


@dataclass(frozen=True)
class Recipe:
    """Arguments of an `Augmenter` under which the thesis trained a data set.

    Attributes:
        source: tables and sections of the thesis, and what they do not give.
        arguments: arguments of `Augmenter`: ``model``, ``sampler`` and the options of the model,
            the sampler and the training. None of them depends on the shape of the data.
    """

    source: str
    arguments: Mapping[str, Any]


def _thesis(
    source: str,
    network: str,
    latent_dim: int,
    *,
    step_size: float = 1e-2,
    temperature: float = 0.8,
    regularization: float = 1e-3,
    **training: Any,
) -> Recipe:
    """Return a recipe; the defaults are those that most rows of the tables share.

    The tables give K = 3 leapfrog steps and sqrt(beta_0) = 0.3 for all sets. Section 1.8.2 gives
    10 to 15 leapfrog steps of size 0.01 to 0.05 for the sampler of the volume, and a footnote of
    section 1.8.3 300 steps of the chain. The decoders end in a sigmoid; the tables name no
    likelihood, and the Bernoulli is that of the geometry-aware VAE's paper for images in [0, 1].
    """
    return Recipe(
        source,
        {
            "model": "rhvae",
            "sampler": "volume",
            "model_options": {
                "latent_dim": latent_dim,
                "likelihood": "bernoulli",
                "encoder": f"thesis/{network}",
                "decoder": f"thesis/{network}",
                "metric_network": {"name": "mlp", "hidden": [400]},
                "num_leapfrog": 3,
                "step_size": step_size,
                "temperature": temperature,
                "regularization": regularization,
                "sqrt_beta_0": 0.3,
            },
            "sampler_options": {
                "target": "volume",
                "num_steps": 300,
                "num_leapfrog": 15,
                "step_size": 0.01,
            },
            "fit_options": {
                "learning_rate": 1e-3,
                "batch_size": WHOLE,
                "epochs": LIMIT,
                "patience": 20,
                **training,
            },
        },
    )


RECIPES: dict[str, Recipe] = {
    "thesis/mnist": _thesis(
        "Tables 1.10, 1.11, 2.4, 2.5: synthetic shapes, MNIST balanced or not, EMNIST, Fashion of "
        "chapter 2",
        *("mnist", 2),
    ),
    "thesis/fashion": _thesis("Table 1.10, section 1.8.3: Fashion of chapter 1", "mnist", 5),
    "thesis/ten_dimensions": _thesis(
        "Tables 1.10, 1.15: synthetic shapes, MNIST, EMNIST and Fashion in ten dimensions",
        *("mnist", 10),
        temperature=1.5,
    ),
    "thesis/cifar": _thesis(
        "Table 1.12, section 1.8.3: CIFAR10; the flow is that of Table 1.11, as no table gives one",
        *("cifar", 5),
        learning_rate=1e-4,
        epochs=500,
        patience=None,
    ),
    "thesis/adni": _thesis(
        "Tables 1.13, 1.14: volumes of ADNI, 84 x 104 x 89",
        *("adni", 10),
        step_size=1e-3,
        temperature=1.5,
        regularization=1e-2,
        learning_rate=1e-5,
        batch_size=25,
        patience=50,
    ),
    "thesis/oasis": _thesis(
        "Tables 2.4, 2.5: slices of OASIS, 208 x 176",
        *("oasis", 2),
        step_size=1e-3,
        regularization=1e-2,
        learning_rate=1e-4,
        patience=50,
    ),
}
"""The recipes by name, for `Augmenter.from_recipe` and ``chartae augment --recipe``."""
