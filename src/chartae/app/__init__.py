"""The explorer of a latent space: a server with Dash, and one page without a server."""

from collections.abc import Sequence
from typing import Any

from chartae.app.landscape import Landscape
from chartae.app.page import Page, atlas_page
from chartae.data import ArrayDataset
from chartae.longitudinal import SequenceModel
from chartae.models import Autoencoder

__all__ = ["Landscape", "Page", "atlas_page", "explore"]


def explore(
    model: Autoencoder,
    data: Any = None,
    y: Any = None,
    *,
    pairs: Sequence[tuple[int, int]] | None = None,
    metric: str = "auto",
    title: str = "",
    seed: int = 0,
) -> Page:
    """Return a page on which the latent space of a model is explored; a notebook shows it inline.

    Args:
        model: a trained model.
        data: observations, as `chartae.data.ArrayDataset.from_arrays` takes them, or a data set;
            None shows samples of the model. For a model of sequences, `chartae.data.Sequences`.
        y: their labels.
        pairs: as in `atlas_page`.
        metric: as in `chartae.models.paths.natural_metrics`; not for a model of sequences.
        title: title of the page.
        seed: the seed of samples and draws.

    Raises:
        DataError: if the data do not fit the model.
        ConfigurationError: for a model whose latent space has one dimension, or a metric that it
            does not have.

    >>> import torch, chartae
    >>> page = chartae.explore(chartae.VAE((8, 8), latent_dim=2), torch.rand(20, 8, 8))
    >>> page.html[:15]
    '<!doctype html>'
    """
    if isinstance(model, SequenceModel):
        space = Landscape.of_sequences(model, data, seed=seed)
    else:
        known = data is None or isinstance(data, ArrayDataset)
        source = data if known else ArrayDataset.from_arrays(data, y, dtype=model.dtype)
        space = Landscape.of(model, source, metric=metric, seed=seed)
    return atlas_page(space, pairs=pairs, title=title, seed=seed)
