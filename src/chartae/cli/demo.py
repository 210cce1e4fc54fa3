"""``chartae demo``: augmentation of scikit-learn's digits, with a report."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from chartae.atomic import write_text
from chartae.augmentation import (
    CLASSIFIERS,
    Augmenter,
    Method,
    ModelMethod,
    StudyResult,
    augmentation_study,
    gaussian_noise,
    smote,
    transforms,
)
from chartae.checks import check_integer
from chartae.cli.options import ConfigFile, Overwrite
from chartae.cli.output import Outputs, print_lines
from chartae.cli.progress import showing
from chartae.cli.results import fidelity_table, sections
from chartae.data import ArrayDataset, digits, few_per_class, write_npz
from chartae.report import Report, quiz, study_sections, study_tables, versions

__all__ = ["demo"]

RECORD, STUDY = "demo.json", "study"
CHOSEN = ("logistic regression", "MLP", "k-NN", "RBF SVM")
FILES = ("report.html", "synthetic.npz", "models", f"{STUDY}.csv", f"{STUDY}.json")


@dataclass(frozen=True)
class Recipe:
    """The settings of the demo."""

    per_class: int = 10
    synthetic_per_class: int = 100
    real_share: float | None = 0.5
    pool_per_class: int = 45
    split_seed: int = 0
    noise_scale: float = 0.1
    epochs: int = 400

    @property
    def networks(self) -> dict[str, Any]:
        """Arguments of both autoencoders: small networks for ten images of 64 pixels."""
        hidden = {"name": "mlp", "hidden": [128]}
        return {"encoder": hidden, "decoder": hidden}

    @property
    def rhvae(self) -> dict[str, Any]:
        """The geometry-aware autoencoder, sampled by its learned metric."""
        metric_network = {"name": "mlp", "hidden": [64]}
        return {
            "model": "rhvae",
            "sampler": "volume",
            "model_options": {**self.networks, "metric_network": metric_network},
            "fit_options": {"epochs": self.epochs},
        }

    @property
    def vae(self) -> dict[str, Any]:
        """The plain autoencoder, sampled from its prior."""
        return {
            "model": "vae",
            "sampler": "normal",
            "model_options": self.networks,
            "fit_options": {"epochs": self.epochs},
        }


RECIPE = Recipe()
QUICK = Recipe(synthetic_per_class=50, epochs=20)


def demo(
    *,
    out: Path = Path("chartae-demo"),
    seeds: int = 5,
    quick: bool = False,
    seed: int = 0,
    overwrite: Overwrite = False,
    config: ConfigFile = None,
) -> None:
    """Run the subcommand.

    Args:
        out: Folder for the report, the synthetic digits, the models and the study.
        seeds: Number of draws of ten digits per class.
        quick: Train for a few epochs only, as a test of the command; the results are poor.
        seed: Seed of the first draw; each next draw has the next seed.
    """
    given = dict(locals())
    check_integer("seeds", seeds, minimum=1)
    check_integer("seed", seed, minimum=0)
    recipe = QUICK if quick else RECIPE
    outputs = Outputs("demo", out / RECORD, given, inputs=[config])
    outputs.claim(*(out / name for name in FILES))
    with outputs.recording():
        pool, test = _split(recipe)
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=out, prefix=".models-", ignore_cleanup_errors=True) as folder:
            learned = ModelMethod(recipe.rhvae, output_dir=Path(folder))
            study = _run_study(recipe, learned, pool, test, seeds, seed)
            augmenter = _first_augmenter(study, learned, seed)
        augmenter.save(out / "models")
        write_npz(out / "synthetic.npz", study.samples["RHVAE"])
        write_text(out / f"{STUDY}.csv", study.to_csv())
        write_text(out / f"{STUDY}.json", study.to_json())
        report = _report(recipe, study, augmenter, outputs.options)
        report.save(out / "report.html")
    print_lines(first_line(study))
    Console().print(study.to_table())
    print_lines(
        *(f"{question} {answer}" for question, answer in study.verdict().items()),
        f"report: {out / 'report.html'}",
        f"synthetic digits: {out / 'synthetic.npz'}",
    )


def _split(recipe: Recipe) -> tuple[ArrayDataset, ArrayDataset]:
    """Return the pool from which examples are drawn, and the test set."""
    data = digits()
    assert data.y is not None
    pool, test = few_per_class(data.y, recipe.pool_per_class, seed=recipe.split_seed)
    return data.subset(pool), data.subset(test)


def _baselines(recipe: Recipe) -> dict[str, Method]:
    return {
        "plain VAE": ModelMethod(recipe.vae),
        "transforms": transforms,
        "SMOTE": smote,
        "Gaussian noise": partial(gaussian_noise, scale=recipe.noise_scale),
    }


def _run_study(
    recipe: Recipe,
    learned: ModelMethod,
    pool: ArrayDataset,
    test: ArrayDataset,
    seeds: int,
    seed: int,
) -> StudyResult:
    with showing("training models and classifiers") as advance:
        return augmentation_study(
            pool,
            None,
            test,
            methods={"RHVAE": learned, **_baselines(recipe)},
            classifiers={name: CLASSIFIERS[name] for name in CHOSEN},
            per_class=recipe.per_class,
            synthetic=recipe.synthetic_per_class,
            real_share=recipe.real_share,
            repeats=seeds,
            seed=seed,
            advance=advance,
        )


def _first_augmenter(study: StudyResult, learned: ModelMethod, seed: int) -> Augmenter:
    """Return the augmenter of the first draw: its models are kept, and its seed is the same."""
    real = study.samples["real"]
    assert real.y is not None
    return learned.augmenter(seed).fit(real.x.numpy(), real.y.numpy())


def _report(
    recipe: Recipe, study: StudyResult, augmenter: Augmenter, options: Mapping[str, Any]
) -> Report:
    settings = study.settings
    seeds = range(options["seed"], options["seed"] + options["seeds"])
    real = study.samples["real"]
    maps = sections(augmenter, {"real": real})[1:]  # the sheets are those of the study
    return Report(
        f"{recipe.per_class} digits per class, augmented: does it help?",
        f"{first_line(study)} A geometry-aware autoencoder (RHVAE) learned each digit from "
        f"{recipe.per_class} labelled examples and drew {recipe.synthetic_per_class} new ones; the "
        "table compares them with simpler methods.",
        answers=study.verdict(),
        facts={
            "Data": "scikit-learn’s handwritten digits: 1,797 images of 8 × 8 pixels",
            "Training": f"{settings['repeats']} draws of {recipe.per_class} digits per class "
            f"from a pool of {settings['num_pool']}; {settings['num_validation']} other digits "
            "for validation",
            "Synthetic": f"{recipe.synthetic_per_class} per class from each method",
            "Test": f"{settings['num_test']:,} digits outside of the pool, the same for all draws",
            "Seeds": f"{', '.join(map(str, seeds))}; {recipe.split_seed} for pool and test set",
            "Versions": versions(),
        },
        settings={
            **options,
            "recipe": asdict(recipe),
            "rhvae": recipe.rhvae,
            "vae": recipe.vae,
            "tuned": dict(study.tuned),
        },
        study=study,
        tables=[*study_tables(study), fidelity_table(augmenter.fidelity_)],
        sections=[*study_sections(study), *maps],
        quiz=quiz(real, study.samples["RHVAE"], seed=options["seed"]),
        files={
            "synthetic.npz": "the RHVAE’s synthetic digits of the first draw (x, y, class_names)",
            "models/": "the RHVAE of each digit of the first draw, for chartae sample",
            f"{STUDY}.csv, {STUDY}.json": "every figure, and the tuned hyper-parameters",
            RECORD: "the options of this run",
        },
    )


def first_line(study: StudyResult) -> str:
    """Return in a sentence whether the generators are better than all methods without a model."""
    answer = study.verdict()["Do synthetic data help?"]
    return {
        "Yes": "On these digits synthetic data are better than every method without a model.",
        "No ": "On these digits synthetic data make no clear difference, compared with the best "
        "method without a model.",
        "No:": "On these digits synthetic data do not help: the best method without a model is "
        "clearly better.",
    }[answer[:3]]
