"""TensorBoard: files of events in a folder, shown by ``tensorboard --logdir FOLDER``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from numpy.typing import NDArray

__all__ = ["Tracker"]


class Tracker(TensorBoardLogger):
    """Writes to ``version_0``, or the next number that is free, of a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name=None)

    def log_hyperparams(self, params: Any) -> None:  # type: ignore[override]
        """Show the hyper-parameters beside the losses, not beside a placeholder."""
        from torch.utils.tensorboard.summary import hparams

        shown = dict.fromkeys(("train/loss", "validation/loss"), 0.0)
        writer = self.experiment._get_file_writer()
        for summary in hparams(self._sanitize_params(params), shown):
            writer.add_summary(summary)

    def log_image(self, key: str, images: Sequence[NDArray[Any]], step: int) -> None:
        """Add images ``(H, W, C)`` of uint8."""
        for number, image in enumerate(images):
            name = f"{key}/{number}" if number else key
            self.experiment.add_image(name, image, step, dataformats="HWC")
