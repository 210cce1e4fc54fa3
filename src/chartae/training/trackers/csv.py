"""Curves as a table, hyper-parameters as JSON and pictures as PNG files: no other package."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.csv_logs import CSVLogger
from numpy.typing import NDArray
from PIL import Image

from chartae.atomic import atomic_path, write_text

__all__ = ["Tracker"]


class Tracker(CSVLogger):
    """Writes to ``version_0``, or the next number that is free, of a folder.

    There are ``metrics.csv`` with a row for each epoch, ``hyperparameters.json``, and pictures
    whose names end in the step, as in the table.
    """

    def __init__(self, folder: Path) -> None:
        # A row is on the disk when its epoch ends: the training may be killed.
        super().__init__(folder, name=None, flush_logs_every_n_steps=1)

    def log_hyperparams(self, params: Any) -> None:
        """Write ``hyperparameters.json``."""
        folder = Path(self.experiment.log_dir)
        write_text(folder / "hyperparameters.json", json.dumps(params, indent=2))

    def log_image(self, key: str, images: Sequence[NDArray[Any]], step: int) -> None:
        """Write a PNG file for each image ``(H, W, C)`` of uint8."""
        folder = Path(self.experiment.log_dir)
        for number, image in enumerate(images):
            more = f"_{number}" if number else ""
            with atomic_path(folder / f"{key}{more}_step_{step}.png") as temporary:
                grey = image.shape[-1] == 1
                Image.fromarray(image[..., 0] if grey else image).save(temporary)
