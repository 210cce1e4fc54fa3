"""Geodesics and exponential maps on a sphere and on the hyperbolic disk (thesis figure 3).

python examples/curved_spaces.py sphere-and-disk.png
"""

import argparse
import math
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure

from chartae.geometry import PoincareMetric, SphereMetric, exponential_path, geodesic

matplotlib.use("Agg")

FAN = 12
"""Velocities of each exponential map."""


def directions() -> torch.Tensor:
    """Return unit vectors in all directions, ``(FAN, 2)``."""
    angles = torch.arange(FAN) * (2.0 * math.pi / FAN)
    return torch.stack([angles.cos(), angles.sin()], -1)


def draw() -> Figure:
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    solid = figure.add_subplot(1, 2, 1, projection="3d")
    sphere = SphereMetric(2)
    start, end = torch.tensor([-0.2, -0.6]), torch.tensor([0.7, 0.6])
    # Velocities of length 1.2, as the metric at the start measures it.
    speed = 1.2 / sphere.norm(start, torch.tensor([1.0, 0.0]))
    fan = sphere.to_sphere(exponential_path(sphere, start, speed * directions(), num_steps=40))
    path = sphere.to_sphere(geodesic(sphere, start, end, num_points=60))
    turns, heights = torch.linspace(0, 2 * math.pi, 37), torch.linspace(0, math.pi, 19)
    u, v = torch.meshgrid(turns, heights, indexing="ij")
    surface = (u.cos() * v.sin(), u.sin() * v.sin(), v.cos())
    solid.plot_wireframe(*(x.numpy() for x in surface), color="0.85", linewidth=0.5)
    for ray in fan:
        solid.plot(*ray.T.numpy(), color="tab:blue")
    solid.plot(*path.T.numpy(), color="tab:red", linewidth=2)
    solid.set_title("sphere")
    solid.set_box_aspect((1, 1, 1), zoom=1.6)
    solid.set_axis_off()
    solid.view_init(elev=-40, azim=-60)

    flat = figure.add_subplot(1, 2, 2)
    disk = PoincareMetric(2)
    start, end = torch.tensor([-0.4, -0.3]), torch.tensor([0.75, 0.45])
    speed = 1.2 / disk.norm(start, torch.tensor([1.0, 0.0]))
    for ray in exponential_path(disk, start, speed * directions(), num_steps=40):
        flat.plot(*ray.T.numpy(), color="tab:blue")
    flat.plot(*geodesic(disk, start, end, num_points=60).T.numpy(), color="tab:red", linewidth=2)
    flat.add_patch(matplotlib.patches.Circle((0, 0), 1, fill=False, color="0.4"))
    flat.set(aspect="equal", title="hyperbolic disk", xlim=(-1.05, 1.05), ylim=(-1.05, 1.05))
    flat.set_axis_off()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the figure, a .png or .pdf file")
    draw().savefig(parser.parse_args().out, dpi=120)


if __name__ == "__main__":
    main()
