"""``chartae study``: does augmentation help, on the user's own data?"""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chartae.atomic import write_text
from chartae.augmentation import (
    CLASSIFIERS,
    METHODS,
    Method,
    StudyResult,
    augmentation_study,
    default_classifiers,
    make_method,
)
from chartae.augmentation.methods import MethodName
from chartae.checks import check_choice, check_integer
from chartae.cli.options import ConfigFile, DataOptions, Overwrite, listed
from chartae.cli.output import Outputs, print_lines
from chartae.cli.progress import showing
from chartae.data import ArrayDataset
from chartae.errors import ConfigurationError, DataError
from chartae.report import write_study_report
from chartae.runs import write_table

__all__ = ["study"]

RECORD, REPORT, TABLE, RESULT = "study.json", "report.html", "results.csv", "result.json"
SIZES = "sizes"
WORK = ("context.json", "rows", "files", "claims", SIZES)
"""What the tables of runs keep in the folder; one table for each of several sizes in `SIZES`."""
IMAGES = "resampling,noise,transforms,mixup,smote,rhvae+volume,vae+mixture"
VECTORS = "resampling,noise,mixup,smote,borderline,adasyn,rhvae+volume,vae+mixture"
"""The methods of a study without ``--methods``, for images and volumes, and for tables."""


def study(
    data: Path,
    *,
    out: Path,
    test: Path | None = None,
    cohort: list[Path] | None = None,
    methods: str | None = None,
    classifiers: str | None = None,
    per_class: str | None = None,
    synthetic: str = "200",
    real_share: float | None = 0.5,
    no_weights: bool = False,
    metric: str | None = None,
    repeats: int = 5,
    epochs: int | None = None,
    jobs: int | None = None,
    scheduler: str | None = None,
    seed: int = 0,
    overwrite: Overwrite = False,
    data_options: DataOptions = DataOptions(),
    config: ConfigFile = None,
) -> None:
    """Run the subcommand.

    Args:
        data: Labelled data: a .npz, .npy with --labels, .csv, .tsv or .pt file, or a folder of
            images in one subfolder per class.
        out: Folder for the report, the table and the finished runs. If the command is started
            again, it continues; finished runs with the same options are kept.
        test: Test data in a separate file or folder; by default three tenths of DATA, with a new
            split in each repeat.
        cohort: Further test data, such as another hospital's; may be given several times.
        methods: Names between commas: resampling, noise, transforms, mixup, smote, borderline, svm,
            adasyn; or a model and a sampler, as in vae+mixture or vae(latent_dim=5)+mixture; with
            "conditional " before it, one model learns all classes. [default: for images
            resampling,noise,transforms,mixup,smote,rhvae+volume,vae+mixture; for tables with
            borderline and adasyn in place of transforms]
        classifiers: Names between commas; the error for a wrong name lists all. [default: for
            images logistic regression, MLP, k-NN, random forest, RBF SVM, strong CNN; for tables
            with gradient boosting in place of the networks]
        per_class: Number of real training examples of each class, drawn again in each repeat.
            Several numbers between commas, as in 20,50,200, make a study for each; the report
            then shows scores against the number, and the rest of it is about the last one.
            [default: all that are not held out]
        synthetic: How many synthetic examples, between commas: a number for each class, x5 for a
            training set of five times the size, or balance for classes of equal size.
        real_share: Share of the real examples in the weight of a training set.
        no_weights: Give all examples the same weight.
        metric: The figure that is compared: accuracy, balanced_accuracy, f1, precision,
            sensitivity, specificity or auc. [default: accuracy, or balanced_accuracy for classes of
            unequal size]
        repeats: Number of repeats; with fewer than 3 no difference is called clear.
        epochs: Number of epochs of the models. [default: 250]
        jobs: Number of processes, with one thread each. [default: one for each core]
        scheduler: Address of a Dask scheduler, whose workers take the place of the processes.
        seed: Seed of the first repeat; each next repeat has the next seed.
    """
    given = {**locals(), "resume": (out / RECORD).exists() and not overwrite}
    check_integer("repeats", repeats, minimum=1)
    check_integer("seed", seed, minimum=0)
    cohorts = cohort or []
    inputs = [data, test, data_options.labels, *cohorts, None if given["resume"] else config]
    outputs = Outputs("study", out / RECORD, given, inputs=inputs)
    outputs.claim(resumable=[out / name for name in (REPORT, TABLE, RESULT, *WORK)])
    source = data_options.read(data)
    if not source.class_names:
        raise DataError(f"{data} has no labels: expected one for each observation")
    tests = {path: data_options.read(path) for path in [*([test] if test else []), *cohorts]}
    chosen = _methods(methods, source, epochs)
    numbers = _numbers(per_class)
    names = listed("classifiers", classifiers) or list(default_classifiers(source.input_shape))
    for name in names:
        check_choice("classifiers", name, CLASSIFIERS)
        if CLASSIFIERS[name].network and len(source.input_shape) == 1:
            raise ConfigurationError(f"classifiers has {name!r}: it expects images or volumes")
    studies: dict[int | None, StudyResult] = {}
    with outputs.recording():
        for size in numbers:
            with showing("models and classifiers") as advance:
                studies[size] = augmentation_study(
                    source,
                    None,
                    tests[test] if test else None,
                    None,
                    methods=chosen,
                    classifiers={name: CLASSIFIERS[name] for name in names},
                    cohorts={_cohort(path, cohorts): (tests[path], None) for path in cohorts},
                    per_class=size,
                    synthetic=listed("synthetic", synthetic) or [],
                    real_share=None if no_weights else real_share,
                    metric=metric,
                    repeats=repeats,
                    seed=seed,
                    workers=jobs,
                    scheduler=scheduler,
                    folder=out if len(numbers) == 1 else out / SIZES / str(size),
                    advance=advance,
                )
        _write(out, studies, data, source, outputs.options)
    for size, result in studies.items():
        start = "" if len(studies) == 1 else f"{size} of each class: "
        lines = [f"{question} {answer}" for question, answer in result.verdict().items()]
        lines += [f"{name} is left out: {reason}" for name, reason in result.left_out.items()]
        print_lines(*(start + line for line in lines))
    print_lines(f"table: {out / TABLE}", f"report: {out / REPORT}")


