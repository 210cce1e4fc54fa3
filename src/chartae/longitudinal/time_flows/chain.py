"""The thesis' stack of flows, one from each time of a grid to the next."""

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from chartae.checks import check_choice, check_integer, check_integers
from chartae.distributions import AutoregressiveFlow
from chartae.errors import ConfigurationError, DataError
from chartae.longitudinal.time_flows.base import TimeFlow
from chartae.longitudinal.time_flows.coupling import CouplingLayers

__all__ = ["ChainFlow"]

Kind = Literal["iaf", "coupling"]


class AutoregressiveLayers(nn.Module):
    """Inverse autoregressive flows in alternating orders, which start at the identity.

    Forward they cost one pass each, backward d passes. Arguments and methods as `CouplingLayers`.
    """

    def __init__(self, dim: int, context: int, layers: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.flows = nn.ModuleList(
            AutoregressiveFlow(dim, context, hidden, reverse=bool(layer % 2))
            for layer in range(layers)
        )
        for flow in self.flows:
            cast(AutoregressiveFlow, flow).set_identity()

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = torch.zeros_like(z[..., 0])
        for flow in self.flows:
            z, log_det = flow(z, context)
            total = total + log_det
        return z, total

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        for flow in reversed(self.flows):
            z = cast(AutoregressiveFlow, flow).inverse(z, context)
        return z, self(z, context)[1]


class ChainFlow(TimeFlow):
    r"""One flow from each time of a grid to the next (thesis Eq. 6.3 to 6.5).

    .. math:: z_0 = u, \quad z_l = f_l(z_{l-1}), \quad F(u; t_l) = z_l

    The grid is the set of the times of the training set; z is not defined at other times. Steps
    start at the identity.

    Args:
        dim: size d of the latents.
        context: size of the context, 0 for none.
        num_times: number of times of the grid, at least 2; the training set must have this number
            of different times. Before training they are 0, 1, 2, ...
        kind: ``"iaf"``, inverse autoregressive flows (as published): a step backward costs d passes
            for each flow. ``"coupling"``: coupling layers, which cost one pass in both directions.
        layers: number of flows of a step.
        hidden: sizes of the hidden layers of each network.

    Raises:
        ConfigurationError: for an option out of range, or coupling layers of one coordinate.
    """

    tolerance = 1e-3
    """Largest distance of a time from the grid, as a share of the grid's smallest step."""

    def __init__(
        self,
        dim: int,
        context: int = 0,
        *,
        num_times: int = 10,
        kind: Kind = "iaf",
        layers: int = 2,
        hidden: Sequence[int] = (128, 128),
    ) -> None:
        super().__init__(dim, context)
        check_choice("kind", kind, ("iaf", "coupling"))
        check_integer("num_times", num_times, minimum=2)
        check_integer("layers", layers, minimum=1)
        check_integers("hidden", list(hidden), minimum=1)
        if kind == "coupling" and dim == 1:
            raise ConfigurationError("kind='coupling': expected a latent_dim of at least 2")
        step = AutoregressiveLayers if kind == "iaf" else CouplingLayers
        self.steps = nn.ModuleList(
            step(dim, context, layers, tuple(hidden)) for _ in range(num_times - 1)
        )
        self.register_buffer("grid", torch.arange(float(num_times)))
        self.register_buffer("given_grid", torch.arange(float(num_times)))

    def set_times(self, times: Tensor, given: Tensor | None = None) -> None:
        """Make the different times of a training set the grid.

        Raises:
            DataError: if their number is not ``num_times``.
        """
        own, place = times.unique(return_inverse=True)
        grid, wanted = self.get_buffer("grid"), len(self.steps) + 1
        if len(own) != wanted:
            raise DataError(
                f"the training set has {len(own)} different times: flow='chain' with "
                f"num_times={wanted} expects {wanted}; flow='time' takes any times"
            )
        grid.copy_(own)
        first = torch.empty_like(place[:wanted]).scatter_(0, place, _numbers(place))
        self.get_buffer("given_grid").copy_((times if given is None else given)[first])

    def nearest(self, times: Tensor) -> Tensor:
        return self.get_buffer("grid").to(times)[self._place(times)]

    def _place(self, times: Tensor) -> Tensor:
        grid = self.get_buffer("grid").to(times)
        return torch.bucketize(times, 0.5 * (grid[1:] + grid[:-1]))

    def index(self, times: Tensor) -> Tensor:
        """Return the places of times in the grid, ``(n,)``.

        Raises:
            DataError: for a time off the grid. The message gives it in the unit of the data.
        """
        grid, place = self.get_buffer("grid").to(times), self._place(times)
        off = (times - grid[place]).abs() > self.tolerance * grid.diff().min()
        if bool(off.any()):
            known = self.get_buffer("given_grid")
            share = (times[off][0] - grid[0]) / (grid[-1] - grid[0])
            named = float(known[0] + share * (known[-1] - known[0]))
            raise DataError(
                f"time {named:.6g} is not on the grid of flow='chain': "
                f"{', '.join(f'{value:.6g}' for value in known.tolist())}; flow='time' takes any"
            )
        return place

    def forward(
        self, u: Tensor, times: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self._moved(u, self.index(times), context, backward=False)

    def inverse(
        self, z: Tensor, times: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self._moved(z, self.index(times), context, backward=True)

    def _moved(
        self, z: Tensor, place: Tensor, context: Tensor | None, *, backward: bool
    ) -> tuple[Tensor, Tensor]:
        """Return z after the steps between the start and each row's place, and their log-dets."""
        total = torch.zeros_like(z[..., 0])
        numbers = range(int(place.max()))
        for number in reversed(numbers) if backward else numbers:
            rows = (place > number).nonzero()[:, 0]
            given = None if context is None else context[rows]
            step = cast(CouplingLayers, self.steps[number])
            moved, log_det = (step.inverse if backward else step)(z[..., rows, :], given)
            z = z.index_copy(-2, rows, moved)
            total = total.index_add(-1, rows, log_det)
        return z, total

    def along(
        self, u: Tensor, owner: Tensor, times: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        # Each state of an individual is computed once, for all of its visits.
        place, count = self.index(times), u.shape[-2]
        states, totals = [u], [torch.zeros_like(u[..., 0])]
        for step in self.steps[: int(place.max())]:
            z, log_det = step(states[-1], context)
            states.append(z)
            totals.append(totals[-1] + log_det)
        chosen = place * count + owner
        return torch.cat(states, -2)[..., chosen, :], torch.cat(totals, -1)[..., chosen]


def _numbers(values: Tensor) -> Tensor:
    return torch.arange(len(values), device=values.device)
