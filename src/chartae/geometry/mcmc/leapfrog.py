"""A reversible, volume-preserving integrator of geodesics for Markov chains."""

from collections.abc import Callable

import torch
from torch import Tensor

from chartae.geometry.metrics.base import Metric

__all__ = ["generalised_leapfrog"]


@torch.no_grad()
def generalised_leapfrog(
    metric: Metric, z: Tensor, momentum: Tensor, *, num_steps: int, max_iterations: int = 20
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Integrate geodesics from time 0 to 1; return points, momenta, and which are valid.

    With :math:`\epsilon = 1/n` and :math:`H = \frac12 q^\top G^{-1}(z) q`, each step solves

    .. math::
        q_{1/2} &= q - \tfrac\epsilon2 \nabla_z H(z, q_{1/2}) \\
        z' &= z + \tfrac\epsilon2 [G^{-1}(z) + G^{-1}(z')]\, q_{1/2} \\
        q' &= q_{1/2} - \tfrac\epsilon2 \nabla_z H(z', q_{1/2})

    (MATH.md section 3 without its potential). If the two implicit equations are solved, the map
    :math:`(z, q) \mapsto (z', -q')` is its own inverse and preserves volume, both exactly. The
    equations are solved by fixed-point iteration. If the iteration does not converge, the map has
    neither property. The geodesic then stops at its last valid point, and the third output is
    False.

    Args:
        metric: a metric.
        z: starting points, ``(n, d)``.
        momentum: momenta at z, ``(n, d)``.
        num_steps: steps of the integrator.
        max_iterations: maximum number of iterations for an implicit equation.

    Returns:
        z': ``(n, d)``; q': ``(n, d)``; whether all equations were solved, ``(n,)`` bool.
    """
    half_step = 0.5 / num_steps
    z, momentum = z.clone(), momentum.clone()
    rows = torch.arange(len(z), device=z.device)  # the geodesics that are still valid
    for _ in range(num_steps):
        here, start = z[rows], momentum[rows]
        half, solved = _solve(
            lambda q, i: start[i] - half_step * metric.at(here[i]).kinetic_grad(q),  # noqa: B023
            start,
            max_iterations,
        )
        rows, here, half = rows[solved], here[solved], half[solved]
        shift = half_step * metric.at(here).velocity(half)
        there, solved = _solve(
            lambda x, i: here[i] + shift[i] + half_step * metric.at(x).velocity(half[i]),  # noqa: B023
            here + 2.0 * shift,
            max_iterations,
        )
        rows, there, half = rows[solved], there[solved], half[solved]
        z[rows] = there
        momentum[rows] = half - half_step * metric.at(there).kinetic_grad(half)
    trusted = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    trusted[rows] = torch.isfinite(momentum[rows]).all(-1)
    return z, momentum, trusted


def _solve(
    update: Callable[[Tensor, Tensor], Tensor], guess: Tensor, max_iterations: int
) -> tuple[Tensor, Tensor]:
    """Iterate x = update(x, rows) from a guess, ``(n, d)``; return x and which rows converged.

    A row that has converged is not evaluated again.
    """
    x, solved = guess.clone(), torch.zeros(len(guess), dtype=torch.bool, device=guess.device)
    tolerance = torch.finfo(guess.dtype).eps ** 0.75
    rows = torch.arange(len(guess), device=guess.device)
    for _ in range(max_iterations):
        if not len(rows):
            break
        before, after = x[rows], update(x[rows], rows)
        x[rows] = after
        moved = (after - before).abs().amax(-1)
        settled = moved <= tolerance * (1.0 + after.abs().amax(-1))
        solved[rows[settled]] = True
        rows = rows[~settled & torch.isfinite(moved)]
    return x, solved
