"""Batches for training: by indexing if the data are in memory, otherwise with a DataLoader.

A stream has no indices: it is shuffled in a buffer.
"""

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, default_collate

from chartae.data import ArrayDataset, StreamedDataset, TensorSet
from chartae.data.arrays import scaled
from chartae.errors import ConfigurationError, DataError
from chartae.models import Trainable
from chartae.randomness import make_generator

__all__ = [
    "Batch",
    "Batches",
    "Data",
    "InMemoryBatches",
    "LoaderBatches",
    "StreamBatches",
    "make_batches",
    "size_of",
]

Batch = dict[str, Tensor]
Data = TensorSet | Tensor | np.ndarray[Any, Any] | Sequence[Any] | Mapping[str, Any] | Dataset[Any]

ARRAYS = {"x", "y", "mask", "weight"}
"""Names of the tensors that may be given as arrays."""
OBEYED = {"mask": "a mask of observed features", "weight": "weights"}
"""Tensors that no model may ignore, with their descriptions in messages."""
BUFFER = 2**26
"""Number of bytes of the samples of a stream that are shuffled at a time."""
LIMIT_ON_DEVICE = 2**30
"""Data up to this number of bytes are moved to the accelerator once, not batch by batch."""


class Batches:
    """A set of batches, visited once an epoch in an order that follows from the seed.

    The sizes of batches are as equal as possible: 129 samples in batches of at most 128 are 65 and
    64. A batch of one sample would be of little use, and batch normalisation fails on it.

    Args:
        size: number of samples.
        batch_size: size of the largest batch.
    """

    def __init__(self, size: int, batch_size: int) -> None:
        self.size, self.batch_size = size, batch_size
        self.device = torch.device("cpu")
        self.rank, self.world = 0, 1

    def place(self, device: torch.device, rank: int, world: int) -> None:
        """Set the device of the batches, and the share of an epoch that this process handles."""
        self.device, self.rank, self.world = device, rank, world

    @property
    def num_batches(self) -> int:
        """Number of steps in an epoch, in each of which every process has a batch."""
        steps = -(-self.size // (self.batch_size * self.world))
        # With a batch_size of 1, the last step may have fewer samples than processes.
        return min(steps, self.size // self.world)

    def step_size(self, step: int) -> int:
        """Return the number of samples in a step of an epoch, of all processes together."""
        least, larger = divmod(self.size, self.num_batches)
        return least + (step < larger)

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield this process's batches of one epoch in random order, from step ``start`` on.

        The processes divide each step of the epoch of one process with larger batches.
        """
        if self.num_batches == 1 and self.world == 1:
            # One batch holds all samples: their order changes nothing but the rounding of sums.
            order = torch.arange(self.size)
        else:
            order = torch.randperm(self.size, generator=make_generator(seed, "order", epoch))
        steps = order.tensor_split(self.num_batches)[start:]
        shares = [step.tensor_split(self.world)[self.rank] for step in steps]
        return self.take(shares, make_generator(seed, "workers", epoch))

    def in_order(self) -> Iterator[Batch]:
        """Yield all samples in their own order, not only the share of this process."""
        return self.take(self._in_order(), make_generator(0))

    def share_in_order(self) -> Iterator[tuple[int, Batch]]:
        """Yield those batches of `in_order` that this process handles, with their numbers."""
        pieces = self._in_order()[self.rank :: self.world]
        return zip(count(self.rank, self.world), self.take(pieces, make_generator(0)))

    def _in_order(self) -> list[Tensor]:
        number = -(-self.size // self.batch_size)
        return list(torch.arange(self.size).tensor_split(number))

    def take(self, pieces: list[Tensor], generator: torch.Generator) -> Iterator[Batch]:
        """Yield the batches of the samples with the indices in each of ``pieces``."""
        raise NotImplementedError

    def describe(self) -> str:
        """Return a description that distinguishes these data from others, for `Plan`."""
        return f"{self.size} samples"


class InMemoryBatches(Batches):
    """Batches of a `TensorSet`, by indexing: no per-sample collation."""

    def __init__(self, tensors: Batch, batch_size: int) -> None:
        super().__init__(size_of(tensors), batch_size)
        # Tensors made in inference mode cannot be used in training; copies can.
        self.tensors = {k: v.clone() if v.is_inference() else v for k, v in tensors.items()}
        if "weight" in tensors:
            self.tensors["weight"] = tensors["weight"] / tensors["weight"].mean()

    def place(self, device: torch.device, rank: int, world: int) -> None:
        super().place(device, rank, world)
        if sum(tensor.nbytes for tensor in self.tensors.values()) <= LIMIT_ON_DEVICE:
            self.tensors = _to(self.tensors, device)

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        if self.num_batches == 1 and self.world == 1:
            # They keep their order, and indexing would copy them.
            return iter([_to(self.tensors, self.device)][start:])
        return super().epoch(seed, epoch, start)

    def take(self, pieces: list[Tensor], generator: torch.Generator) -> Iterator[Batch]:
        home = next(iter(self.tensors.values())).device
        # Moved once an epoch: each copy to an accelerator waits until it is done.
        order = torch.cat([torch.empty(0, dtype=torch.long), *pieces]).to(home)
        for index in order.split([len(piece) for piece in pieces]):
            batch = {key: tensor.index_select(0, index) for key, tensor in self.tensors.items()}
            yield _to(batch, self.device)

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
        model: Trainable,
        num_workers: int,
    ) -> None:
        try:
            size = len(data)  # type: ignore[arg-type]
        except TypeError as error:
            raise DataError(
                f"{name} has no length: expected a map-style dataset, or an IterableDataset"
            ) from error
        super().__init__(size, batch_size)
        self.name, self.data, self.model = name, data, model
        if isinstance(data, StreamedDataset) and not data.source.uses_workers:
            num_workers = 0
        # The loader iterates over it. Its pieces change with the epoch, while the workers stay.
        self.pieces = Pieces()
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
        _checked(self.name, self.model, Collate(self.name)([self.data[0]]), 0)

    def take(self, pieces: list[Tensor], generator: torch.Generator) -> Iterator[Batch]:
        self.pieces.parts = pieces
        self.loader.generator = generator
        for number, item in enumerate(self.loader):
            yield _to(_checked(self.name, self.model, item, number), self.device)

    def describe(self) -> str:
        if isinstance(self.data, StreamedDataset):
            return f"{super().describe()}, {self.data.fingerprint}"
        return super().describe()


class Pieces:
    """The indices of each batch of an epoch, as lists that are made when they are needed."""

    def __init__(self) -> None:
        self.parts: list[Tensor] = []

    def __iter__(self) -> Iterator[list[int]]:
        return (part.tolist() for part in self.parts)

    def __len__(self) -> int:
        return len(self.parts)


class StreamBatches(Batches):
    """Batches of a torch ``IterableDataset`` of x, (x, y), (x, y, mask) or mappings.

    Samples have no indices, so they are shuffled in a buffer of 64 MiB. Each process reads the
    whole stream and keeps its share of each step. Workers are for streams of several shards, as
    those of Hugging Face, and read different shards. No sample is seen twice in an epoch.
    """

    def __init__(
        self,
        name: str,
        data: IterableDataset[Any],
        batch_size: int,
        model: Trainable,
        num_workers: int,
    ) -> None:
        shards = getattr(data, "num_shards", 0)
        if num_workers > shards:
            raise ConfigurationError(
                f"num_workers={num_workers}: expected at most {shards}, the number of shards of "
                f"{name}; workers would read the same samples"
            )
        self.name, self.data, self.model, self.num_workers = name, data, model, num_workers
        super().__init__(_length(data), batch_size)

    def check_first(self) -> None:
        """Raise `DataError` or `ConfigurationError` if the first sample does not fit the model."""
        first = next(iter(self.data))
        _checked(self.name, self.model, Collate(self.name)([first]), 0)

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        if hasattr(self.data, "set_epoch"):  # a stream that shuffles its shards
            self.data.set_epoch(epoch)
        # All processes shuffle alike, so that each step is the same set of samples for all.
        samples = shuffled(self._read(), random.Random(f"{seed} {epoch}"))
        for step, items in self._pieces(samples, self.num_batches):
            if step >= start:
                mine = torch.arange(len(items)).tensor_split(self.world)[self.rank]
                yield self._batch([items[place] for place in mine], step)

    def in_order(self) -> Iterator[Batch]:
        for number, items in self._pieces(self._read(), -(-self.size // self.batch_size)):
            yield self._batch(items, number)

    def share_in_order(self) -> Iterator[tuple[int, Batch]]:
        for number, items in self._pieces(self._read(), -(-self.size // self.batch_size)):
            if number % self.world == self.rank:
                yield number, self._batch(items, number)

    def _read(self) -> Iterator[Any]:
        """Yield all samples, one by one."""
        # With a generator of its own it leaves that of the noise alone.
        generator = torch.Generator()
        data: Any = self.data
        return iter(DataLoader(data, None, num_workers=self.num_workers, generator=generator))

    def _pieces(self, samples: Iterator[Any], number: int) -> Iterator[tuple[int, list[Any]]]:
        """Yield samples in pieces whose sizes are as equal as possible, with their numbers."""
        for place, part in enumerate(torch.arange(self.size).tensor_split(number)):
            items = list(islice(samples, len(part)))
            if len(items) < len(part):
                raise self._another_length("less")
            yield place, items
        if next(samples, None) is not None:
            raise self._another_length("more")

    def _batch(self, items: list[Any], number: int) -> Batch:
        item = Collate(self.name)(items)
        return _to(_checked(self.name, self.model, item, number), self.device)

    def _another_length(self, what: str) -> DataError:
        return DataError(
            f"{self.name} has {what} than {self.size} samples in a pass: expected the same number "
            "in each"
        )


def shuffled(samples: Iterator[Any], order: random.Random) -> Iterator[Any]:
    """Yield samples in random order, as far as a buffer of `BUFFER` bytes allows."""
    buffer: list[Any] = []
    size = 0
    for sample in samples:
        if size < BUFFER:
            buffer.append(sample)
            size += _bytes_of(sample)
            continue
        place = order.randrange(len(buffer))
        yield buffer[place]
        buffer[place] = sample
    order.shuffle(buffer)
    yield from buffer


def _bytes_of(sample: Any) -> int:
    if isinstance(sample, Mapping):
        sample = tuple(sample.values())
    parts = sample if isinstance(sample, (list, tuple)) else [sample]
    return sum(int(getattr(part, "nbytes", 64)) for part in parts)


def _length(data: IterableDataset[Any]) -> int:
    """Return the number of samples of a stream; without a length it is read once to count them."""
    try:
        return len(data)  # type: ignore[arg-type]
    except TypeError:
        return sum(1 for _ in data)


class Collate:
    """Collates samples into a batch, as torch does, with errors that name the data."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, samples: Any) -> Any:
        """Return tensors whose first dimension is the sample; a whole batch is left as it is.

        Raises:
            DataError: for samples that are not tensors, or that have different shapes.
        """
        if isinstance(samples, Mapping):
            return samples
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
    model: Trainable,
    batch_size: int,
    *,
    minimum: int = 1,
    num_workers: int = 0,
) -> Batches:
    """Return the batches of ``data`` for ``model``; data in memory are checked as a whole.

    Raises:
        DataError: if the data do not fit the model, are not finite, or are fewer than ``minimum``.
        ConfigurationError: if they have tensors, other than labels, that the model's loss would
            ignore.
    """
    data = _as_dataset(name, data, model)
    if isinstance(data, TensorSet):
        tensors = _used(name, model, data.tensors)
        if unknown := data.tensors.keys() - tensors.keys() - ARRAYS:
            listed = ", ".join(sorted(unknown))
            raise ConfigurationError(f"{name} has {listed}, which {type(model).__name__} ignores")
        model.check_batch(name, tensors)
        _check_size(name, len(data), minimum)
        return InMemoryBatches(tensors, batch_size)
    batches: StreamBatches | LoaderBatches
    if isinstance(data, IterableDataset):
        batches = StreamBatches(name, data, batch_size, model, num_workers)
    else:
        batches = LoaderBatches(name, data, batch_size, model, num_workers)
    _check_size(name, batches.size, minimum)
    batches.check_first()
    return batches


def _checked(name: str, model: Trainable, item: Any, number: int) -> Batch:
    """Return the tensors of a collated batch that the model uses; bytes as numbers in [0, 1].

    Raises:
        DataError: if they do not fit the model.
        ConfigurationError: if the model would ignore some.
    """
    named = {"x": item}
    if isinstance(item, Mapping):
        named = dict(item)
    elif isinstance(item, (list, tuple)):
        named = _by_place(f"a sample of {name}", item)
    batch = _used(name, model, named)
    if getattr(batch.get("x"), "dtype", None) in (torch.uint8, torch.bool):
        batch["x"] = scaled(batch["x"], getattr(model, "dtype", None))
    model.check_batch(f"batch {number + 1} of {name}", batch)
    return batch


def _used(name: str, model: Trainable, tensors: Mapping[str, Tensor]) -> Batch:
    """Return the tensors that the loss of a model uses; a data set may have others."""
    kind, names = type(model).__name__, model.batch_names()
    for missing in [key for key, required in names.items() if required and key not in tensors]:
        what = "labels" if missing == "y" else missing
        given = ", ".join(sorted(tensors))
        raise DataError(f"{name} has no {what}: {kind} needs {missing} in addition to {given}")
    for unused, what in OBEYED.items():
        if unused in tensors and unused not in names:
            raise ConfigurationError(f"{name} has {what}, which {kind} does not use")
    return {key: value for key, value in tensors.items() if key in names}


def _as_dataset(name: str, data: Any, model: Trainable) -> TensorSet | Dataset[Any]:
    """Return a dataset from any of the accepted kinds of data."""
    if isinstance(data, Subset) and isinstance(data.dataset, ArrayDataset):
        return data.dataset.subset(list(data.indices))  # made by torch's `random_split`
    # A dataset of Hugging Face is one of torch, too, but for its class.
    if isinstance(data, (TensorSet, Dataset)) or hasattr(data, "__getitems__"):
        dataset: TensorSet | Dataset[Any] = data
        return dataset
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
    if fields.keys() - ARRAYS and all(isinstance(value, Tensor) for value in fields.values()):
        return TensorSet(**fields)
    x = fields.get("x")
    if fields.keys() - ARRAYS or isinstance(x, str) or not hasattr(x, "__len__"):
        raise DataError(
            f"{name} is {type(data).__name__}: expected a tensor, an array, (x, y), (x, y, mask), "
            "a mapping of these names and of weight, an ArrayDataset or a torch Dataset"
        )
    # Arrays are converted to the model's dtype; tensors keep theirs.
    dtype = None if isinstance(fields["x"], Tensor) else model.dtype
    if isinstance(x, np.memmap):
        if others := [name for name in ("mask", "weight") if fields.get(name) is not None]:
            raise ConfigurationError(
                f"{name} is a memory map with {others[0]}: expected samples without, or all in "
                "memory, as numpy.array(x)"
            )
        return StreamedDataset.from_array(x, fields.get("y"), dtype=dtype)
    return ArrayDataset.from_arrays(**fields, dtype=dtype)


def _by_place(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """Return x, y and mask by name, as many as the tuple has."""
    if len(values) > 3:
        raise DataError(
            f"{name} has {len(values)} parts: expected x, (x, y) or (x, y, mask), of tensors or "
            "arrays"
        )
    return dict(zip(("x", "y", "mask"), values, strict=False))


def _check_size(name: str, size: int, minimum: int) -> None:
    if size < minimum:
        raise DataError(f"{name} has {size} sample(s): expected at least {minimum}")


def size_of(batch: Mapping[str, Tensor]) -> int:
    """Return the number of samples in a batch."""
    return len(next(iter(batch.values())))


def _to(batch: Batch, device: torch.device) -> Batch:
    return {key: tensor.to(device) for key, tensor in batch.items()}
