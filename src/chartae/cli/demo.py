"""``chartae demo``: augmentation of scikit-learn's digits, with a report."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from chartae.atomic import write_text
from chartae.augmentation import (
    Augmenter,
    Method,
    ModelMethod,
    StudyResult,
    TrainingSet,
    augmentation_study,
    gaussian_noise,
    smote,
)
from chartae.checks import check_integer
from chartae.cli.options import ConfigFile, Overwrite
from chartae.cli.output import Outputs, print_lines
from chartae.cli.results import fidelity_table, sections
from chartae.data import ArrayDataset, digits, few_per_class, write_npz
from chartae.report import Report, Section, score_plot, versions

__all__ = ["demo"]

RECORD, STUDY = "demo.json", "study"
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
        with TemporaryDirectory(dir=out, prefix=".models-", ignore_cleanup_errors=True) as folder:
            learned = ModelMethod(recipe.rhvae, output_dir=Path(folder))
            study = _run_study(recipe, learned, pool, test, seeds, seed)
            real, groups, augmenter = _first_draw(recipe, learned, pool, seed)
        augmenter.save(out / "models")
        write_npz(out / "synthetic.npz", groups["RHVAE"])
        write_text(out / f"{STUDY}.csv", study.to_csv())
        write_text(out / f"{STUDY}.json", study.to_json())
        report = _report(recipe, study, real, groups, augmenter, outputs.options)
        report.save(out / "report.html")
    Console().print(study.to_table())
    print_lines(
        answer(study),
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
    assert pool.y is not None
    assert test.y is not None
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("training models and classifiers", total=None)
        return augmentation_study(
            pool.x,
            pool.y,
            test.x,
            test.y,
            methods={"RHVAE": learned, **_baselines(recipe)},
            per_class=recipe.per_class,
            synthetic=recipe.synthetic_per_class,
            real_share=recipe.real_share,
            repeats=seeds,
            seed=seed,
            advance=lambda done, total: bar.update(task, completed=done, total=total),
        )


def _first_draw(
    recipe: Recipe, learned: ModelMethod, pool: ArrayDataset, seed: int
) -> tuple[ArrayDataset, dict[str, ArrayDataset], Augmenter]:
    """Return the first draw's real examples, its synthetic sets, and the fitted augmenter.

    They are the same as in the study, because its models are kept and the seed is the same.
    """
    assert pool.y is not None
    real = pool.subset(few_per_class(pool.y, recipe.per_class, seed=seed)[0])
    assert real.y is not None
    x, y = real.x.numpy(), real.y.numpy()
    augmenter = learned.augmenter(seed).fit(x, y)
    counts = dict.fromkeys(range(pool.num_classes), recipe.synthetic_per_class)
    made = {"RHVAE": augmenter.sample(recipe.synthetic_per_class)}
    for name, method in _baselines(recipe).items():
        made[name] = method(x, y, counts, seed)
    groups = {
        name: ArrayDataset.from_arrays(*arrays, class_names=pool.class_names)
        for name, arrays in made.items()
    }
    return real, groups, augmenter


def _report(
    recipe: Recipe,
    study: StudyResult,
    real: ArrayDataset,
    groups: Mapping[str, ArrayDataset],
    augmenter: Augmenter,
    options: Mapping[str, Any],
) -> Report:
    settings = study.settings
    seeds = range(options["seed"], options["seed"] + options["seeds"])
    plot = Section(
        "Accuracy at a glance",
        "The figure shows the same numbers. The grey band is real data alone. Bars and band show "
        "the variation of accuracy between draws. The verdicts above compare methods within each "
        "draw, so they can detect smaller differences.",
        score_plot(study),
        "Accuracy of each classifier by method, with standard deviations",
    )
    return Report(
        f"{recipe.per_class} digits per class, augmented: does it help?",
        f"{answer(study)} A geometry-aware autoencoder (RHVAE) learned each digit from "
        f"{recipe.per_class} labelled examples and drew {recipe.synthetic_per_class} new ones; the "
        "table compares them with simpler methods.",
        facts={
            "Data": "scikit-learn’s handwritten digits: 1,797 images of 8 × 8 pixels",
            "Training": f"{settings['repeats']} draws of {settings['per_class']} digits per class "
            f"from a pool of {settings['num_pool']}",
            "Synthetic": f"{settings['synthetic_per_class']} per class from each method",
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
        tables=[fidelity_table(augmenter.fidelity_)],
        sections=[plot, *sections(augmenter, {"real": real, **groups}, columns=recipe.per_class)],
        files={
            "synthetic.npz": "the RHVAE’s synthetic digits of the first draw (x, y, class_names)",
            "models/": "the RHVAE of each digit of the first draw, for chartae sample",
            f"{STUDY}.csv, {STUDY}.json": "every accuracy, and the tuned hyper-parameters",
            RECORD: "the options of this run",
        },
    )


def answer(study: StudyResult) -> str:
    """Return a sentence on the effect of adding the RHVAE's digits on the classifiers."""
    added = TrainingSet("real + synthetic", "RHVAE")
    verdicts = {name: study.compare(added, name).verdict for name in study.classifiers}
    counts = {v: sum(found == v for found in verdicts.values()) for v in ("helps", "hurts")}
    return (
        f"Adding the RHVAE's digits to the real ones clearly helps {counts['helps']} of "
        f"{len(verdicts)} classifiers and clearly hurts {counts['hurts']}."
    )
