"""Discriminators: networks that separate two kinds of input."""

from collections.abc import Iterator

from torch import Tensor, nn

from chartae.checks import check_integer
from chartae.errors import ConfigurationError
from chartae.nn.registry import NetworkSpec, build_encoder, output_features

__all__ = ["Discriminator"]


class Discriminator(nn.Module):
    r"""An encoder's body and a linear head. Its logit is high for inputs of the first kind.

    Args:
        spec: the body, as in `build_encoder`. None is a perceptron with two layers of 256 leaky
            ReLU, for latents. The discriminators of the thesis are ``"thesis/discriminator"`` and
            ``"thesis/celeba_discriminator"``. The discriminator of the FactorVAE is
            ``{"name": "mlp", "hidden": [1000] * 6, "slope": 0.2}``.
        input_shape: shape of one input.

    Raises:
        ConfigurationError: for an unknown preset, or a module that does not accept the shape.

    >>> import torch
    >>> Discriminator(None, (10,))(torch.zeros(5, 10)).shape
    torch.Size([5])
    """

    def __init__(self, spec: NetworkSpec | None, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        default = {"name": "mlp", "hidden": [256, 256], "slope": 0.2}
        self.body = build_encoder(default if spec is None else spec, input_shape)
        self.head = nn.Linear(output_features(self.body, input_shape), 1)

    @property
    def depth(self) -> int:
        """The number of layers after which `features` can stop; 0 if the body is no Sequential."""
        return len(list(self._layers()))

    def features(self, x: Tensor, depth: int | None = None) -> Tensor:
        """Return the output of the body for x, ``(batch, features)``, or of its layer ``depth``.

        Args:
            x: ``(batch, *input_shape)``.
            depth: stop after this number of layers of a Sequential body, from 1 to `depth`, and
                return the activations, ``(batch, ...)``. A layer is a module with weights and the
                normalisation and activation that follow it. A residual block is one layer.

        Raises:
            ConfigurationError: for a depth that the body does not have.
        """
        if depth is None:
            features: Tensor = self.body(x)
            return features.flatten(1)
        if not self.depth:
            raise ConfigurationError(
                f"depth={depth}: the discriminator's body is {type(self.body).__name__}; expected "
                "a torch.nn.Sequential, whose layers can be separated"
            )
        check_integer("depth", depth, minimum=1, maximum=self.depth)
        for layer in list(self._layers())[:depth]:
            x = layer(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, ``(batch,)``."""
        logits: Tensor = self.head(self.features(x))
        return logits[:, 0]

    def _layers(self) -> Iterator[nn.Sequential]:
        """Yield the layers of the body; the first layer includes what is before it."""
        if not isinstance(self.body, nn.Sequential):
            return
        layer: list[nn.Module] = []
        started = False
        for part in self.body:
            weighted = any(parameter.dim() > 1 for parameter in part.parameters())
            if weighted and started:
                yield nn.Sequential(*layer)
                layer = []
            started = started or weighted
            layer.append(part)
        yield nn.Sequential(*layer)
