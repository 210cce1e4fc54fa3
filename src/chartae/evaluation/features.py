"""Features in which real and generated data are compared: functions from x to ``(n, features)``.

An extractor is any such function. Those here compute in batches, without gradients, and accept
arrays and tensors; arrays of uint8 and bool are scaled to [0, 1].
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from numpy.typing import ArrayLike
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from chartae.checks import (
    check_finite,
    check_floating,
    check_integer,
    check_labels,
    check_shape,
    check_weight,
)
from chartae.data import ArrayDataset, held_out_split
from chartae.data.archives import read_torch
from chartae.data.arrays import as_tensor, scaled
from chartae.distributions.moments import Moments
from chartae.errors import CheckpointError, ConfigurationError, DataError
from chartae.evaluation.inception import Inception
from chartae.models import Autoencoder, Batch, Losses, Trainable
from chartae.models.losses import average
from chartae.nn import NetworkSpec, build_encoder, output_features, output_shape, probing
from chartae.randomness import seeded
from chartae.training import fit

__all__ = [
    "Classifier",
    "Extractor",
    "InceptionFeatures",
    "embedding",
    "module_features",
    "pixels",
    "train_classifier",
]

Extractor = Callable[[ArrayLike | Tensor], Tensor]
"""A function from data ``(n, *input_shape)`` to features ``(n, features)``."""
ENTRIES = 2**20
"""Largest number of entries of a batch that a classifier takes."""
HELD_OUT = 0.1
"""Share of the data that chooses the epoch of a classifier and measures its accuracy."""


def pixels(x: ArrayLike | Tensor) -> Tensor:
    """Return the data themselves as features: ``(n, features)``.

    Raises:
        DataError: for data that are empty, not finite or of another dtype.

    >>> import numpy as np
    >>> pixels(np.full((2, 4, 4), 51, dtype=np.uint8)).shape
    torch.Size([2, 16])
    """
    return scaled(_data(x), None).flatten(1)


def embedding(model: Autoencoder, *, batch_size: int = 1024) -> Extractor:
    """Return an extractor of a model's embeddings, `encode`: ``(n, latent_dim)``.

    Args:
        model: a model without conditions.
        batch_size: largest number of samples encoded at once.

    >>> import chartae
    >>> embedding(chartae.VAE((8, 8), latent_dim=2))(torch.rand(5, 8, 8)).shape
    torch.Size([5, 2])
    """
    check_integer("batch_size", batch_size, minimum=1)

    def extract(x: ArrayLike | Tensor) -> Tensor:
        with probing(model):
            return _in_batches(model.encode, _data(x), batch_size, model.dtype, model.device)

    return extract


def module_features(module: nn.Module, *, batch_size: int = 256) -> Extractor:
    """Return an extractor that applies any torch module, in eval mode; its output is flattened.

    The modes of the module are restored after each call.

    Args:
        module: a module from ``(n, *input_shape)`` to ``(n, ...)``.
        batch_size: largest number of samples given to the module at once.

    The extractor raises `ConfigurationError` if the module does not accept the data.

    >>> module_features(torch.nn.Conv2d(1, 3, 5))(torch.rand(7, 1, 8, 8)).shape
    torch.Size([7, 48])
    """
    check_integer("batch_size", batch_size, minimum=1)

    def extract(x: ArrayLike | Tensor) -> Tensor:
        data = _data(x)
        output_shape(module, tuple(data.shape[1:]))
        first = next(module.parameters(), torch.empty(0))
        with probing(module):
            return _in_batches(module, data, batch_size, first.dtype, first.device)

    return extract


# --- a classifier of the user's data -------------------------------------------------------------


class Classifier(Trainable):
    """A small classifier, whose last hidden layer gives features.

    Vectors are standardised, images and volumes shifted and scaled as a whole, by the statistics of
    the training set. Use `train_classifier` to make one.

    Args:
        input_shape: shape of one observation.
        class_names: names of the classes, at least two, in the order of the probabilities.
        encoder: the body, as for models; None means convolutions for images and volumes, and a
            perceptron for vectors.

    Raises:
        ConfigurationError: for fewer than two classes, or an encoder that does not fit.
    """

    shift: Tensor
    scale: Tensor
    hits: Tensor
    """Numbers of held-out samples that are classified correctly, and of all."""

    def __init__(
        self,
        input_shape: tuple[int, ...],
        class_names: Sequence[str],
        encoder: NetworkSpec | None = None,
    ) -> None:
        super().__init__()
        self.input_shape, self.class_names = tuple(input_shape), tuple(class_names)
        if len(self.class_names) < 2:
            raise ConfigurationError(f"class_names={class_names!r}: expected at least two")
        if encoder is None:
            dims = len(self.input_shape)
            encoder = {1: "mlp", 4: "conv3d"}.get(dims, "conv")
        self.body = build_encoder(encoder, self.input_shape)
        num_features = output_features(self.body, self.input_shape)
        self.head = nn.Linear(num_features, len(self.class_names))
        shape = self.input_shape if len(self.input_shape) == 1 else ()
        self.register_buffer("shift", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))
        self.register_buffer("hits", torch.zeros(2, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(batch, num_classes)``."""
        logits: Tensor = self.head(self._hidden(x))
        return logits

    def _hidden(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.body((x - self.shift) / self.scale).flatten(1)
        return hidden

    def features(self, x: ArrayLike | Tensor) -> Tensor:
        """Return the activations of the last hidden layer: ``(n, features)``.

        Raises:
            DataError: for data of another shape, or that are not finite.
        """
        return self._apply_to(self._hidden, x)

    def probabilities(self, x: ArrayLike | Tensor) -> Tensor:
        """Return the probabilities of the classes: ``(n, num_classes)``.

        Raises:
            DataError: for data of another shape, or that are not finite.
        """
        return self._apply_to(lambda part: self(part).softmax(1), x)

    def _apply_to(self, function: Callable[[Tensor], Tensor], x: ArrayLike | Tensor) -> Tensor:
        data = _data(x)
        check_shape("x", data, ("n", *self.input_shape))
        size = max(1, min(1024, ENTRIES // data[0].numel()))
        with probing(self):
            return _in_batches(function, data, size, self.dtype, self.device)

    @property
    def accuracy(self) -> float:
        """The share of held-out samples that are classified correctly; NaN before training.

        These samples also chose the epoch, so it is slightly too high.
        """
        correct, total = self.hits.tolist()
        return correct / total if total else math.nan

    # --- what `fit` needs ---------------------------------------------------------------------

    def loss(self, x: Tensor, y: Tensor, *, weight: Tensor | None = None) -> Losses:
        """Return the cross entropy of labels ``y``, with the weight of each observation."""
        return Losses.of(average(cross_entropy(self(x), y, reduction="none"), weight))

    def check_batch(self, name: str, batch: Batch) -> None:
        check_floating(name, batch["x"])
        check_shape(name, batch["x"], ("batch", *self.input_shape))
        check_finite(name, batch["x"])
        check_labels(f"y of {name}", batch["y"], len(batch["x"]), len(self.class_names))
        if (weight := batch.get("weight")) is not None:
            check_weight(f"weight of {name}", weight, len(batch["x"]))

    def set_units(self, batches: Iterable[Batch]) -> None:
        """Compute shift and scale from the training set."""
        moments = Moments.of((batch["x"], None) for batch in batches)
        mean, variance = moments.mean, moments.deviation.square()
        if len(self.input_shape) > 1:
            variance = variance.mean() + mean.var(correction=0)
            mean = mean.mean()
        scale = torch.where(variance > 0.0, variance.sqrt(), 1.0)  # a constant feature becomes 0
        self.shift.copy_(mean)
        self.scale.copy_(scale)


def train_classifier(
    x: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    *,
    encoder: NetworkSpec | None = None,
    epochs: int = 50,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    patience: int = 5,
    seed: int = 0,
    accelerator: str = "auto",
) -> Classifier:
    """Return a small classifier trained on labelled data, for its features and probabilities.

    A tenth of the samples, stratified by class, is held out. It chooses the best epoch and measures
    the ``accuracy``. Features of a classifier that is hardly better than chance mean little. Train
    it on data that neither the generator nor the comparison uses, if there are enough.

    Args:
        x: ``(n, *input_shape)``: vectors, images or volumes; see `ArrayDataset.from_arrays`.
        y: ``(n,)`` integer or string labels of at least two classes.
        encoder: as in `Classifier`.
        epochs: largest number of passes over the data.
        batch_size: as in `chartae.fit`.
        learning_rate: as in `chartae.fit`.
        patience: number of epochs without improvement after which training stops.
        seed: the same seed gives the same classifier.
        accelerator: as in `chartae.fit`.

    Raises:
        DataError: for data that cannot be used, or fewer than two classes.
        ConfigurationError: for an argument out of range.

    >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    >>> classifier = train_classifier(x, (x[:, 0] > 0.0).long(), epochs=20, seed=0)
    >>> classifier.accuracy > 0.9, classifier.features(x).shape, classifier.probabilities(x).shape
    (True, torch.Size([200, 256]), torch.Size([200, 2]))
    """
    data = ArrayDataset.from_arrays(x, y)
    if len(data.classes) < 2:
        raise DataError(f"y has {len(data.classes)} class(es): expected labels of at least two")
    train, held_out = held_out_split(data, HELD_OUT, seed=seed)
    with seeded(seed, "classifier"):
        classifier = Classifier(data.input_shape, data.class_names, encoder).to(data.x.dtype)
    fit(
        *(classifier, train, held_out),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        patience=patience,
        seed=seed,
        accelerator=accelerator,
        progress=False,
    )
    assert held_out.y is not None  # labels were given
    correct = classifier.probabilities(held_out.x).argmax(1).to(held_out.y) == held_out.y
    classifier.hits.copy_(torch.tensor([correct.sum(), len(correct)]))
    return classifier


# --- the network of the FID ----------------------------------------------------------------------


class InceptionFeatures:
    """Extractor of the 2,048 features of the FID, with weights from a file that you have.

    Images are resized to 299 x 299 (bilinear, without antialiasing) and mapped from [0, 1] to
    [-1, 1], as in pytorch-fid. Grey images are repeated in three channels.

    Args:
        path: the file ``pt_inception-2015-12-05-6726825d.pth`` of pytorch-fid, or the same tensors
            as ``.safetensors``. It is read without pickle.
        batch_size: largest number of images at once.
        device: the device of the network.

    Raises:
        CheckpointError: if the file is missing or damaged, or does not hold these weights.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        batch_size: int = 32,
        device: str | torch.device = "cpu",
        _width: float = 1.0,  # tests have a narrow network
    ) -> None:
        self.batch_size = check_integer("batch_size", batch_size, minimum=1)
        self.network = Inception(_width).eval().requires_grad_(False).to(device)
        _load(self.network, Path(path))

    def __call__(self, x: ArrayLike | Tensor) -> Tensor:
        """Return the features of images: ``(n, 2048)``.

        Args:
            x: ``(n, H, W)`` or ``(n, C, H, W)`` with C 1 or 3; uint8, or floats in [0, 1]. Decoded
                images may exceed that by 0.5; they are clipped, as 8-bit images would be.

        Raises:
            DataError: for data that are not such images.
        """
        return self._apply_to(self.network, x)

    def probabilities(self, x: ArrayLike | Tensor) -> Tensor:
        """Return probabilities of 1,008 classes, for `inception_score`: ``(n, 1008)``.

        As in the score's own code, the last layer has no bias.
        """
        network = self.network
        return self._apply_to(lambda part: network.logits(network(part)).softmax(1), x)

    def _apply_to(self, function: Callable[[Tensor], Tensor], x: ArrayLike | Tensor) -> Tensor:
        images = _images(_data(x))
        weight = self.network.fc.weight
        with torch.no_grad():
            return _in_batches(
                lambda part: function(_prepared(part)),
                *(images, self.batch_size, weight.dtype, weight.device),
            )


def _images(x: Tensor) -> Tensor:
    images = x[:, None] if x.ndim == 3 else x
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(
            f"x has shape {tuple(x.shape)}: expected images (n, H, W), (n, 1, H, W) or (n, 3, H, W)"
        )
    low, high = float(x.min()), float(x.max())
    if x.is_floating_point() and not -0.5 <= low <= high <= 1.5:
        raise DataError(f"x ranges from {low:g} to {high:g}: expected images in [0, 1]")
    return images


def _prepared(images: Tensor) -> Tensor:
    x = images.clamp(0.0, 1.0).expand(-1, 3, -1, -1)
    return 2.0 * interpolate(x, (299, 299), mode="bilinear", align_corners=False) - 1.0


def _load(network: nn.Module, path: Path) -> None:
    """Load weights by name, after all names and shapes have been compared."""
    given, own = _read_weights(path), network.state_dict()
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    missing = sorted(own.keys() - given.keys() - counters)  # old files have no counters
    unknown = sorted(given.keys() - own.keys())
    shapes = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in given and given[name].shape != value.shape
    ]
    problems = {"missing": missing, "unknown": unknown, "of another shape": shapes}
    if text := "; ".join(
        f"{len(names)} {kind}, such as {names[0]}" for kind, names in problems.items() if names
    ):
        raise CheckpointError(
            f"{path} does not hold the weights of the FID's Inception network: {text}; expected "
            "the state dict pt_inception-2015-12-05 of pytorch-fid"
        )
    network.load_state_dict({**own, **given})


def _read_weights(path: Path) -> Mapping[str, Tensor]:
    try:
        return load_file(path) if path.suffix == ".safetensors" else read_torch(path)
    except (DataError, SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


# --- batches -------------------------------------------------------------------------------------


def _data(x: ArrayLike | Tensor) -> Tensor:
    data = as_tensor("x", x)
    if data.ndim < 2 or data.numel() == 0:
        raise DataError(f"x has shape {tuple(data.shape)}: expected (n, *input_shape), not empty")
    scaled(data[:1], None)  # checks the dtype
    check_finite("x", data)
    return data


def _in_batches(
    function: Callable[[Tensor], Tensor],
    data: Tensor,
    batch_size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Return the outputs of a function, flattened, of batches of data in its dtype."""
    parts = data.split(batch_size)
    return torch.cat([function(scaled(part, dtype).to(device)).flatten(1) for part in parts])
