"""Pictures for trackers: observations above their reconstructions, as training goes on."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from chartae.models import Autoencoder, Trainable
from chartae.training.callbacks import Callback
from chartae.training.history import History

__all__ = ["Reconstructions", "sheet", "shows_pictures"]

SHOWN = 8
"""Number of observations in a picture."""
PICTURES = 10
"""Number of pictures of a training, besides that of the best epoch."""
SIDE = 56
"""Images that are smaller are enlarged to at least half this number of pixels."""
GAP = 2
"""Pixels between images."""


def shows_pictures(model: Trainable, batch: Mapping[str, Tensor]) -> bool:
    """Return whether a model reconstructs images (grey, RGB or RGBA) or grey volumes.

    >>> import chartae
    >>> x = torch.rand(2, 3, 8, 8)
    >>> shows_pictures(chartae.AE((3, 8, 8), 2), {"x": x})
    True
    >>> shows_pictures(chartae.AE((192,), 2), {"x": x.flatten(1)})
    False
    """
    if not isinstance(model, Autoencoder):
        return False
    shape = tuple(batch["x"].shape[1:])
    if shape != model.input_shape:  # a sequence of observations
        return False
    return len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3, 4)) or _is_volume(shape)


def _is_volume(shape: Sequence[int]) -> bool:
    return len(shape) == 4 and shape[0] == 1


class Reconstructions(Callback):
    """Sends a picture of observations and reconstructions to trackers, ten times and at the end.

    Args:
        loggers: those that have ``log_image(key, images, step)`` get pictures.
        batch: observations ``x`` of `shows_pictures`, with what the model needs besides.
        epochs: how many epochs the training has at most.
    """

    def __init__(self, loggers: Sequence[Any], batch: Mapping[str, Tensor], epochs: int) -> None:
        self.loggers = loggers
        self.batch = {name: tensor[:SHOWN].clone() for name, tensor in batch.items()}
        self.every = max(1, epochs // PICTURES)

    def on_epoch_end(self, model: Trainable, history: History) -> None:
        if history.num_epochs % self.every == 0:
            self.send("reconstructions", model, history.num_epochs - 1)

    def on_fit_end(self, model: Trainable, history: History) -> None:
        if history.best_epoch is not None:
            self.send("reconstructions_best", model, history.best_epoch)

    @torch.no_grad()
    def send(self, key: str, model: Trainable, epoch: int) -> None:
        """Reconstruct the observations, and send one picture to each tracker."""
        assert isinstance(model, Autoencoder)
        model.eval()  # the next epoch sets its own mode
        x, mask = self.batch["x"], self.batch.get("mask")
        y = self.batch.get("y") if model.condition_dim else None
        made = model.reconstruct(x, y, mask=mask)
        picture = sheet(model.filled(x, mask), made)
        for logger in self.loggers:
            logger.log_image(key, [picture], step=epoch)


def sheet(x: Tensor, made: Tensor) -> NDArray[Any]:
    """Return a picture ``(height, width, channels)`` of uint8: a row of x above a row of ``made``.

    Both rows are on the scale of x: [0, 1] if all its values are in there, otherwise from its
    minimum to its maximum. Of a volume the picture has the middle slice.

    Args:
        x: observations ``(n, H, W)``, ``(n, C, H, W)`` or ``(n, 1, D, H, W)``.
        made: as x.

    >>> x = torch.rand(3, 1, 40, 50)
    >>> sheet(x, x).shape
    (84, 156, 1)
    """
    low, high = x.min(), x.max()
    if low >= 0.0 and high <= 1.0:
        low, high = torch.zeros_like(low), torch.ones_like(high)
    rows = torch.stack([_images(x), _images(made)])  # (2, n, C, H, W)
    rows = ((rows - low) / (high - low).clamp_min(torch.finfo(x.dtype).tiny)).clamp(0.0, 1.0)
    times = max(1, SIDE // max(rows.shape[-2:]))
    rows = rows.repeat_interleave(times, -1).repeat_interleave(times, -2)
    rows = pad(rows, (0, GAP, 0, GAP), value=1.0)
    picture = torch.cat([torch.cat(list(row), -1) for row in rows], -2)
    return (picture * 255.0).round().byte().movedim(0, -1).cpu().numpy()


def _images(x: Tensor) -> Tensor:
    """Return observations as images ``(n, C, H, W)``."""
    if _is_volume(x.shape[1:]):
        return x[:, :, x.shape[2] // 2]
    return x if x.dim() == 4 else x[:, None]
