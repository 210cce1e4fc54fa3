"""Strips of the images of individuals over their visits."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from chartae.checks import check_integer
from chartae.data import Sequences
from chartae.errors import DataError
from chartae.longitudinal import Draws, TrajectoryVAE
from chartae.report.figures import draw_observations, value_range
from chartae.report.style import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["filmstrips", "pace_strips"]

LONGEST = 12
"""Largest number of visits in a filmstrip."""


class Strip(NamedTuple):
    """Images ``(visits, ...)`` of an individual, with what stands at their left."""

    name: str
    images: Array
    limits: tuple[float, float]


def filmstrips(
    truth: Sequences, seen: Sequences, draws: Draws, *, individuals: int = 3
) -> "Figure":
    """Return a figure of imputed images, with four strips for each individual.

    The strips are the images that the model saw; those that were hidden from it; its imputations of
    all visits, `Draws.point`; and the standard deviation of each pixel over the draws. Of a longer
    follow-up, evenly spaced visits are shown.

    Args:
        truth: individuals with images or volumes.
        seen: the same individuals with a part hidden.
        draws: the result of ``model.impute(seen)``.
        individuals: how many of the first individuals are shown.

    Raises:
        DataError: for vectors, or if the three do not belong together.
    """
    _check_together(truth, seen, draws)
    _check_images(truth)
    count = min(check_integer("individuals", individuals, minimum=1), len(truth))
    chosen = [_spaced(truth.observed[row]) for row in range(count)]
    rows = [_strips(truth, seen, draws, row, visits) for row, visits in enumerate(chosen)]
    spreads = np.concatenate([strips["spread"] for strips in rows])
    images = [strips[name] for strips in rows for name in ("seen", "hidden", "imputed")]
    limits = dict.fromkeys(("seen", "hidden", "imputed"), value_range(images))
    limits["spread"] = (0.0, float(np.nanmax(spreads)) or 1.0)
    panels = [[Strip(name, x, limits[name]) for name, x in strips.items()] for strips in rows]
    titles = [f"individual {truth.ids[row]}" for row in range(count)]
    times = [truth.times[row, visits].tolist() for row, visits in enumerate(chosen)]
    return _drawn(panels, times, titles)


def pace_strips(
    model: TrajectoryVAE, sequences: Sequences, *, individual: int = 0, steps: int = 5
) -> "Figure":
    """Return a figure of one individual with other delays and other speeds (thesis Fig. 5.6 a, b).

    The upper part varies the delay and the lower one the speed, from minus two to plus two standard
    deviations of all individuals. In the middle of an odd number of steps the individual is as it
    is. The first strip of each part has the images that were observed, at the same times; of a
    longer follow-up, evenly spaced visits are shown.

    Args:
        model: the model.
        sequences: individuals with images or volumes.
        individual: the place of the one that is shown, in [0, N).
        steps: number of strips of each part, at least 2.

    Raises:
        DataError: for vectors, or if the sequences do not fit the model.
        ConfigurationError: for numbers out of range.
    """
    check_integer("individual", individual, minimum=0, maximum=len(sequences) - 1)
    check_integer("steps", steps, minimum=2)
    _check_images(sequences)
    one = sequences.subset([individual])
    visits = _spaced(one.observed[0])
    when = one.times[0, visits]
    seen = _blanked(one, 0, visits, one.known[0, visits])
    log_speed, delay = model.pace_scales()
    places = torch.linspace(-2.0, 2.0, steps, dtype=torch.float64).tolist()
    shifts = [place * delay for place in places]
    factors = [math.exp(place * log_speed) for place in places]

    def course(**change: float) -> Array:
        x: Array = model.varied(one, when, **change)[0].cpu().double().numpy()
        return x

    parts = {
        "delay": [(f"{shift:+.3g}", course(delay=shift)) for shift in shifts],
        "speed": [(f"× {factor:.3g}", course(speed=factor)) for factor in factors],
    }
    limits = value_range([seen, *(x for strips in parts.values() for _, x in strips)])
    panels = [
        [Strip(name, x, limits) for name, x in [("seen", seen), *strips]]
        for strips in parts.values()
    ]
    titles = [f"individual {one.ids[0]}: {name}" for name in parts]
    return _drawn(panels, [when.tolist()] * 2, titles)


def _drawn(
    panels: Sequence[Sequence[Strip]], times: Sequence[Sequence[float]], titles: Sequence[str]
) -> "Figure":
    """Return a figure of panels of strips, with a title above each and times below."""
    from matplotlib.figure import Figure

    columns = max(map(len, times))
    height, width = panels[0][0].images.shape[-2:]
    cell = min(0.75, 8.0 / columns)
    tall = [len(strips) * cell * height / width + 0.45 for strips in panels]
    figure = Figure((0.9 + cell * columns, sum(tall)), layout="constrained")
    places = figure.subfigures(len(panels), 1, squeeze=False, height_ratios=tall)[:, 0]
    for panel, strips, when, title in zip(places, panels, times, titles, strict=True):
        all_axes = panel.subplots(len(strips), 1, gridspec_kw={"hspace": 0.03})
        for axes, strip in zip(all_axes, strips, strict=True):
            draw_observations(axes, _padded(strip.images, columns), columns, *strip.limits)
            _frame_strip(axes, strip.name)
            if strip.name == "spread":
                axes.images[0].set_cmap("magma")
        step = axes.images[0].get_array().shape[1] / columns
        ticks = [step * (place + 0.5) for place in range(len(when))]
        axes.set_xticks(ticks, [f"{time:.3g}" for time in when])
        below = {"xytext": (-4, -4), "textcoords": "offset points", "ha": "right", "va": "top"}
        axes.annotate("time", (0, 0), xycoords="axes fraction", fontsize="small", **below)
        panel.suptitle(title, fontsize="medium", x=0.02, ha="left")
    return figure


def _spaced(observed: Tensor) -> Tensor:
    """Return the places of at most `LONGEST` observed visits, evenly spaced."""
    places = observed.nonzero()[:, 0].cpu()
    count = min(len(places), LONGEST)
    return places[torch.linspace(0, len(places) - 1, count).round().long()]


def _strips(
    truth: Sequences, seen: Sequences, draws: Draws, row: int, visits: Tensor
) -> dict[str, Array]:
    """Return the strips of an individual, ``(visits, ...)`` each, NaN where there is nothing."""
    shown = seen.known[row, visits]
    spread = draws.values[:, row, visits].std(0, correction=0)
    if spread.dim() == 4 and spread.shape[1] == 3:  # colours
        spread = spread.mean(1)
    return {
        "seen": _blanked(truth, row, visits, shown),
        "hidden": _blanked(truth, row, visits, truth.known[row, visits] & ~shown),
        "imputed": draws.point_values()[row, visits].cpu().double().numpy(),
        "spread": spread.cpu().double().numpy(),
    }


def _blanked(sequences: Sequences, row: int, visits: Tensor, shown: Tensor) -> Array:
    """Return visits of an individual, NaN where they are not shown."""
    x: Array = torch.where(shown, sequences.x[row, visits], math.nan).cpu().double().numpy()
    return x


def _padded(x: Array, count: int) -> Array:
    """Return images with blank ones after them, ``count`` in all."""
    blank = np.full((count - len(x), *x.shape[1:]), np.nan)
    return np.concatenate([x, blank])


def _frame_strip(axes: "Axes", name: str) -> None:
    """Name a strip at its left, without ticks and without a frame."""
    axes.set_axis_on()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize="small")
    axes.set(xticks=[], yticks=[])
    axes.set_ylabel(name, rotation=0, ha="right", va="center")


def _check_images(sequences: Sequences) -> None:
    if len(sequences.input_shape) < 2:
        raise DataError(
            f"visits have shape {sequences.input_shape}: expected images or volumes; score_fits "
            "shows vectors"
        )


def _check_together(truth: Sequences, seen: Sequences, draws: Draws) -> None:
    if not truth.x.shape == seen.x.shape == draws.values.shape[1:]:
        raise DataError(
            f"draws are of shape {tuple(draws.values.shape[1:])}, truth {tuple(truth.x.shape)} and "
            f"seen {tuple(seen.x.shape)}: expected the same individuals and visits"
        )
