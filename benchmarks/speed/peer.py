"""Pythae 0.1.2 as the peer: the same networks in its form, and its trainer timed by the epoch.

It runs with torch 2.13, NumPy 2 and no torchvision as it is: no shim. What is arranged here is in
its favour: no progress bar, no log lines, and only its epochs are timed, not the making of its
trainer (which runs the model once) nor the saving of its final model.
"""

import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import RHVAE, VAE, BaseAE, RHVAEConfig, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.samplers import RHVAESampler, RHVAESamplerConfig
from pythae.trainers import (
    AdversarialTrainer,
    AdversarialTrainerConfig,
    BaseTrainer,
    BaseTrainerConfig,
    CoupledOptimizerAdversarialTrainer,
    CoupledOptimizerAdversarialTrainerConfig,
    CoupledOptimizerTrainer,
    CoupledOptimizerTrainerConfig,
)
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
    """ReLU layers and linear heads: as chartae's preset ``"thesis/mnist"``, or ``"mlp"``.

    Args:
        features: size of one observation, whatever its shape.
        latent_dim: size of the latent space.
        hidden: sizes of the layers.
        heads: what Pythae's model expects of its encoder, and of which size.
        code_shape: shape of the embedding, where it is not ``(latent_dim,)``.
    """

    def __init__(
        self,
        features: int,
        latent_dim: int,
        hidden: Sequence[int] = (400,),
        heads: Mapping[str, int] | None = None,
        code_shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Flatten(), *_layers([features, *hidden]))
        heads = heads or {"embedding": latent_dim, "log_covariance": latent_dim}
        self.heads = nn.ModuleDict({name: nn.Linear(hidden[-1], n) for name, n in heads.items()})
        self.code_shape = code_shape or (latent_dim,)

    def forward(self, x: Tensor) -> ModelOutput:
        hidden = self.hidden(x)
        output = ModelOutput({name: head(hidden) for name, head in self.heads.items()})
        output["embedding"] = output["embedding"].reshape(-1, *self.code_shape)
        return output


class Decoder(BaseDecoder):  # type: ignore[misc]
    """ReLU layers and a sigmoid, which Pythae's likelihood expects.

    Args:
        features: size of one observation.
        latent_dim: size of the latent space.
        hidden: sizes of the layers.
        shape: shape of one observation; None is ``(features,)``.
        sigmoid: False leaves the last layer linear, for a squared error.
    """

    def __init__(
        self,
        features: int,
        latent_dim: int,
        hidden: Sequence[int] = (400,),
        shape: tuple[int, ...] | None = None,
        sigmoid: bool = True,
    ) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Flatten(),
            *_layers([latent_dim, *hidden]),
            nn.Linear(hidden[-1], features),
            nn.Sigmoid() if sigmoid else nn.Identity(),
            nn.Unflatten(1, shape or (features,)),
        )

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.network(z))


def _layers(sizes: Sequence[int]) -> list[nn.Module]:
    return [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]


class _Clock(TrainingCallback):  # type: ignore[misc]
    """The time of every start of an epoch, and of the last one's end."""

    def __init__(self) -> None:
        self.start = self.end = 0.0

    def on_train_begin(self, training_config: BaseTrainerConfig, **kwargs: Any) -> None:
        self.start = time.perf_counter()

    def on_epoch_end(self, training_config: BaseTrainerConfig, **kwargs: Any) -> None:
        self.end = time.perf_counter()


# The trainer that Pythae's own pipeline takes for a model; any other has `BaseTrainer`.
_TRAINERS = {
    "RAE_L2": (CoupledOptimizerTrainer, CoupledOptimizerTrainerConfig, ("encoder", "decoder")),
    "PIWAE": (CoupledOptimizerTrainer, CoupledOptimizerTrainerConfig, ("encoder", "decoder")),
    "Adversarial_AE": (
        AdversarialTrainer, AdversarialTrainerConfig, ("autoencoder", "discriminator"),
    ),
    "FactorVAE": (
        AdversarialTrainer, AdversarialTrainerConfig, ("autoencoder", "discriminator"),
    ),
    "VAEGAN": (
        CoupledOptimizerAdversarialTrainer,
        CoupledOptimizerAdversarialTrainerConfig,
        ("encoder", "decoder", "discriminator"),
    ),
}  # fmt: skip


def _quiet(trainer: type[BaseTrainer]) -> type[BaseTrainer]:
    """Return Pythae's trainer without its progress bar and console lines."""

    def setup(self: BaseTrainer) -> None:
        self.callback_handler = CallbackHandler(callbacks=self.callbacks, model=self.model)

    return type(trainer.__name__, (trainer,), {"_setup_callbacks": setup})


def train(model: BaseAE, x: Tensor, *, epochs: int, batch_size: int, fused: bool = False) -> float:
    """Train with Pythae's own trainer; return the seconds of its epochs alone.

    No evaluation set is given, so that none is evaluated; the trainer then keeps a copy of the best
    model, by training loss, as chartae does.
    """
    trainer_class, config_class, parts = _TRAINERS.get(
        model.model_name, (BaseTrainer, BaseTrainerConfig, ("",))
    )
    # With several optimizers, each has its own settings: `encoder_learning_rate` ...
    prefixes = [f"{part}_" if part else "" for part in parts]
    params: dict[str, Any] = {"fused": True} if fused else {}
    options: dict[str, Any] = {f"{prefix}learning_rate": 1e-3 for prefix in prefixes}
    options |= {f"{prefix}optimizer_params": params or None for prefix in prefixes}
    if model.model_name == "RAE_L2":  # its penalty, as Pythae's pipeline sets it
        options["decoder_optimizer_params"] = {
            **params, "weight_decay": model.model_config.reg_weight,
        }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        clock = _Clock()
        trainer = _quiet(trainer_class)(
            model=model,
            train_dataset=BaseDataset(x, torch.zeros(len(x))),
            training_config=config_class(
                output_dir=folder,
                per_device_train_batch_size=batch_size,
                num_epochs=epochs,
                **options,
            ),
            callbacks=[clock],
        )
        trainer.train()
    return clock.end - clock.start
