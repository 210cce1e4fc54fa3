"""Batches for training: by indexing where the data are in memory, else through a DataLoader."""

import hashlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, default_collate

from chartae.checks import check_mask
from chartae.data import ArrayDataset
from chartae.errors import ConfigurationError, DataError
from chartae.models import Autoencoder
from chartae.randomness import make_generator

__all__ = ["Batch", "Batches", "Data", "InMemoryBatches", "LoaderBatches", "make_batches"]

Batch = dict[str, Tensor]
Data = (
    ArrayDataset | Tensor | np.ndarray[Any, Any] | Sequence[Any] | Mapping[str, Any] | Dataset[Any]
)

LIMIT_ON_DEVICE = 2**30
"""Data of at most so many bytes are moved to the accelerator once, not batch by batch."""


class Batches:
    """A set of batches that can be walked through once an epoch, in an order the seed fixes.

    Batches are as even as can be: 129 samples in batches of at most 128 are 65 and 64, for a batch
    of one would be of little use, and break batch normalisation.

    Args:
        size: number of samples.
        batch_size: of the largest batch.
    """

    def __init__(self, size: int, batch_size: int) -> None:
        self.size, self.batch_size = size, batch_size
        self.device = torch.device("cpu")
        self.rank, self.world = 0, 1

    def place(self, device: torch.device, rank: int, world: int) -> None:
        """Set where the batches go, and which share of an epoch is this process's."""
        self.device, self.rank, self.world = device, rank, world

    @property
    def num_batches(self) -> int:
        """Number of batches in this process's share of an epoch."""
        return -(-(self.size // self.world) // self.batch_size)

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield this process's batches of one epoch in random order, from number ``start`` on."""
        order = torch.randperm(self.size, generator=make_generator(seed, "order", epoch))
        share = order[self.rank :: self.world][: self.size // self.world]
        generator = make_generator(seed, "workers", epoch)
        return self.take(list(share.tensor_split(self.num_batches))[start:], generator)

    def in_order(self) -> Iterator[Batch]:
        """Yield everything in its own order, whatever the share of this process."""
        order, count = torch.arange(self.size), -(-self.size // self.batch_size)
        return self.take(list(order.tensor_split(count)), make_generator(0))

    def take(self, pieces: list[Tensor], generator: torch.Generator) -> Iterator[Batch]:
        """Yield the batches of the samples numbered in each of ``pieces``."""
        raise NotImplementedError

    def fill(self, model: Autoencoder) -> None:
        """Put what is neutral to a model in place of what was not observed."""

    def describe(self) -> str:
        """Return what distinguishes these data from others, for `Plan`."""
        return f"{self.size} samples"


class InMemoryBatches(Batches):
    """Batches of an `ArrayDataset`, by indexing: no per-sample collation."""

    def __init__(self, data: ArrayDataset, batch_size: int, keys: set[str]) -> None:
        super().__init__(len(data), batch_size)
        every = {"x": data.x, "y": data.y, "mask": data.mask}
        given = {k: v for k, v in every.items() if k in keys and v is not None}
        # Tensors of an inference mode cannot take part in a training; copies can.
        self.tensors = {k: v.clone() if v.is_inference() else v for k, v in given.items()}

    def place(self, device: torch.device, rank: int, world: int) -> None:
        super().place(device, rank, world)
        if sum(tensor.nbytes for tensor in self.tensors.values()) <= LIMIT_ON_DEVICE:
            self.tensors = _to(self.tensors, device)

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        if self.num_batches == 1 and self.world == 1:
            # One batch holds everything: its order changes nothing, and indexing would copy it.
            return iter([_to(self.tensors, self.device)][start:])
        return super().epoch(seed, epoch, start)

    def take(self, pieces: list[Tensor], generator: torch.Generator) -> Iterator[Batch]:
        home = self.tensors["x"].device
        for piece in pieces:
            index = piece.to(home)
            batch = {key: tensor.index_select(0, index) for key, tensor in self.tensors.items()}
            yield _to(batch, self.device)

    def fill(self, model: Autoencoder) -> None:
        with torch.no_grad():
            self.tensors["x"] = model.filled(self.tensors["x"], self.tensors.get("mask"))

    def describe(self) -> str:
        digest = hashlib.blake2b(digest_size=8)
        for key, tensor in self.tensors.items():
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return f"{super().describe()}, {digest.hexdigest()}"


class LoaderBatches(Batches):
    """Batches of a map-style torch ``Dataset`` of x, (x, y), (x, y, mask) or mappings."""

    def __init__(
        self,
        name: str,
        data: Dataset[Any],
        batch_size: int,
        model: Autoencoder,
        keys: set[str],
        num_workers: int,
    ) -> None:
        try:
            size = len(data)  # type: ignore[arg-type]
        except TypeError as error:
            raise DataError(f"{name} has no length: expected a map-style dataset") from error
        if isinstance(data, IterableDataset):
            raise DataError(
                f"{name} is an IterableDataset, whose samples have no numbers: expected a "
                "map-style dataset, with __getitem__"
            )
        super().__init__(size, batch_size)
        self.name, self.data, self.model, self.keys = name, data, model, keys
        # The loader walks through this list, which changes with the epoch while workers stay.
        self.pieces: list[list[int]] = []
        self.loader: DataLoader[Any] = DataLoader(
            data,
            batch_sampler=self.pieces,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            generator=torch.Generator(),
            collate_fn=Collate(name),
        )

    def check_first(self) -> None:
        """Raise `DataError` or `ConfigurationError` if the first sample does not fit the model."""
        batch = self._named(Collate(self.name)([self.data[0]]))
        _check_extras(self.name, self.model, self.keys, batch.keys())
        self._checked(0, batch)

    def take(self, pieces: list[Tensor], generator: torch.Generator) -> Iterator[Batch]:
        self.pieces[:] = [piece.tolist() for piece in pieces]
        self.loader.generator = generator
        for number, item in enumerate(self.loader):
            batch = _to(self._checked(number, self._named(item)), self.device)
            yield {**batch, "x": self.model.filled(batch["x"], batch.get("mask"))}

    def _named(self, item: Any) -> Batch:
        if isinstance(item, Mapping):
            batch = dict(item)
        elif isinstance(item, (list, tuple)):
            batch = _by_place(f"a sample of {self.name}", item)
        else:
            batch = {"x": item}
        if "x" not in batch:
            raise DataError(f"{self.name} has samples of {sorted(batch)}: expected 'x' among them")
        return batch

    def _checked(self, number: int, batch: Batch) -> Batch:
        where = f"in batch {number + 1} of {self.name}"
        if (mask := batch.get("mask")) is not None and isinstance(batch["x"], Tensor):
            check_mask(f"mask {where}", mask, batch["x"].shape)
            # What was not observed may be anything, as in `ArrayDataset.from_arrays`.
            batch["x"] = batch["x"].masked_fill(~mask, 0.0)
        self.model.check_data(f"x {where}", batch["x"])
        if self.model.conditions is not None:
            self.model.check_conditions(f"y {where}", batch.get("y"), len(batch["x"]))
        return {key: value for key, value in batch.items() if key in self.keys}


class Collate:
    """Makes a batch of samples, as torch does, with errors that name the data."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, samples: Sequence[Any]) -> Any:
        """Return tensors with the samples as their first dimension.

        Raises:
            DataError: for samples that are no tensors, or of more than one shape.
        """
        try:
            return default_collate(list(samples))
        except (TypeError, RuntimeError, ValueError, KeyError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"{self.name} has samples that do not make a batch: expected dense tensors or "
                f"arrays of one shape, pairs (x, y) or mappings of these ({reason})"
            ) from None


def make_batches(
    name: str,
    data: Data,
    model: Autoencoder,
    batch_size: int,
    *,
    minimum: int = 1,
    num_workers: int = 0,
) -> Batches:
    """Return the batches of ``data`` for ``model``, checked as a whole where it is in memory.

    Raises:
        DataError: if the data do not fit the model, are not finite, or are fewer than ``minimum``.
        ConfigurationError: if they have a mask that the model's loss would ignore.
    """
    keys = model.batch_keys()
    data = _as_dataset(name, data, model)
    if isinstance(data, ArrayDataset):
        model.check_data(name, data.x)
        if model.conditions is not None:
            model.check_conditions(f"y of {name}", data.y, len(data))
        _check_size(name, len(data), minimum)
        given = {"y": data.y, "mask": data.mask}
        _check_extras(name, model, keys, {key for key, value in given.items() if value is not None})
        return InMemoryBatches(data, batch_size, keys)
    batches = LoaderBatches(name, data, batch_size, model, keys, num_workers)
    _check_size(name, batches.size, minimum)
    batches.check_first()
    return batches


def _as_dataset(name: str, data: Any, model: Autoencoder) -> ArrayDataset | Dataset[Any]:
    """Return a dataset of what may also be an array, a pair of arrays or a mapping of them."""
    if isinstance(data, Subset) and isinstance(data.dataset, ArrayDataset):
        return data.dataset.subset(list(data.indices))  # of torch's `random_split`
    if isinstance(data, (ArrayDataset, Dataset)):
        return data
    if isinstance(data, DataLoader):
        raise DataError(
            f"{name} is a DataLoader: expected its dataset, as in fit(model, loader.dataset, "
            "batch_size=loader.batch_size, num_workers=loader.num_workers)"
        )
    fields = {"x": data}
    if isinstance(data, Mapping):
        fields = dict(data)
    elif isinstance(data, tuple):
        fields = _by_place(name, data)
    unknown = fields.keys() - {"x", "y", "mask"}
    x = fields.get("x")
    if unknown or isinstance(x, str) or not hasattr(x, "__len__"):
        raise DataError(
            f"{name} is {type(data).__name__}: expected a tensor, an array, (x, y), (x, y, mask), "
            "a mapping of these names, an ArrayDataset or a torch Dataset"
        )
    # An array has the dtype that NumPy gave it, a tensor the one that its owner chose.
    dtype = None if isinstance(fields["x"], Tensor) else model.dtype
    return ArrayDataset.from_arrays(**fields, dtype=dtype)


def _by_place(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """Return x, y and mask by name, of which a tuple has as many as its length."""
    if len(values) > 3:
        raise DataError(
            f"{name} has {len(values)} parts: expected x, (x, y) or (x, y, mask), of tensors or "
            "arrays"
        )
    return dict(zip(("x", "y", "mask"), values, strict=False))


def _check_size(name: str, size: int, minimum: int) -> None:
    if size < minimum:
        raise DataError(f"{name} has {size} sample(s): expected at least {minimum}")


def _check_extras(name: str, model: Autoencoder, keys: set[str], given: Any) -> None:
    kind = type(model).__name__
    if "mask" in given and "mask" not in keys:
        raise ConfigurationError(
            f"{name} has a mask of observed features, which {kind} does not use"
        )
    needs_labels = inspect.signature(model.loss).parameters.get("y")
    if needs_labels and needs_labels.default is inspect.Parameter.empty and "y" not in given:
        raise DataError(f"{name} has no labels: {kind} needs y")


def _to(batch: Batch, device: torch.device) -> Batch:
    return {key: tensor.to(device) for key, tensor in batch.items()}
