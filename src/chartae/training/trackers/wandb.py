"""Weights & Biases: a run in a folder, sent to no server unless ``WANDB_MODE`` says so."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import Logger
from numpy.typing import NDArray

from chartae.errors import ConfigurationError

__all__ = ["Tracker"]


class Tracker(Logger):
    """Writes a run to ``wandb`` in a folder, offline unless the variable ``WANDB_MODE`` is set.

    ``wandb sync`` sends it later. Other variables of Weights & Biases hold too, such as
    ``WANDB_PROJECT``; the project is otherwise ``chartae``.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.run: Any = None

    @property
    def name(self) -> str:
        return "wandb"

    @property
    def version(self) -> str | None:
        return None if self.run is None else str(self.run.id)

    @property
    def experiment(self) -> Any:
        """The run, begun at first use; a run of yours that is active stays as it is.

        Raises:
            ConfigurationError: if Weights & Biases refuses, for example without a key.
        """
        if self.run is None:
            import wandb

            self.folder.mkdir(parents=True, exist_ok=True)
            mode: Any = os.environ.get("WANDB_MODE", "offline")
            try:
                self.run = wandb.init(
                    project=os.environ.get("WANDB_PROJECT", "chartae"),
                    dir=self.folder,
                    mode=mode,
                    reinit="create_new",
                    settings=wandb.Settings(console="off", silent=mode == "offline"),
                )
            except wandb.Error as error:
                raise ConfigurationError(
                    f"loggers='wandb' with WANDB_MODE={mode!r} cannot begin a run: {error}"
                ) from error
            # Pictures of the best epoch come after the last epoch: steps need not rise.
            self.run.define_metric("*", step_metric="epoch")
        return self.run

    def log_hyperparams(self, params: Any) -> None:
        self.experiment.config.update(params)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.experiment.log({**metrics, "epoch": step})

    def log_image(self, key: str, images: Sequence[NDArray[Any]], step: int) -> None:
        """Add images ``(H, W, C)`` of uint8."""
        from wandb import Image

        self.experiment.log({key: [Image(image) for image in images], "epoch": step})

    def finalize(self, status: str) -> None:
        if self.run is not None:
            self.run.finish(exit_code=int(status != "success"))
            self.run = None