def _numbers(per_class: str | None) -> list[int | None]:
    """Return the numbers of examples of each class; None for all."""
    given = listed("per_class", per_class)
    if given is None:
        return [None]
    if not all(one.isdecimal() and int(one) >= 2 for one in given) or len(set(given)) < len(given):
        raise ConfigurationError(
            f"per_class={per_class!r}: expected different numbers of at least 2, as in 20,50,200"
        )
    return [int(one) for one in given]


def _cohort(path: Path, paths: list[Path]) -> str:
    """Return the name of a cohort's file or folder; its whole path where that is ambiguous."""
    names = ["test", "validation", *(other.name for other in paths)]
    if path.name and names.count(path.name) == 1:
        return path.name
    return f"./{path}" if str(path) == path.name else str(path)


def _methods(names: str | None, source: ArrayDataset, epochs: int | None) -> dict[str, Method]:
    default = VECTORS if len(source.input_shape) == 1 else IMAGES
    options: dict[str, Any] = {} if epochs is None else {"fit_options": {"epochs": epochs}}
    if epochs is not None:
        check_integer("epochs", epochs, minimum=1)
    wanted = listed("methods", names or default) or []
    if len(set(wanted)) < len(wanted):
        raise ConfigurationError(f"methods={names!r}: expected different names")
    return {name: make_method(name, **({} if name in METHODS else options)) for name in wanted}


def _write(
    out: Path,
    studies: Mapping[int | None, StudyResult],
    data: Path,
    source: ArrayDataset,
    options: dict[str, Any],
) -> None:
    *_, result = studies.values()
    several = len(studies) > 1
    records = [
        ({"per_class": size} if several else {}) | record
        for size, of in studies.items()
        for record in of.records()
    ]
    write_table(records, out / TABLE)
    write_text(out / RESULT, result.to_json())
    files = {
        str(out / TABLE): "a line for each training set, classifier, repeat and held-out set",
        str(out / RESULT): "the same with the verdict and the tuned hyper-parameters",
        str(out / (SIZES if several else "rows")): (
            "the finished runs, from which the command continues"
        ),
    }
    commands = {}
    for name in result.models:
        parts = MethodName.of(name)
        how = [f"--model {parts.model}", f"--sampler {parts.sampler}"]
        how += [
            f"--model-options.{key.replace('_', '-')} {shlex.quote(str(value))}"
            for key, value in parts.model_options.items()
        ]
        how += ["--conditional"] if parts.conditional else []
        command = f"chartae augment {shlex.quote(str(data))} {' '.join(how)} --out synthetic.npz"
        commands[f"Make samples of {name} from all of the data"] = command
    write_study_report(
        out / REPORT,
        result,
        title=f"Does augmentation help on {data.name}?",
        facts={"Data": f"{data}: {source}"},
        settings=options,
        files=files,
        commands=commands,
        sizes={size: of for size, of in studies.items() if size is not None},
    )
