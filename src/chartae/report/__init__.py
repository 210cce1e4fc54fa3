"""Figures, and reports of one self-contained HTML file."""

__all__ = [
    "Chart",
    "Report",
    "Section",
    "accuracy_plot",
    "image_grid",
    "latent_map",
    "latent_maps",
    "one_row_per_class",
    "training_curves",
    "versions",
]

from chartae.report.figures import (
    Chart,
    accuracy_plot,
    image_grid,
    latent_map,
    latent_maps,
    one_row_per_class,
    training_curves,
)
from chartae.report.html import Report, Section, versions
