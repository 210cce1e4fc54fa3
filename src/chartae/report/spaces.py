"""Figures of latent spaces side by side: of several kinds, or with samples of several samplers."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from chartae.checks import check_integer, check_number
from chartae.errors import ConfigurationError
from chartae.geometry import PoincareMetric, SphereMetric, exponential_path, geodesic
from chartae.models import Autoencoder, PoincareVAE
from chartae.report.latent import Chart, Plane, draw_codes, draw_frame
from chartae.report.style import ACCENT, CURVES, FAINT
from chartae.samplers import Sampler
from chartae.samplers.base import SPACES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["latent_spaces", "sampler_maps", "sphere_and_disk"]

SIDE = 3.8
"""Inches of a panel."""
DRAWN = {"euclidean": 2, "ball": 2, "sphere": 3}
"""The kinds of latent spaces that can be drawn, with the dimension that their latents need."""


@torch.no_grad()
def latent_spaces(
    models: Mapping[str, Autoencoder],
    x: Tensor,
    labels: ArrayLike | Tensor | None = None,
    *,
    class_names: Sequence[str] = (),
) -> "Figure":
    """Return the codes of several models side by side, each on a chart of its latent space.

    It is like Figure 2 of the thesis, for models whose latents are vectors, points of the Poincaré
    ball, or points of a sphere. The ball is drawn as it is, inside its boundary. The sphere is
    drawn in the Mollweide projection, which keeps areas and hides nothing.

    Args:
        models: trained models without conditions, by title. Latents have two dimensions; on the
            sphere three, the coordinates of its points.
        x: observations ``(N, *input_shape)``, N at least 2.
        labels: class indices ``(N,)``.
        class_names: names of the classes.

    Raises:
        ConfigurationError: without a model, or for latents of another kind or dimension.
        DataError: for observations that do not fit a model, or labels of another shape.

    >>> import chartae
    >>> models = {"normal": chartae.VAE((8, 8), 2), "sphere": chartae.SVAE((8, 8), 3)}
    >>> [axes.get_title() for axes in latent_spaces(models, torch.rand(10, 8, 8)).axes]
    ['normal', 'sphere']
    """
    for title, model in models.items():
        kind, d = model.latent_space, model.latent_dim
        if kind not in DRAWN:
            raise ConfigurationError(
                f"models[{title!r}]: its latents are {SPACES[kind]}, no points"
            )
        if d != DRAWN[kind]:
            raise ConfigurationError(
                f"models[{title!r}]: latent_dim={d}: expected {DRAWN[kind]} to draw its latents"
            )
    figure = _row_of_panels("models", len(models))
    for place, (title, model) in enumerate(models.items(), start=1):
        z = model.encode(x)
        on_sphere = model.latent_space == "sphere"
        points = _longitude_and_latitude(z) if on_sphere else z
        projection = "mollweide" if on_sphere else None
        axes = figure.add_subplot(1, len(models), place, projection=projection)
        chart, plane = Chart(points, labels, class_names=class_names), Plane(points)
        if isinstance(model, PoincareVAE):
            _draw_boundary(axes, model.curvature**-0.5)
        elif not on_sphere:
            draw_frame(axes, plane, plane.square(100, points), legend=False)
        else:
            axes.set_xticklabels([])
            axes.set_yticklabels([])
            axes.grid(color=FAINT, linewidth=0.5)
        draw_codes(axes, chart, plane, size=14.0)
        axes.set_title(title)
    _share_legend(figure)
    return figure


@torch.no_grad()
def sampler_maps(
    samplers: Mapping[str, Sampler],
    x: Tensor,
    labels: ArrayLike | Tensor | None = None,
    *,
    n: int = 500,
    seed: int = 0,
    class_names: Sequence[str] = (),
) -> "Figure":
    """Return the codes of a model beside the latents that samplers draw, a panel for each.

    It is like Figure 4 of the thesis, which compares the prior, a mixture of normals and a flow.
    The codes are shown in grey below the samples. All panels have the same axes. In more than two
    dimensions they show the plane of the first two principal components of the codes.

    Args:
        samplers: fitted samplers of one model, whose latents are vectors, by title.
        x: observations ``(N, *input_shape)``, N at least 2.
        labels: class indices ``(N,)``.
        n: number of samples of each sampler.
        seed: seed of the samples.
        class_names: names of the classes.

    Raises:
        ConfigurationError: without a sampler, or for samplers of several models.
        DataError: for observations that do not fit the model, or labels of another shape.

    >>> import chartae
    >>> model = chartae.VAE((8, 8), 2).eval()
    >>> figure = sampler_maps({"prior": chartae.NormalSampler(model)}, torch.rand(10, 8, 8))
    >>> [axes.get_title() for axes in figure.axes]
    ['codes', 'prior']
    """
    figure = _row_of_panels("samplers", len(samplers), more=1)
    model, *others = {id(sampler.model): sampler.model for sampler in samplers.values()}.values()
    if others:
        raise ConfigurationError("samplers are of several models: expected those of one model")
    chart = Chart(model.encode(x), labels, class_names=class_names)
    plane = Plane(chart.codes)
    drawn = {title: sampler.sample_latents(n, seed) for title, sampler in samplers.items()}
    square = plane.square(100, chart.codes, *drawn.values())
    first, *rest = figure.subplots(1, len(drawn) + 1, sharex=True, sharey=True)
    draw_codes(first, chart, plane, size=14.0)
    draw_frame(first, plane, square, "codes", legend=False)
    codes = plane.project(chart.codes).cpu().numpy()
    for axes, (title, samples) in zip(rest, drawn.items(), strict=True):
        points = plane.project(samples).cpu().numpy()
        axes.scatter(*codes.T, s=8, color=FAINT, linewidths=0)
        axes.scatter(*points.T, s=8, color=CURVES[0], linewidths=0)
        draw_frame(axes, plane, square, title, legend=False)
        axes.set_ylabel("")
    _share_legend(figure)
    return figure


def sphere_and_disk(*, rays: int = 12, length: float = 1.2) -> "Figure":
    """Return exponential maps and shortest paths on the sphere and on the Poincaré disk.

    It is like Figure 3 of the thesis. Blue: the geodesics of one length in all directions from a
    point, the exponential map of a circle. Red: the shortest path to another point.

    Args:
        rays: number of directions.
        length: length of each geodesic, in the metric of the space; curvatures are 1 and -1.

    Raises:
        ConfigurationError: for an argument out of range.

    >>> [axes.get_title() for axes in sphere_and_disk().axes]
    ['sphere', 'Poincaré disk']
    """
    from matplotlib.figure import Figure

    check_integer("rays", rays, minimum=1)
    check_number("length", length, above=0.0)
    figure = Figure((2.4 * SIDE, 1.2 * SIDE), layout="constrained")
    angles = torch.arange(rays) * (2.0 * math.pi / rays)
    directions = length * torch.stack([angles.cos(), angles.sin()], -1)

    sphere, start, end = SphereMetric(2), torch.tensor([-0.2, -0.6]), torch.tensor([0.7, 0.6])
    solid: Any = figure.add_subplot(1, 2, 1, projection="3d")
    turns, heights = torch.linspace(0, 2 * math.pi, 25), torch.linspace(0, math.pi, 13)
    u, v = torch.meshgrid(turns, heights, indexing="ij")
    surface = (u.cos() * v.sin(), u.sin() * v.sin(), v.cos())
    solid.plot_wireframe(*(side.numpy() for side in surface), color=FAINT, linewidth=0.4)
    _draw_geodesics(solid, sphere, start, end, directions, sphere.to_sphere)
    solid.set_box_aspect((1, 1, 1), zoom=1.6)
    solid.set_axis_off()
    solid.view_init(elev=-40, azim=-60)
    solid.set_title("sphere")

    flat = figure.add_subplot(1, 2, 2)
    _draw_boundary(flat, 1.0)
    start, end = torch.tensor([-0.4, -0.3]), torch.tensor([0.7, -0.6])
    _draw_geodesics(flat, PoincareMetric(2), start, end, directions, lambda z: z)
    flat.set_title("Poincaré disk")
    return figure


# --- parts --------------------------------------------------------------------------------------


def _draw_geodesics(
    axes: Any, metric: Any, start: Tensor, end: Tensor, directions: Tensor, place: Any
) -> None:
    """Draw an exponential map and a shortest path, at the points where ``place`` puts them."""
    speed = 1.0 / metric.norm(start, torch.tensor([1.0, 0.0]))
    for ray in place(exponential_path(metric, start, speed * directions, num_steps=40)):
        axes.plot(*ray.T.numpy(), color=ACCENT)
    path = place(geodesic(metric, start, end, num_points=60))
    axes.plot(*path.T.numpy(), color=CURVES[0], linewidth=2.5)


def _row_of_panels(name: str, count: int, more: int = 0) -> "Figure":
    from matplotlib.figure import Figure

    if not count:
        raise ConfigurationError(f"{name} is empty: expected at least one")
    return Figure((SIDE * (count + more), SIDE + 1.0), layout="constrained")


def _longitude_and_latitude(points: Tensor) -> Tensor:
    """Return the angles ``(N, 2)`` of points of the unit sphere, ``(N, 3)``."""
    x, y, height = points.unbind(-1)
    return torch.stack([torch.atan2(y, x), height.clamp(-1.0, 1.0).asin()], -1)


def _draw_boundary(axes: "Axes", radius: float) -> None:
    """Draw the boundary of the ball, and limit the axes to it."""
    from matplotlib.patches import Circle

    axes.add_patch(Circle((0.0, 0.0), radius, fill=False, color=FAINT))
    reach = 1.05 * radius
    axes.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach))
    axes.set_axis_off()


def _share_legend(figure: "Figure") -> None:
    """Name the classes once, below all panels."""
    handles, names = figure.axes[0].get_legend_handles_labels()
    if names:
        columns = min(len(names), 4 * len(figure.axes))  # as many as are as wide as the panels
        figure.legend(handles, names, loc="outside lower center", ncols=columns)
