"""Follow-ups in the latent space of an autoencoder that was trained without time."""

from dataclasses import replace

import torch

from chartae.checks import Count
from chartae.data import Form, Sequences
from chartae.errors import DataError
from chartae.longitudinal.draws import Draws
from chartae.models import Autoencoder

__all__ = ["decode_visits", "encode_visits"]


@torch.no_grad()
def encode_visits(
    model: Autoencoder, sequences: Sequences, *, batch_size: Count = 1000
) -> Sequences:
    """Return the sequences of the codes of visits (thesis section 5.2.1).

    A model of sequences can then be trained on the codes, and `decode_visits` turns its draws into
    observations.

    Args:
        model: a trained autoencoder of single visits, without conditions, whose latents are
            vectors.
        sequences: the individuals.
        batch_size: largest number of visits encoded at once.

    Raises:
        DataError: if the sequences do not fit the model.

    >>> import torch, chartae
    >>> visits = Sequences(torch.rand(10, 4, 8, 8), times=torch.arange(4.0))
    >>> model = chartae.VAE((8, 8), latent_dim=2).eval()
    >>> encode_visits(model, visits)
    Sequences(10 individuals, 40 visits of shape (2,), float32; 4 each)
    """
    if sequences.input_shape != model.input_shape:
        raise DataError(
            f"sequences have visits of shape {sequences.input_shape}: the model expects "
            f"{model.input_shape}"
        )
    seen = sequences.observed
    mask = None if sequences.mask is None else sequences.mask[seen]
    codes = model.encode(sequences.x[seen], mask=mask, batch_size=batch_size)
    x = codes.new_zeros(*seen.shape, codes.shape[-1])
    x[seen] = codes
    times = torch.where(sequences.padding, torch.nan, sequences.times)
    covariates = sequences.y
    return Sequences(
        x,
        times=times,
        observed=seen,
        covariates=covariates,
        ids=sequences.ids,
        class_names=sequences.class_names or None,
        dtype=None,
    )


@torch.no_grad()
def decode_visits(
    model: Autoencoder, draws: Draws, *, form: Form | None = None, batch_size: Count = 1000
) -> Draws:
    """Return draws of codes as draws of observations: the means of p(x | code).

    Args:
        model: the autoencoder that encoded the visits.
        draws: draws of a model of sequences of its codes.
        form: the form of results, such as that of the sequences that were encoded; by default
            tensors of floats.
        batch_size: largest number of codes decoded at once.
    """
    shape = draws.values.shape
    decoded = model.decode(draws.values.flatten(0, 2), batch_size=batch_size)
    values = decoded.unflatten(0, shape[:3])
    return replace(draws, values=values, form=form or Form(values.dtype), observed=None, data=None)
