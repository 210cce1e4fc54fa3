"""Tables and figures in the reports of ``augment`` and ``demo``."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from chartae.augmentation import Augmenter, Fidelity, Method, gaussian_noise, smote
from chartae.data import ArrayDataset
from chartae.report import (
    Chart,
    Section,
    Table,
    image_grid,
    latent_maps,
    one_row_per_class,
    training_curves,
)
from chartae.samplers import Sampler

__all__ = ["few_baselines", "fidelity_answer", "fidelity_table", "sections"]

ALIKE = "Are samples like real examples?"


def few_baselines(real: ArrayDataset, seed: int, count: int = 10) -> dict[str, ArrayDataset]:
    """Return samples of SMOTE and of noise for the classes of at least two examples, by title.

    The result is empty for data with a mask, because neither method supports masks.
    """
    if real.mask is not None or real.y is None:
        return {}
    counts = torch.bincount(real.y, minlength=real.num_classes)
    rows = (counts[real.y] > 1).numpy()
    x, y = real.x.cpu().numpy()[rows], real.y.cpu().numpy()[rows]
    if not len(np.unique(y)):
        return {}
    found = {}
    wanted = {int(label): count for label in np.unique(y)}
    methods: dict[str, Method] = {"SMOTE": smote, "Gaussian noise": gaussian_noise}
    for name, method in methods.items():
        made, labels = (torch.as_tensor(part) for part in method(x, y, wanted, seed))
        found[name] = replace(real, x=made.to(real.x), y=labels, names=())
    return found


def fidelity_answer(fidelity: Fidelity) -> str:
    """Return whether the samples of any class have a problem, in a sentence."""
    count = len(fidelity.problems)
    if not count:
        return "Yes. No class has collapsed, and no samples are near copies."
    return (
        f"Not in {count} of {len(fidelity)} classes. Samples have collapsed, are near copies, or "
        "gather around two examples; the first table says which."
    )


def fidelity_table(fidelity: Fidelity) -> Table:
    """Return a table that compares the samples of each class to its real examples."""
    warned: dict[str, list[str]] = {}
    for name, found in fidelity.items():
        for message in found.warnings:
            warned.setdefault(message, []).append(name)
    notes = [*fidelity.notes(), *(f"{what}: {', '.join(of)}" for what, of in warned.items())]
    return Table(
        ALIKE,
        "Spread: that of the samples, divided by that of the real examples. Distance: from a "
        "sample to the nearest real example, divided by that from a real example to the nearest "
        "other one; it is about 1 for samples that are as new as held-out examples, and 0 for "
        "copies. Around two: each sample is assigned to the nearest real example; this is the "
        "share of samples assigned to the two real examples with the most samples. Expected: "
        "the same share for real examples.",
        fidelity.HEADINGS,
        fidelity.cells(),
        [f"{note[:1].upper()}{note[1:]}." for note in notes],
    )


def sections(
    augmenter: Augmenter,
    groups: Mapping[str, ArrayDataset],
    *,
    columns: int = 10,
) -> list[Section]:
    """Return a report's figures: observations side by side, latent maps, training curves.

    Args:
        augmenter: an augmenter fitted on the first group.
        groups: labelled data by title; the real data are first.
        columns: number of observations of each class.
    """
    real = next(iter(groups.values()))
    names = ", ".join(real.class_names)
    sheets = {
        title: one_row_per_class(_seen(data), data.y, columns)
        for title, data in groups.items()
        if data.y is not None
    }
    found = [
        Section(
            "Real beside synthetic",
            f"One row for each class, in order: {names}. The first observations are shown.",
            image_grid(sheets, columns=columns),
            f"Contact sheets of {', '.join(groups)} observations, one row per class",
        )
    ]
    found += _maps(augmenter, real)
    found.append(
        Section(
            "Training",
            "Each term of the loss over epochs. Dots mark the epochs whose weights were kept.",
            training_curves(augmenter.histories_),
            "Curves of the training losses",
        )
    )
    return found


def _seen(data: ArrayDataset) -> Tensor:
    """Return observations with NaN for unobserved values, which stay blank in figures."""
    x = data.x.cpu()
    return x if data.mask is None else x.masked_fill(~data.mask.cpu(), float("nan"))


def _maps(augmenter: Augmenter, real: ArrayDataset, most: int = 12) -> list[Section]:
    """Return the section of latent maps, or no section for one-dimensional latent spaces."""
    charts = {}
    for name, model in list(augmenter.models_.items())[:most]:
        if model.latent_dim < 2:
            continue
        members = real if augmenter.is_conditional else real.of_class(name)
        y = None if model.conditions is None else torch.unique(members.y, return_inverse=True)[1]
        with torch.no_grad():
            codes = model.encode(members.x, y, mask=members.mask)
        charts[name] = Chart(
            codes,
            metric=getattr(model, "metric", None),
            samples=_latents(augmenter.samplers_[name], y, augmenter.seed)
            if name in augmenter.samplers_
            else None,
        )
    if not charts:
        return []
    text = (
        "The latent space of each model: codes of the real examples in blue, latents drawn by the "
        "sampler in orange. If the model learned a metric, its log-volume is in grey: dark near "
        "the data, where the sampler draws. In more than two dimensions the map is the principal "
        "plane of the codes, and the axes give the share of their variance; points are projected "
        "onto the plane."
    )
    alt = f"Latent maps of {', '.join(charts)}: codes, drawn latents and log-volume"
    return [Section("Latent maps", text, latent_maps(charts), alt)]


def _latents(sampler: Sampler, y: Tensor | None, seed: int) -> Tensor:
    """Return 100 latents; conditions have the same frequencies as in ``y``."""
    given = None if y is None else y.sort().values[torch.arange(100) * len(y) // 100]
    return sampler.sample_latents(100, seed=seed, y=given)
