"""Colours and the arrangement of panels, shared by all figures."""

from typing import Any

from numpy.typing import NDArray

__all__ = ["ACCENT", "CURVES", "FAINT", "INK", "SAMPLE", "Array", "class_colors", "panels_across"]

Array = NDArray[Any]

INK, FAINT, ACCENT, SAMPLE = "#333333", "#b8b8b8", "#1f8fb5", "#f2a33a"

CURVES = ("#e0218a", "#00b894", "#8e5bd6", "#c9a400")
"""Colours of curves on a map, different from those of the first classes."""


def class_colors(count: int) -> list[Any]:
    """Return a colour for each of ``count`` classes; up to ten are easy to distinguish."""
    from matplotlib import colormaps

    if count <= 10:
        return [colormaps["tab10"](index) for index in range(count)]
    return [colormaps["turbo"](index / (count - 1)) for index in range(count)]


def panels_across(panels: int) -> int:
    """Return the number of panels in a row."""
    return {1: 1, 2: 2, 4: 2}.get(panels, 3 if panels <= 9 else 4)
