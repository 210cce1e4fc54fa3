"""The flow of a vector field in time."""

import torch
from torch import Tensor, nn

from chartae.checks import check_integer
from chartae.longitudinal.time_flows.base import TimeFeatures, TimeFlow

__all__ = ["OdeFlow"]


class OdeFlow(TimeFlow):
    r"""The flow of a vector field (Chen et al., 2018), by Runge-Kutta steps of order 4.

    .. math:: \frac{dz}{dt} = v(z, t, c), \quad z(0) = u, \quad
        \log |\det dF/du| = \int_0^t \mathrm{tr} \frac{\partial v}{\partial z} \, ds

    where :math:`v = W_2 \tanh(W_1 z + W_t \tau(t) + W_c c + b_1) + b_2`. Its trace is known in
    closed form. Each row takes ``num_steps`` equal steps from 0 to its own time, so that it does
    not depend on the other rows. Time 0 is the mean time of the training set. The field starts at
    0, and the flow at the identity. `inverse` follows the field backward: it is the inverse of
    `forward` up to the error of the steps, of the order of ``num_steps ** -4``.

    Args:
        dim: size d of the latents.
        context: size of the context, 0 for none.
        hidden: number of hidden units of the field.
        num_steps: number of steps from 0 to a time.
        waves: number of pairs of waves of time that the field sees.
    """

    def __init__(
        self,
        dim: int,
        context: int = 0,
        *,
        hidden: int = 128,
        num_steps: int = 8,
        waves: int = 1,
    ) -> None:
        super().__init__(dim, context)
        self.num_steps = check_integer("num_steps", num_steps, minimum=1)
        check_integer("hidden", hidden, minimum=1)
        self.time_features = TimeFeatures(check_integer("waves", waves, minimum=0))
        self.state = nn.Linear(dim, hidden, bias=False)
        self.given = nn.Linear(self.time_features.size + context, hidden)
        self.velocity = nn.Linear(hidden, dim)
        nn.init.zeros_(self.velocity.weight)
        nn.init.zeros_(self.velocity.bias)

    def field(
        self, z: Tensor, times: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return v(z, t, c), ``(..., n, d)``, and its trace, ``(..., n)``. Arguments as `forward`.

        A subclass may override it.
        """
        given = self.time_features(times)
        if context is not None:
            given = torch.cat([given, context], -1)
        units = torch.tanh(self.state(z) + self.given(given))
        # Unit h contributes tanh' (W_1)_h . (W_2)_h to the trace.
        gains = (self.state.weight * self.velocity.weight.mT).sum(-1)
        return self.velocity(units), (1.0 - units.square()) @ gains

    def forward(
        self, u: Tensor, times: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self._integrated(u, torch.zeros_like(times), times, context)

    def inverse(
        self, z: Tensor, times: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        u, log_det = self._integrated(z, times, torch.zeros_like(times), context)
        return u, -log_det

    def _integrated(
        self, z: Tensor, start: Tensor, end: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return z and the log-determinant at the end of each row's interval, by RK4 steps."""
        step = (end - start) / self.num_steps
        h, total = step[:, None], torch.zeros_like(z[..., 0])
        for number in range(self.num_steps):
            t = start + number * step
            v1, trace1 = self.field(z, t, context)
            v2, trace2 = self.field(z + 0.5 * h * v1, t + 0.5 * step, context)
            v3, trace3 = self.field(z + 0.5 * h * v2, t + 0.5 * step, context)
            v4, trace4 = self.field(z + h * v3, t + step, context)
            z = z + h / 6.0 * (v1 + 2.0 * (v2 + v3) + v4)
            total = total + step / 6.0 * (trace1 + 2.0 * (trace2 + trace3) + trace4)
        return z, total
