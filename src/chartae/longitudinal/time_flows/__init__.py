"""Flows in time: invertible maps from the latent of an individual to its latents at any time."""

from collections.abc import Mapping
from typing import Any

from chartae.checks import named_options
from chartae.errors import ConfigurationError
from chartae.longitudinal.time_flows.base import TimeFeatures, TimeFlow
from chartae.longitudinal.time_flows.chain import ChainFlow
from chartae.longitudinal.time_flows.coupling import CouplingFlow, CouplingLayers
from chartae.longitudinal.time_flows.ode import OdeFlow
from chartae.longitudinal.time_flows.rotation import RotationFlow

__all__ = [
    "TIME_FLOWS",
    "ChainFlow",
    "CouplingFlow",
    "CouplingLayers",
    "OdeFlow",
    "RotationFlow",
    "TimeFeatures",
    "TimeFlow",
    "make_time_flow",
]

TIME_FLOWS: dict[str, type[TimeFlow]] = {
    "time": CouplingFlow,
    "chain": ChainFlow,
    "ode": OdeFlow,
    "rotation": RotationFlow,
}
"""The flows in time, by the name that selects them."""


def make_time_flow(spec: str | Mapping[str, Any], dim: int, context: int = 0) -> TimeFlow:
    """Return a flow in time from its name, or from ``{"name": ..., **options}``.

    Raises:
        ConfigurationError: for an unknown name or option.
    """
    name, options = named_options("flow", spec, TIME_FLOWS)
    try:
        return TIME_FLOWS[name](dim, context, **options)
    except TypeError as error:
        raise ConfigurationError(f"flow={spec!r}: {error}") from None
