"""``chartae augment``: synthetic labelled data from a few real ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chartae.cli.options import (
    ConfigFile,
    DataOptions,
    ModelName,
    ModelOptions,
    TrainingOptions,
)
from chartae.cli.output import check_output, effective, say, write_config
from chartae.cli.results import sections, write_models
from chartae.cli.train import keep_class_names

if TYPE_CHECKING:
    from chartae.augmentation import Augmenter
    from chartae.data import ArrayDataset

__all__ = ["augment"]

EXAMPLE = "Example: chartae augment scans/ --per-class 1000 --out synthetic.npz --report"


def augment(
    data: Path,
    *,
    out: Path,
    per_class: int = 1000,
    model: ModelName = "rhvae",
    sampler: str = "volume",
    conditional: bool = False,
    model_options: ModelOptions = ModelOptions(),  # noqa: B008
    training: TrainingOptions = TrainingOptions(),  # noqa: B008
    include_real: bool = False,
    report: bool = False,
    seed: int = 0,
    data_options: DataOptions = DataOptions(),  # noqa: B008
    config: ConfigFile = None,
) -> None:
    """Learn each class of DATA from its few examples, and write new ones with their labels.

    Beside OUT.npz are written OUT.json, the options; OUT-models, a folder for each class, or "all"
    with --conditional, that "chartae sample" reads; and OUT.html with --report.

    Args:
        data: Labelled data: a .npz, .csv or .pt file, or a folder of images in one subfolder per
            class.
        out: The .npz file of synthetic data: x, y and class_names.
        per_class: Number of synthetic observations of each class.
        sampler: Name of a sampler, as two_stage for TwoStageSampler; a wrong one lists them all, or
            those that serve the model.
        conditional: Learn all classes with one model that is given the label, in place of a model
            for each. A cvae does so by its nature.
        include_real: Put the real data before the synthetic ones.
        report: Write a report with images, latent maps and training curves.
        seed: Of the models, their training and the samples.
    """
    from chartae.augmentation import Augmenter
    from chartae.augmentation.augmenter import ALL
    from chartae.checks import check_integer
    from chartae.data import write_npz
    from chartae.errors import DataError

    check_integer("per_class", per_class, minimum=1)
    check_output(out, ".npz")
    source = data_options.read(data)
    if source.y is None:
        raise DataError(f"{data} has no labels: expected one for each observation")
    augmenter = Augmenter(
        model,
        sampler,
        model_options=model_options.arguments(),
        fit_options={"progress": True, **training.arguments()},
        conditional=conditional,
        seed=seed,
    )
    augmenter.fit(source.x, source.y)
    synthetic = _draw(augmenter, source, per_class)
    options = effective(
        model_options,
        training,
        data_options,
        data=data.resolve(),
        out=out,
        per_class=per_class,
        model=model,
        sampler=sampler,
        conditional=conditional,
        include_real=include_real,
        report=report,
        seed=seed,
    )
    models = out.with_name(f"{out.stem}-models")
    write_npz(out, _joined(source, synthetic) if include_real else synthetic, overwrite=True)
    write_models(models, augmenter, source.class_names)
    if augmenter.is_conditional:
        keep_class_names(models / ALL, [source.class_names[k] for k in augmenter.classes_])
    write_config(out.with_suffix(".json"), "augment", options)
    files = {str(out): f"{len(synthetic)} synthetic observations", str(models): "the models"}
    if report:
        page = out.with_suffix(".html")
        _write_report(page, data, augmenter, source, synthetic, options, files)
        files[str(page)] = "the report"
    say(*(f"{meaning}: {path}" for path, meaning in files.items()))


def _draw(augmenter: "Augmenter", source: "ArrayDataset", per_class: int) -> "ArrayDataset":
    import torch

    from chartae.data import ArrayDataset

    x, y = augmenter.sample(per_class)
    labels = torch.as_tensor(y)
    return ArrayDataset(torch.as_tensor(x), labels, class_names=source.class_names)


def _joined(real: "ArrayDataset", synthetic: "ArrayDataset") -> "ArrayDataset":
    import torch

    from chartae.data import ArrayDataset

    assert real.y is not None
    assert synthetic.y is not None
    return ArrayDataset(
        torch.cat([real.x, synthetic.x]),
        torch.cat([real.y, synthetic.y]),
        class_names=real.class_names,
    )


def _write_report(
    path: Path,
    data: Path,
    augmenter: "Augmenter",
    source: "ArrayDataset",
    synthetic: "ArrayDataset",
    options: Mapping[str, Any],
    files: Mapping[str, str],
) -> None:
    from chartae.report import Report, versions

    model = next(iter(augmenter.models_.values()))
    Report(
        f"Augmentation of {data.name}",
        f"{len(synthetic)} synthetic observations of {source.num_classes} classes, learned from "
        f"{len(source)} real ones. Whether they help a classifier, only a test on data held out "
        "can tell.",
        facts={
            "Data": f"{data}: {source}",
            "Models": f"{type(model).__name__}, {model.latent_dim} latent dimensions, "
            f"{len(augmenter.models_)} of them",
            "Seed": str(augmenter.seed),
            "Versions": versions(),
        },
        settings=options,
        sections=sections(augmenter, {"real": source, "synthetic": synthetic}),
        files=files,
    ).save(path)
