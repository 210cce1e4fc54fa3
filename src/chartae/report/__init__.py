"""Figures, and reports in one self-contained HTML file."""

__all__ = [
    "Chart",
    "HiddenPart",
    "Question",
    "Report",
    "Section",
    "Table",
    "better",
    "calibration_plot",
    "chain_traces",
    "distance_field",
    "exponential_fan",
    "filmstrips",
    "image_grid",
    "interpolation_figure",
    "latent_courses",
    "latent_map",
    "latent_maps",
    "latent_spaces",
    "model_card",
    "one_row_per_class",
    "pace_strips",
    "quiz",
    "sampler_maps",
    "scaling_plot",
    "score_fits",
    "score_plot",
    "sphere_and_disk",
    "study_sections",
    "study_tables",
    "training_curves",
    "versions",
    "write_benchmark_report",
    "write_evaluation_report",
    "write_followup_report",
    "write_study_report",
    "write_tuning_report",
]

from chartae.report.benchmark import (
    better,
    write_benchmark_report,
    write_evaluation_report,
)
from chartae.report.card import model_card
from chartae.report.figures import (
    image_grid,
    one_row_per_class,
    scaling_plot,
    score_plot,
    training_curves,
)
from chartae.report.filmstrips import filmstrips, pace_strips
from chartae.report.followups import (
    HiddenPart,
    calibration_plot,
    latent_courses,
    score_fits,
    write_followup_report,
)
from chartae.report.geometry import (
    chain_traces,
    distance_field,
    exponential_fan,
    interpolation_figure,
)
from chartae.report.html import Question, Report, Section, Table, versions
from chartae.report.latent import Chart, latent_map, latent_maps
from chartae.report.spaces import latent_spaces, sampler_maps, sphere_and_disk
from chartae.report.study import quiz, study_sections, study_tables, write_study_report
from chartae.report.tuning import write_tuning_report
