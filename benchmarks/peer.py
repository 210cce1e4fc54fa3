"""Pythae 0.1.2 as the peer: the same networks in its form, and its trainer timed by the epoch.

It runs with torch 2.13, NumPy 2 and no torchvision as it is: no shim. What is arranged here is in
its favour: no progress bar, no log lines, and only its epochs are timed, not the making of its
trainer (which runs the model once) nor the saving of its final model.
"""

import logging
import tempfile
import time
from typing import Any

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import RHVAE, VAE, RHVAEConfig, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.samplers import RHVAESampler, RHVAESamplerConfig
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import CallbackHandler, TrainingCallback
from torch import Tensor, nn

__all__ = [
    "RHVAE",
    "VAE",
    "Decoder",
    "Encoder",
    "RHVAEConfig",
    "RHVAESampler",
    "RHVAESamplerConfig",
    "VAEConfig",
    "train",
]


logging.disable(logging.INFO)  # its modules each set their own level


class Encoder(BaseEncoder):  # type: ignore[misc]
    """D-400-(2 d): the thesis' encoder, as chartae's preset ``"thesis/mnist"``."""

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(features, 400), nn.ReLU())
        self.embedding = nn.Linear(400, latent_dim)
        self.log_variance = nn.Linear(400, latent_dim)

    def forward(self, x: Tensor) -> ModelOutput:
        hidden = self.hidden(x)
        return ModelOutput(
            embedding=self.embedding(hidden), log_covariance=self.log_variance(hidden)
        )


class Decoder(BaseDecoder):  # type: ignore[misc]
    """d-400-D with a sigmoid, which Pythae's likelihood expects."""

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(latent_dim, 400), nn.ReLU(), nn.Linear(400, features), nn.Sigmoid()
        )

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.network(z))


class _Clock(TrainingCallback):  # type: ignore[misc]
    """The time of every start of an epoch, and of the last one's end."""

    def __init__(self) -> None:
        self.start = self.end = 0.0

    def on_train_begin(self, training_config: BaseTrainerConfig, **kwargs: Any) -> None:
        self.start = time.perf_counter()

    def on_epoch_end(self, training_config: BaseTrainerConfig, **kwargs: Any) -> None:
        self.end = time.perf_counter()


class _Trainer(BaseTrainer):  # type: ignore[misc]
    """Pythae's trainer without its progress bar and console lines."""

    def _setup_callbacks(self) -> None:
        self.callback_handler = CallbackHandler(callbacks=self.callbacks, model=self.model)


def train(model: VAE, x: Tensor, *, epochs: int, batch_size: int, fused: bool = False) -> float:
    """Train with Pythae's own trainer; return the seconds of its epochs alone.

    No evaluation set is given, so that none is evaluated; the trainer then keeps a copy of the best
    model, by training loss, as chartae does.
    """
    with tempfile.TemporaryDirectory() as folder:
        clock = _Clock()
        trainer = _Trainer(
            model=model,
            train_dataset=BaseDataset(x, torch.zeros(len(x))),
            training_config=BaseTrainerConfig(
                output_dir=folder,
                per_device_train_batch_size=batch_size,
                num_epochs=epochs,
                learning_rate=1e-3,
                optimizer_params={"fused": True} if fused else None,
            ),
            callbacks=[clock],
        )
        trainer.train()
    return clock.end - clock.start
