"""MLflow: a store in a folder, shown by ``mlflow ui``, or the server of ``MLFLOW_TRACKING_URI``."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import Logger
from numpy.typing import NDArray

from chartae.errors import ConfigurationError

__all__ = ["Tracker"]

EXPERIMENT = "chartae"


class Tracker(Logger):
    """Writes a run to ``mlflow.db`` and ``artifacts`` in a folder.

    If the variable ``MLFLOW_TRACKING_URI`` is set, the run goes there instead. Its experiment is
    ``chartae``, or that of ``MLFLOW_EXPERIMENT_NAME``.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.run = folder.resolve(), ""
        self.client: Any = None

    @property
    def name(self) -> str:
        return "mlflow"

    @property
    def version(self) -> str | None:
        return self.run or None

    @property
    def experiment(self) -> Any:
        """The client, with a run that is begun at first use.

        Raises:
            ConfigurationError: if MLflow refuses, for example because a server does not answer.
        """
        if self.client is None:
            from mlflow.exceptions import MlflowException

            try:
                self.client, self.run = self._begin()
            except MlflowException as error:
                raise ConfigurationError(f"loggers='mlflow' cannot begin a run: {error}") from error
        return self.client

    def _begin(self) -> tuple[Any, str]:
        from mlflow import MlflowClient

        address, artifacts = os.environ.get("MLFLOW_TRACKING_URI"), None
        if address is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            address = f"sqlite:///{self.folder / 'mlflow.db'}"
            artifacts = (self.folder / "artifacts").as_uri()
        client = MlflowClient(address)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        known = client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else client.create_experiment(name, artifacts)
        return client, client.create_run(experiment).info.run_id

    def log_hyperparams(self, params: Any) -> None:
        from mlflow.entities import Param

        client = self.experiment
        texts = [Param(name, str(value)) for name, value in params.items()]
        client.log_batch(self.run, params=texts)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        from mlflow.entities import Metric

        client, now = self.experiment, int(time.time() * 1000)
        values = [Metric(name, value, now, step or 0) for name, value in metrics.items()]
        client.log_batch(self.run, metrics=values)

    def log_image(self, key: str, images: Sequence[NDArray[Any]], step: int) -> None:
        """Add images ``(H, W, C)`` of uint8."""
        client = self.experiment
        for number, image in enumerate(images):
            name = f"{key}/{number}" if number else key
            client.log_image(self.run, image, key=name, step=step)

    def finalize(self, status: str) -> None:
        if self.client is not None:
            self.client.set_terminated(self.run, "FINISHED" if status == "success" else "FAILED")
            self.client, self.run = None, ""
