"""Batches for training: by indexing where the data are in memory, else through a DataLoader."""

import inspect
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from chartae.data import ArrayDataset
from chartae.errors import ConfigurationError, DataError
from chartae.models import Autoencoder
from chartae.randomness import derive_seed, make_generator

__all__ = ["Batch", "Batches", "InMemoryBatches", "LoaderBatches", "make_batches"]

Batch = dict[str, Tensor]
Data = ArrayDataset | Tensor | np.ndarray[Any, Any] | Dataset[Any]

LIMIT_ON_DEVICE = 2**30
"""Data of at most so many bytes are moved to the accelerator once, not batch by batch."""


class Batches:
    """A set of batches that can be walked through once an epoch, in an order the seed fixes."""

    num_batches: int

    def epoch(self, seed: int, epoch: int, *, shuffle: bool, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch from number ``start`` on."""
        raise NotImplementedError


class InMemoryBatches(Batches):
    """Batches of an `ArrayDataset`, by indexing: no per-sample collation."""

    def __init__(
        self, data: ArrayDataset, batch_size: int, keys: set[str], rank: int = 0, world: int = 1
    ) -> None:
        every = {"x": data.x, "y": data.y, "mask": data.mask}
        self.tensors = {k: v for k, v in every.items() if k in keys and v is not None}
        self.batch_size, self.rank, self.world = batch_size, rank, world
        self.length = len(data) // world if world > 1 else len(data)
        self.num_batches = -(-self.length // batch_size)

    def to(self, device: torch.device) -> None:
        """Move the data to ``device``, if they are small enough to stay there."""
        if sum(tensor.nbytes for tensor in self.tensors.values()) <= LIMIT_ON_DEVICE:
            self.tensors = {key: tensor.to(device) for key, tensor in self.tensors.items()}

    def epoch(self, seed: int, epoch: int, *, shuffle: bool, start: int = 0) -> Iterator[Batch]:
        x = self.tensors["x"]
        if self.num_batches == 1 and self.world == 1:
            # One batch holds everything: its order changes nothing, and indexing would copy it.
            yield from [self.tensors][start:]
            return
        order = torch.arange(len(x))
        if shuffle:
            order = torch.randperm(len(x), generator=make_generator(seed, "order", epoch))
        order = order[self.rank :: self.world][: self.length].to(x.device)
        for index in order.split(self.batch_size)[start:]:
            yield {key: tensor[index] for key, tensor in self.tensors.items()}


class LoaderBatches(Batches):
    """Batches of any `torch.utils.data.Dataset`, whose items are x, (x, y) or mappings."""

    def __init__(
        self,
        data: Dataset[Any],
        batch_size: int,
        keys: set[str],
        model: Autoencoder,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.data, self.batch_size, self.keys, self.model = data, batch_size, keys, model
        self.rank, self.world = rank, world
        try:
            self.size = len(data)  # type: ignore[arg-type]
        except TypeError as error:
            raise DataError("data has no length: expected a map-style dataset") from error
        self.num_batches = -(-(self.size // world) // batch_size)

    def epoch(self, seed: int, epoch: int, *, shuffle: bool, start: int = 0) -> Iterator[Batch]:
        order = torch.arange(self.size)
        if shuffle:
            order = torch.randperm(self.size, generator=make_generator(seed, "order", epoch))
        share = order[self.rank :: self.world][: self.size // self.world]
        pieces = [piece.tolist() for piece in share.split(self.batch_size)][start:]
        generator = torch.Generator().manual_seed(derive_seed(seed, "workers", epoch))
        loader: DataLoader[Any] = DataLoader(
            self.data,
            batch_sampler=pieces,
            num_workers=min(2, (os.cpu_count() or 1) - 1),
            generator=generator,
        )
        for number, item in enumerate(loader, start):
            batch = self._as_batch(item)
            self.model.check_data(f"x of batch {number}", batch["x"])
            yield batch

    def _as_batch(self, item: Any) -> Batch:
        if isinstance(item, Mapping):
            batch = dict(item)
        elif isinstance(item, (list, tuple)):
            batch = dict(zip(("x", "y"), item, strict=False))
        else:
            batch = {"x": item}
        if "x" not in batch:
            raise DataError(f"a batch has the keys {sorted(batch)}: expected 'x' among them")
        return {key: value for key, value in batch.items() if key in self.keys}


def make_batches(
    name: str,
    data: Data,
    model: Autoencoder,
    batch_size: int,
    *,
    minimum: int = 1,
    rank: int = 0,
    world: int = 1,
) -> Batches:
    """Return the batches of ``data`` for ``model``, checked as a whole where it is in memory.

    Raises:
        DataError: if the data do not fit the model, are not finite, or are fewer than ``minimum``.
        ConfigurationError: if they have a mask that the model's loss would ignore.
    """
    keys = set(inspect.signature(model.loss).parameters)
    if isinstance(data, np.ndarray):
        data = ArrayDataset.from_arrays(data, dtype=model.dtype)
    elif isinstance(data, Tensor):
        data = ArrayDataset.from_arrays(data, dtype=None)
    if not isinstance(data, (ArrayDataset, Dataset)):
        raise DataError(
            f"{name} is {type(data).__name__}: expected a tensor, an array, an ArrayDataset or a "
            "torch Dataset"
        )
    if not isinstance(data, ArrayDataset):
        batches = LoaderBatches(data, batch_size, keys, model, rank, world)
        _check_size(name, batches.size, minimum)
        return batches
    model.check_data(name, data.x)
    _check_size(name, len(data), minimum)
    if data.mask is not None and "mask" not in keys:
        raise ConfigurationError(
            f"{name} has a mask of observed features, which {type(model).__name__} does not use"
        )
    if "y" in keys and data.y is None:
        raise DataError(f"{name} has no labels: {type(model).__name__} needs y")
    return InMemoryBatches(data, batch_size, keys, rank, world)


def _check_size(name: str, size: int, minimum: int) -> None:
    if size < minimum:
        raise DataError(f"{name} has {size} observation(s): expected at least {minimum}")
