"""The report of a study of augmentation: verdict, scores, likeness, a quiz, pictures."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chartae.augmentation import REAL, StudyResult
from chartae.data import ArrayDataset
from chartae.evaluation import CLASSIFICATION_FIGURES
from chartae.report.figures import (
    draw_observations,
    image_grid,
    one_row_per_class,
    scaling_plot,
    score_plot,
    value_range,
)
from chartae.report.html import Question, Report, Section, Table, versions

__all__ = ["quiz", "study_sections", "study_tables", "write_study_report"]

Array = NDArray[Any]
COLUMNS = 10
"""Number of observations of each class in a sheet."""
ASKED = 24
"""Number of pictures of a quiz."""
QUALITY = {
    "gan_test": "right label",
    "precision": "precision",
    "recall": "recall",
    "distance_ratio": "distance to training data",
    "copies": "exact copies",
    "membership_auc": "membership AUC",
}
RATIOS = ("distance_ratio", "membership_auc")
"""Those of `QUALITY` that are no shares in percent."""
SHOWN = ("accuracy", "balanced_accuracy", "f1", "sensitivity", "specificity", "precision", "auc")


def write_study_report(
    path: str | Path,
    study: StudyResult,
    *,
    title: str,
    facts: Mapping[str, str],
    settings: Mapping[str, Any],
    files: Mapping[str, str],
    commands: Mapping[str, str] | None = None,
    summary: str = "",
    sizes: Mapping[int, StudyResult] | None = None,
) -> None:
    """Write the report of a study as one HTML file.

    Args:
        path: the file.
        study: the figures.
        title: title of the page.
        facts: facts by name.
        settings: the value of every option.
        files: a description of each written file, by path.
        commands: commands to run next, by their purpose.
        summary: one or two sentences under the title.
        sizes: studies by the number of real examples of each class, this one among them; from two
            on the report shows scores against the number.
    """
    s = study.settings
    counts = ", ".join(
        f"{name}: {n}" for name, n in zip(s["class_names"], s["per_class"], strict=True)
    )
    own = "another part of the data in each repeat" if s["resplit"] else "the same in each repeat"
    made = [name for name in study.samples if name in study.models]
    Report(
        title,
        summary,
        answers=study.verdict(),
        facts={
            **facts,
            "Training": f"{s['num_train']} examples ({counts}), drawn again in each repeat; "
            f"number of repeats: {s['repeats']}",
            "Validation": f"{s['num_validation']} examples, which stop networks and choose methods",
            "Test": f"{s['num_test']:,} examples, {own}",
            "Versions": versions(),
        },
        settings={**settings, "tuned": dict(study.tuned)},
        study=study,
        tables=study_tables(study),
        sections=[*_scaling(sizes or {}), *study_sections(study)],
        quiz=quiz(study.samples["real"], study.samples[made[0]], seed=s["seed"]) if made else (),
        commands=commands or {},
        files=files,
    ).save(path)


def _scaling(studies: Mapping[int, StudyResult]) -> list[Section]:
    if len(studies) < 2:
        return []
    return [
        Section(
            "Scores by number of examples",
            "Real training examples of each class on the horizontal axis. Each line is a training "
            "set, with bars of one standard deviation over repeats. The rest of the report is "
            "about the last number.",
            scaling_plot(studies),
            "test score of each classifier against the number of real examples of each class",
        )
    ]


def study_tables(study: StudyResult) -> list[Table]:
    """Return the tables of the figures of medicine, of further cohorts, and of the samples."""
    tables = [_figures_table(study, cohort) for cohort in study.figures if cohort != "validation"]
    rows = [
        [name, *(_range(of.get(key), percent=key not in RATIOS) for key in QUALITY)]
        for name, of in study.quality.items()
    ]
    tables.append(
        Table(
            "Are samples like the data, and are they copies?",
            "Means over repeats, shares in %. Right label: share of samples to which classifiers "
            "that were trained on real data give their label. Precision and recall: shares of "
            "samples among test data, and of test data among samples. Distance to training data: "
            "that of samples, divided by that of test data; 0 is a copy, 1 is as new as test data. "
            "Membership AUC: how well the samples tell training data from test data; 0.5 is not "
            "at all, and 1 reveals every member.",
            ("method", *QUALITY.values()),
            rows,
        )
    )
    return tables


def _figures_table(study: StudyResult, cohort: str) -> Table:
    figures = study.figures[cohort]
    rows = []
    for i, label in enumerate(study.labels()):
        row = study.training_sets[i]
        name = label if row == REAL else f"{row.part}: {label}"
        for j, classifier in enumerate(study.classifiers):
            rows.append([name, classifier, *(_range(figures[key][i, j]) for key in SHOWN)])
    names = study.settings["class_names"]
    meaning = "means over classes, each against all others"
    if len(names) == 2:
        meaning = f"those of the class {names[-1]!r}"
    place = "the test set" if cohort == "test" else f"the cohort {cohort}"
    return Table(
        f"All figures on {place}",
        f"Means over repeats in %. Sensitivity, specificity, precision and F1 are {meaning}.",
        ("trained on", "classifier", *(CLASSIFICATION_FIGURES[key] for key in SHOWN)),
        rows,
        sortable=True,
        folded=True,
    )


def _range(values: Array | None, *, percent: bool = True) -> str:
    if values is None or not np.isfinite(values).any():
        return "–"
    mean = float(np.nanmean(values))
    return f"{100 * mean:.1f}" if percent else f"{mean:.2f}"


def study_sections(study: StudyResult) -> list[Section]:
    """Return the figures: scores by method, and sheets of observations."""
    found = [
        Section(
            "Scores at a glance",
            "The grey band is real data alone. Bars and band show the variation between repeats. "
            "Comparisons are made within each repeat, so they can detect smaller differences.",
            score_plot(study),
            f"{study.title} of each classifier by method, with standard deviations",
        )
    ]
    sheets = {
        title: one_row_per_class(data.x, data.y, COLUMNS)
        for title, data in study.samples.items()
        if data.y is not None and _are_pictures(data)
    }
    if sheets:
        names = ", ".join(study.settings["class_names"])
        found.append(
            Section(
                "Real beside synthetic",
                f"One row for each class, in order: {names}. Those of the first repeat.",
                image_grid(sheets, columns=COLUMNS),
                f"Contact sheets of {', '.join(sheets)} observations, one row per class",
            )
        )
    return found


def _are_pictures(data: ArrayDataset) -> bool:
    """Whether observations can be shown: images, volumes by a slice, or longer signals."""
    return len(data.input_shape) > 1 or data.input_shape[0] >= COLUMNS


def quiz(real: ArrayDataset, synthetic: ArrayDataset, *, seed: int) -> Sequence[Question]:
    """Return pictures, half of them real, in random order; none for tables.

    Args:
        real: images, or volumes, of which the middle slice is shown.
        synthetic: observations of the same shape.
        seed: decides which, and in which order.
    """
    if len(real.input_shape) not in (2, 3, 4):
        return ()
    random = np.random.default_rng(seed)
    count = min(ASKED // 2, len(real), len(synthetic))
    limits = value_range([real.x.numpy(), synthetic.x.numpy()])
    asked = [
        (data.x.numpy()[row], data is real)
        for data in (real, synthetic)
        for row in random.permutation(len(data))[:count]
    ]
    order = random.permutation(len(asked))
    return [Question(_picture(asked[k][0], limits), asked[k][1]) for k in order]


def _picture(x: Array, limits: tuple[float, float]) -> str:
    from matplotlib.figure import Figure

    figure = Figure((1.5, 1.5 * x.shape[-2] / x.shape[-1]))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    draw_observations(axes, x[None], 1, *limits)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=96)
    return base64.b64encode(buffer.getvalue()).decode()
