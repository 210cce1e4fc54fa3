"""The optimiser of geodesics: L-BFGS on the energies of many paths at once."""

import math

import torch
from torch import Tensor

from chartae.geometry.metrics.base import Local, Metric

__all__ = ["EnergyDescent"]

MEMORY = 10
"""Number of steps in the L-BFGS memory."""


class EnergyDescent:
    """L-BFGS on the energies of many paths at once. Each path has its own step size.

    The energy of points x_0 ... x_n is 1/2n sum_k v_k^T G(m_k) v_k, with v_k = n (x_{k+1} - x_k)
    and m_k the midpoint of the segment.

    Args:
        metric: a metric.
        points: initial paths, ``(n, T, d)``, whose ends stay where they are.
        tolerance: the residual at which a path is finished, as in `shortest_paths`.
    """

    def __init__(self, metric: Metric, points: Tensor, tolerance: float) -> None:
        self.metric, self.tolerance = metric, tolerance
        self.points, self.residual = points.clone(), points.new_full((len(points),), math.inf)
        self.pairs = torch.arange(len(points), device=points.device)  # those still moving
        self.x = points.clone()
        local, self.energy, self.grad = self._evaluate(self.x)
        empty = self.grad.new_zeros(MEMORY, *self.grad.shape)
        self.moves, self.changes = empty, empty
        self.remembered = 0  # steps, the last ones of the memory; those before are empty
        self.curvatures = empty.new_zeros(MEMORY, len(points))  # 1 / (move . change), or 0
        self.direction, self.slope, self.lost = self._descending(local)
        self.step = self.longest = self._longest()

    def run(self, max_iterations: int) -> tuple[Tensor, Tensor]:
        """Return points ``(n, T, d)`` and residuals ``(n,)``, as in `Paths`."""
        self._retire()
        for _ in range(max_iterations):
            if not len(self.pairs):
                break
            self._advance()
            self._retire()
        self._store(torch.ones_like(self.energy, dtype=torch.bool))
        return self.points, self.residual

    def _evaluate(self, x: Tensor) -> tuple[Local, Tensor, Tensor]:
        """Return the metric on the segments, energies, and gradients at the inner points."""
        segments = x.shape[1] - 1
        velocity = segments * (x[:, 1:] - x[:, :-1])
        local = self.metric.at(0.5 * (x[:, 1:] + x[:, :-1]))
        momentum = local.momentum(velocity)
        energy = 0.5 * (velocity * momentum).sum(-1).mean(-1)
        force = -local.kinetic_grad(momentum)
        grad = momentum[:, :-1] - momentum[:, 1:]
        return local, energy, grad + (force[:, :-1] + force[:, 1:]) / (2 * segments)

    def _precondition(self, local: Local, grad: Tensor) -> Tensor:
        """Return the Newton move for a gradient, for a metric held constant at ``local``.

        The gradient of the move's energy equals ``grad``. The momentum of the move changes by the
        gradient at each inner point. The increments G^-1 p sum to zero, so that the ends do not
        move.
        """
        change = torch.cat([torch.zeros_like(grad[:, :1]), grad.cumsum(1)], 1)
        total = local.velocity(change).sum(1)
        constant: Tensor = torch.linalg.solve_ex(local.inverse.sum(1), total)[0]
        increments = local.velocity(constant[:, None] - change) / change.shape[1]
        return increments.cumsum(1)[:, :-1]

    def _direction(self, local: Local) -> Tensor:
        """Return the descent direction of L-BFGS (Nocedal and Wright, Alg. 7.4)."""
        remaining, weights = self.grad, []
        places = range(MEMORY - self.remembered, MEMORY)
        for k in reversed(places):
            weight = self.curvatures[k] * _dot(self.moves[k], remaining)
            remaining = remaining - weight[:, None, None] * self.changes[k]
            weights.append(weight)
        move = self._precondition(local, remaining)
        for k, weight in zip(places, reversed(weights), strict=True):
            correction = weight - self.curvatures[k] * _dot(self.changes[k], move)
            move = move + correction[:, None, None] * self.moves[k]
        return -move

    def _descending(self, local: Local) -> tuple[Tensor, Tensor, Tensor]:
        """Return descent directions, the energies' slopes along them, and where none was found.

        The L-BFGS memory may give an ascent direction; it is then cleared. Where the metric spans
        many orders of magnitude, rounding may also make the preconditioned gradient an ascent
        direction.
        """
        direction = self._direction(local)
        slope = _dot(self.grad, direction)
        ascends = ~(slope < 0.0)
        if bool(ascends.any()):
            ascends &= (self.grad != 0.0).any(-1).any(-1)  # a zero gradient is a minimum
            self.curvatures = torch.where(ascends, 0.0, self.curvatures)
            direction = torch.where(ascends[:, None, None], self._direction(local), direction)
            slope = _dot(self.grad, direction)
            ascends &= ~(slope < 0.0)
        return direction, slope, ascends

    def _advance(self) -> None:
        """Try every pair's step. Keep it if it lowers the energy enough, else shorten it."""
        x = self.x.clone()
        x[:, 1:-1] += self.step[:, None, None] * self.direction
        local, energy, grad = self._evaluate(x)
        # Near the minimum the decrease of the energy is smaller than the rounding error.
        rounding = 10.0 * torch.finfo(energy.dtype).eps * self.energy
        lower = energy <= self.energy + 1e-4 * self.step * self.slope + rounding
        finite = torch.isfinite(grad).all(-1).all(-1)
        lower &= finite
        self._remember(lower, x[:, 1:-1] - self.x[:, 1:-1], grad - self.grad)
        wide = lower[:, None, None]
        self.x, self.grad = torch.where(wide, x, self.x), torch.where(wide, grad, self.grad)
        self.energy = torch.where(lower, energy, self.energy)
        # If a step was shortened several times, the L-BFGS memory is wrong and is cleared.
        misled = ~lower & (self.step < 0.05 * self.longest) & (self.curvatures != 0).any(0)
        misled &= finite
        self.curvatures = torch.where(misled, 0.0, self.curvatures)
        turned = lower | misled
        direction, slope, lost = self._descending(local)
        self.direction = torch.where(turned[:, None, None], direction, self.direction)
        self.lost = torch.where(turned, lost, self.lost)
        self.slope = torch.where(turned, slope, self.slope)
        self.longest = torch.where(turned, self._longest(), self.longest)
        self.step = torch.where(turned, self.longest, 0.3 * self.step)

    def _longest(self) -> Tensor:
        """Return the first step: at most 1, and no point moves more than the path's length."""
        size = self.x.diff(dim=1).norm(dim=-1).sum(1)
        farthest = self.direction.norm(dim=-1).amax(1)
        longest: Tensor = size / farthest.clamp_min(torch.finfo(size.dtype).tiny)
        return longest.clamp_max(1.0)

    def _remember(self, lower: Tensor, move: Tensor, change: Tensor) -> None:
        product = _dot(move, change)
        curved = product > 1e-10 * (_dot(move, move) * _dot(change, change)).sqrt()
        new = lower & curved
        curvature = torch.where(new, product.reciprocal(), 0.0)
        wide = new[:, None, None]
        self.remembered = min(self.remembered + 1, MEMORY)
        self.moves = torch.where(wide, _pushed(self.moves, move), self.moves)
        self.changes = torch.where(wide, _pushed(self.changes, change), self.changes)
        self.curvatures = torch.where(new, _pushed(self.curvatures, curvature), self.curvatures)

    def _retire(self) -> None:
        """Remove finished pairs, if there are enough of them to justify the copy."""
        tiny = torch.finfo(self.energy.dtype).tiny
        self._relative = (-self.slope / (2.0 * self.energy).clamp_min(tiny)).clamp_min(0.0).sqrt()
        self._relative = torch.where(self.lost, math.inf, self._relative)
        done = self.lost | (self._relative <= self.tolerance) | (self.step < 1e-6 * self.longest)
        if not bool(done.any()) or (3 * int(done.sum()) < len(done) and len(done) > 8):
            return
        self._store(done)
        kept = ~done
        self.pairs, self.x = self.pairs[kept], self.x[kept]
        self.energy, self.grad, self.slope = self.energy[kept], self.grad[kept], self.slope[kept]
        self.direction, self.step = self.direction[kept], self.step[kept]
        self.longest, self.lost = self.longest[kept], self.lost[kept]
        self.moves, self.changes = self.moves[:, kept], self.changes[:, kept]
        self.curvatures, self._relative = self.curvatures[:, kept], self._relative[kept]

    def _store(self, which: Tensor) -> None:
        self.points[self.pairs[which]] = self.x[which]
        self.residual[self.pairs[which]] = self._relative[which]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the products of moves of paths ``(pairs, n, d)``: ``(pairs,)``."""
    return (a * b).sum((-2, -1))


def _pushed(memory: Tensor, newest: Tensor) -> Tensor:
    return torch.cat([memory[1:], newest[None]])
