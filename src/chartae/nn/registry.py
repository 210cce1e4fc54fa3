"""Build encoders and decoders from a preset's name, a mapping with options, or any module."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from chartae.checks import named_options
from chartae.errors import ConfigurationError

__all__ = [
    "DECODERS",
    "ENCODERS",
    "NetworkSpec",
    "build_decoder",
    "build_encoder",
    "output_features",
    "output_shape",
    "probing",
    "register_decoder",
    "register_encoder",
]

NetworkSpec = str | Mapping[str, Any] | nn.Module
"""A preset's name, a mapping ``{"name": ..., **options}``, or a module."""
Shape = tuple[int, ...]
LARGE = 1 << 20
"""Number of entries of a batch above which a network is probed on the meta device, without data."""
Factory = TypeVar("Factory", bound=Callable[..., nn.Module])

ENCODERS: dict[str, Callable[..., nn.Module]] = {}
"""The encoder presets by name; `register_encoder` adds to them."""
DECODERS: dict[str, Callable[..., nn.Module]] = {}
"""The decoder presets by name; `register_decoder` adds to them."""


def register_encoder(name: str) -> Callable[[Factory], Factory]:
    """Register ``factory(input_shape, **options)`` as the encoder preset ``name``.

    A model built from a registered name can be saved and loaded without passing its module again.
    """
    return lambda factory: _register(ENCODERS, name, factory)


def register_decoder(name: str) -> Callable[[Factory], Factory]:
    """Register ``factory(latent_dim, output_shape, **options)`` as the decoder preset ``name``."""
    return lambda factory: _register(DECODERS, name, factory)


def _register(presets: dict[str, Callable[..., nn.Module]], name: str, factory: Factory) -> Factory:
    presets[name] = factory
    return factory


def build_encoder(spec: NetworkSpec, input_shape: Shape) -> nn.Module:
    """Build the encoder that ``spec`` describes: a module from x to ``(batch, features)``.

    Args:
        spec: a preset's name (`ENCODERS`), a mapping ``{"name": preset, **options}``, or any
            module, which is returned as it is.
        input_shape: shape of one observation.

    Raises:
        ConfigurationError: for an unknown preset or option.

    >>> build_encoder({"name": "mlp", "hidden": [32]}, (8, 8))(torch.zeros(5, 8, 8)).shape
    torch.Size([5, 32])
    """
    if isinstance(spec, nn.Module):
        return spec
    return _build("encoder", spec, ENCODERS, input_shape)


def build_decoder(spec: NetworkSpec, latent_dim: int, output_shape: Shape) -> nn.Module:
    """Build the decoder that ``spec`` describes: a module from ``(batch, latent_dim)`` to x.

    Args:
        spec: as in `build_encoder`, with a preset's name in `DECODERS`.
        latent_dim: size of the latent space.
        output_shape: shape that the likelihood expects for one latent; a module may return it flat.

    Raises:
        ConfigurationError: for an unknown preset or option, or a module with a wrong output size.
    """
    if not isinstance(spec, nn.Module):
        return _build("decoder", spec, DECODERS, latent_dim, output_shape)
    size, expected = output_features(spec, (latent_dim,)), math.prod(output_shape)
    if size != expected:
        raise ConfigurationError(
            f"decoder gives {size} values for one latent of size {latent_dim}: the likelihood "
            f"expects {expected}, of shape {output_shape}"
        )
    return spec


def output_features(module: nn.Module, input_shape: Shape) -> int:
    """Return the number of entries of the output of ``module`` for one input."""
    return math.prod(output_shape(module, input_shape))


def output_shape(module: nn.Module, input_shape: Shape) -> Shape:
    """Return the output shape of ``module`` for one input, by calling it on zeros.

    Raises:
        ConfigurationError: if the module does not accept the shape, or does not return a tensor
            whose first dimension is the batch.
    """
    parameter = next(module.parameters(), torch.empty(0))
    shape, dtype = (2, *input_shape), parameter.dtype
    try:
        with probing(module):
            if math.prod(shape) > LARGE and _is_plain(module):
                state = {name: tensor.to("meta") for name, tensor in module.state_dict().items()}
                output = functional_call(
                    module, state, torch.zeros(shape, dtype=dtype, device="meta")
                )
            else:
                output = module(torch.zeros(shape, dtype=dtype, device=parameter.device))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ConfigurationError(
            f"{type(module).__name__} does not accept a batch of shape {shape} and dtype "
            f"{dtype}: {error}"
        ) from error
    if not isinstance(output, Tensor) or output.dim() == 0 or output.shape[0] != 2:
        given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ConfigurationError(
            f"{type(module).__name__} returned {given} for a batch of 2: expected one tensor "
            "whose first dimension is the batch"
        )
    return tuple(output.shape[1:])


def _is_plain(module: nn.Module) -> bool:
    """Return whether a module consists of torch's and chartae's modules, without lazy parameters.

    Such a module can be probed on the meta device. The first call of a user's module may have
    side effects.
    """
    homes = {type(part).__module__.partition(".")[0] for part in module.modules()}
    return homes <= {"torch", "chartae"} and not any(map(is_lazy, module.parameters()))


@contextmanager
def probing(module: nn.Module) -> Iterator[None]:
    """Set ``module`` to eval mode without gradients inside the block; restore its modes afterwards.

    >>> module = nn.Dropout()
    >>> with probing(module):
    ...     module.training, torch.is_grad_enabled()
    (False, False)
    >>> module.training
    True
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def _build(
    kind: str, spec: str | Mapping[str, Any], presets: Mapping[str, Any], *shapes: object
) -> nn.Module:
    name, options = named_options(kind, spec, presets, ", or a torch module")
    try:
        module: nn.Module = presets[name](*shapes, **options)
    except ConfigurationError:
        raise
    except (TypeError, ValueError, RuntimeError, LookupError) as error:
        raise ConfigurationError(f"{kind}={spec!r}: {error}") from error
    return module
