"""Volumes of simple heads, of known class and age, for tests and examples of volumes."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from chartae.checks import check_integer, check_number
from chartae.data.dataset import ArrayDataset
from chartae.randomness import make_generator

__all__ = ["Heads", "phantom_heads"]

CLASSES = ("control", "patient")
SKULL, BRAIN, VENTRICLE = 0.9, 0.6, 0.2
"""Intensities; outside the head it is 0."""
AGES = (50.0, 90.0)
"""Range of ages, in years."""
SEMI_AXES = (0.74, 0.82, 0.68)
"""Half of the head's height, length and width, along the axes of the volume. Half of the volume's
side is 1. The first axis is the height, so that the middle slice shows both ventricles."""
THICKNESS = 0.1
"""Of the skull, as a share of the semi-axes."""
VENTRICLE_SHAPE = (0.8, 1.3, 0.55)
"""Semi-axes of a ventricle relative to its radius."""
DISTANCE = 0.2
"""Distance of the centres of ventricles from the middle, as a share of the head's semi-axes."""
CHUNK = 16
"""Number of volumes that are drawn at once."""


class Heads(NamedTuple):
    """Volumes with labels, and their ages.

    Attributes:
        data: volumes ``(N, 1, size, size, size)`` in [0, 1], with the classes control and patient.
        ages: in years, ``(N,)``.
    """

    data: ArrayDataset
    ages: Tensor


def phantom_heads(n: int, size: int = 32, *, noise: float = 0.03, seed: int = 0) -> Heads:
    """Return volumes of heads: a skull, a brain, and two ventricles that grow with age.

    Heads are alternately of a control and of a patient, with ages uniform from 50 to 90 years. The
    radius of the ventricles is `ventricle_radius` of the class and the age, so that a patient has
    those of a control who is 20 years older. Heads differ in size by 3 %, are turned by 4 degrees
    about each axis and shifted by 0.02 (standard deviations; half of the side is 1). Edges are
    smooth over one voxel. The noise is Gaussian, and values are clipped to [0, 1].

    Args:
        n: number of volumes, at least 2.
        size: number of voxels along each axis, at least 16.
        noise: standard deviation of the noise of a voxel, at least 0.
        seed: the same seed gives the same volumes.

    Raises:
        ConfigurationError: for a number out of range.

    >>> data, ages = phantom_heads(6, size=16)
    >>> data
    ArrayDataset(6 samples of shape (1, 16, 16, 16), float32; control: 3, patient: 3)
    >>> ages.shape, bool(50 <= ages.min() < ages.max() <= 90)
    (torch.Size([6]), True)
    """
    check_integer("n", n, minimum=2)
    check_integer("size", size, minimum=16)
    check_number("noise", noise, minimum=0.0)
    check_integer("seed", seed, minimum=0)
    generator = make_generator(seed, "phantom_heads")
    y = torch.arange(n) % 2
    ages = AGES[0] + (AGES[1] - AGES[0]) * torch.rand(n, generator=generator)
    radii = ventricle_radius(y, ages)
    turns, shifts, sizes = torch.randn(n, 7, generator=generator).split([3, 3, 1], 1)
    to_head = rotations_about(math.radians(4.0) * turns) / (1.0 + 0.03 * sizes[..., None])
    parts = torch.arange(n).split(CHUNK)
    x = torch.cat([_draw(to_head[k], 0.02 * shifts[k], radii[k], size) for k in parts])
    x = (x + noise * torch.randn(x.shape, generator=generator)).clamp(0.0, 1.0)
    dtype = torch.get_default_dtype()
    return Heads(ArrayDataset(x.to(dtype), y, class_names=CLASSES), ages.to(dtype))


def ventricle_radius(y: Tensor, ages: Tensor) -> Tensor:
    """Return the radius of ventricles, as a share of the head's semi-axes.

    Args:
        y: 1 for patients, else 0, ``(N,)``.
        ages: in years, ``(N,)``.

    >>> ventricle_radius(torch.tensor([0, 1]), torch.tensor([70.0, 50.0]))
    tensor([0.2200, 0.2200])
    """
    return 0.16 + 0.003 * (ages - AGES[0] + 20.0 * y)


def rotations_about(axes: Tensor) -> Tensor:
    """Return rotations ``(N, 3, 3)`` about axes ``(N, 3)`` by their lengths, in radians."""
    x, y, z = axes.unbind(1)
    none = torch.zeros_like(x)
    rows = [[none, -z, y], [z, none, -x], [-y, x, none]]
    generators = torch.stack([torch.stack(row, 1) for row in rows], 1)
    turns: Tensor = torch.linalg.matrix_exp(generators)
    return turns


def _draw(to_head: Tensor, shifts: Tensor, radii: Tensor, size: int) -> Tensor:
    """Return heads ``(N, 1, size, size, size)`` without noise.

    Args:
        to_head: matrices from positions relative to the head's centre to the head's axes.
        shifts: of the centre; half of the side is 1.
        radii: of ventricles, as a share of the semi-axes.
        size: number of voxels along each axis.
    """
    steps = (torch.arange(size) + 0.5) * 2.0 / size - 1.0
    grid = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), -1).flatten(0, 2)
    places = (grid - shifts[:, None]) @ to_head.mT / torch.tensor(SEMI_AXES)

    whole = torch.ones(len(radii), 3)
    head = _inside(places, whole, size)
    brain = _inside(places, (1.0 - THICKNESS) * whole, size)
    x = SKULL * (head - brain) + BRAIN * brain
    for side in (-1.0, 1.0):
        centre = torch.tensor([0.1, 0.05, side * DISTANCE])
        semi_axes = radii[:, None] * torch.tensor(VENTRICLE_SHAPE)
        x -= (BRAIN - VENTRICLE) * _inside(places - centre, semi_axes, size)
    return x.reshape(-1, 1, size, size, size)


def _inside(places: Tensor, semi_axes: Tensor, size: int) -> Tensor:
    """Return the share of each voxel that is inside an ellipsoid, smooth over one voxel.

    Args:
        places: relative to the centre, as a share of the head's semi-axes, ``(N, voxels, 3)``.
        semi_axes: ``(N, 3)``.
        size: number of voxels along each axis.
    """
    radius = torch.linalg.vector_norm(places / semi_axes[:, None], dim=-1)
    # To first order, the distance from the surface is the radius - 1, divided by its gradient.
    gradient = torch.linalg.vector_norm(
        places / (semi_axes.square()[:, None] * torch.tensor(SEMI_AXES)), dim=-1
    ) / radius.clamp_min(1e-6)
    share: Tensor = 0.5 - (radius - 1.0) / gradient.clamp_min(1e-6) * size / 2.0
    return share.clamp(0.0, 1.0)
