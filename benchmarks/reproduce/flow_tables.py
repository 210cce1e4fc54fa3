"""Thesis chapter 6, reduced: spread over seeds, distance of generated frames, ablations.

* ``likelihoods`` (Tables 6.1 and 6.2): -log p(x_1, ..., x_T) / T of the main models, the Frechet
  distance of generated frames to those of test individuals, and the roughness of generated courses,
  because frames ignore time. As many individuals are generated as are in the test set, at their
  times. The features are the codes of one autoencoder trained on frames of the training set: there
  is no network for star men, and weights of Inception need a download. So distances can be compared
  within a set only.
* ``flows``, ``chain`` (Table 6.5), ``warmup`` (6.6), ``latents`` (6.7), ``components`` (6.8): the
  same figures of ``FlowVAE(inference="visit")`` with one argument changed.

Networks, data, likelihood and proposals are those of `flow_likelihoods.py`. Rows are kept in a
folder: the same command goes on after an interruption.

    python benchmarks/reproduce/flow_tables.py --data ../shared/data --out runs --epochs 2 --seeds 1
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from flow_likelihoods import NETWORKS, PUBLISHED, SETS, build, likelihoods

import chartae
from chartae.data import Sequences
from chartae.evaluation import embedding, frechet_distance, roughness
from chartae.longitudinal import SequenceModel
from chartae.models import AE
from chartae.runs import Outcome, Progress, Row, execute

Choice = tuple[str, dict[str, Any]]
"""The name of a model in `flow_likelihoods.MODELS`, and the arguments that are changed."""

BASE = "time, visit"
CODES = 16
"""Size of the codes of frames, in which distances are measured."""


def _flow(layers: int, hidden: int) -> dict[str, Any]:
    return {"flow": {"name": "time", "layers": layers, "hidden": [128] * hidden}}


def _chain(layers: int) -> dict[str, Any]:
    return {"flow": {"name": "chain", "layers": layers}}


TABLES: dict[str, list[Choice]] = {
    "likelihoods": [
        (name, {})
        for name in ("VAE", "VAMP", "GPVAE (matern)", BASE, "time", "time, VAMP", "time, IAF")
    ],
    "flows": [
        (BASE, _flow(layers, hidden))
        for layers, hidden in ((1, 1), (2, 1), (4, 1), (8, 1), (4, 2), (4, 3))
    ],
    "warmup": [(BASE, {"warmup": epochs}) for epochs in (0, 2, 5, 10, 20)],
    "latents": [(BASE, {"latent_dim": size}) for size in (2, 8, 16, 32, 64)],
    "components": [
        (BASE, {"prior": "vamp", "num_pseudo_inputs": count}) for count in (10, 50, 100, 200, 500)
    ],
    "chain": [("chain", _chain(layers)) for layers in (1, 2, 4)],
}


@dataclass(frozen=True)
class Study:
    """A set in three parts, with the network in whose codes frames are compared.

    Attributes:
        train: the training individuals.
        validation: those on which the best epoch is chosen.
        test: those of the figures.
        network: an autoencoder of frames.
    """

    train: Sequences
    validation: Sequences
    test: Sequences
    network: AE

    @classmethod
    def of(cls, data: Sequences, epochs: int) -> "Study":
        """Split a set as `flow_likelihoods.py` does, and train the network."""
        train, validation, test = data.split((0.7, 0.2, 0.1), seed=0)
        torch.manual_seed(0)
        network = AE(data.input_shape, CODES, **NETWORKS)
        frames = train.x.flatten(0, 1), validation.x.flatten(0, 1)
        chartae.fit(network, *frames, epochs=epochs, batch_size=128, seed=0, progress=False)
        return cls(train, validation, test, network)

    def distances(self, x: torch.Tensor) -> dict[str, float]:
        """Compare sequences ``(N, T, ...)`` at the times of the first N test individuals."""
        test = self.test.subset(torch.arange(len(x)))
        codes = embedding(self.network)
        real, fake = (codes(frames.flatten(0, 1)) for frames in (test.x, x))
        return {
            "frechet": frechet_distance(real, fake),
            "roughness": roughness(Sequences(x, times=test.times)),
        }


def stepped(data: Sequences) -> Sequences:
    """Return individuals whose times are 0, 1, ..., which is all that a chain knows."""
    return Sequences(data.x, times=torch.arange(float(data.x.shape[1])))


def generated(model: SequenceModel, test: Sequences) -> torch.Tensor:
    """Return an individual at the times of each test individual."""
    drawn = [model.generate(1, when, seed=row) for row, when in enumerate(test.times)]
    return torch.cat(drawn)


def run(settings: Mapping[str, Any], shared: Mapping[str, Study], attempt: int) -> Outcome:
    """Train one model, and return its figures."""
    study = shared[settings["set"]]
    parts = [study.train, study.validation, study.test]
    if settings["model"].startswith("chain"):
        parts = [stepped(part) for part in parts]
    train, validation, test = parts
    torch.manual_seed(settings["seed"])
    model = build(settings["model"], train, PUBLISHED, **settings["changes"])
    start = time.process_time()
    chartae.fit(
        model,
        train,
        validation,
        epochs=settings["epochs"],
        batch_size=64,
        learning_rate=1e-3 * 0.1**attempt,
        seed=settings["seed"],
        progress=False,
    )
    training = time.process_time() - start
    tightest = model.proposals[0]
    found = likelihoods(model, test, settings["samples"])[tightest]
    return Outcome(found | study.distances(generated(model, test)) | {"cpu_s": training})


def choices(tables: list[str]) -> Iterator[Choice]:
    """Yield what the tables need, each once: some rows stand in several tables."""
    seen: list[Choice] = []
    for table in tables:
        for choice in map(_plain, TABLES[table]):
            if choice not in seen:
                seen.append(choice)
                yield choice


def _plain(choice: Choice) -> Choice:
    """Return a choice without changes that are the defaults."""
    name, changes = choice
    defaults = {"warmup": 0, "latent_dim": 16, **_flow(4, 1)}
    return name, {key: value for key, value in changes.items() if defaults.get(key) != value}


FIGURES = {
    "-log p / T": "without",
    "effective samples": "ess",
    "Frechet distance": "frechet",
    "roughness": "roughness",
    "CPU time (s)": "cpu_s",
}


def markdown(table: str, name: str, rows: list[Row]) -> str:
    """Return the mean and the standard deviation over seeds of the rows of a table."""
    lines = [f"| {table}, {name} | " + " | ".join(FIGURES) + " |", "|---" * 6 + "|"]
    for choice in TABLES[table]:
        model, changes = _plain(choice)
        mine = [
            row.figures
            for row in rows
            if row.settings["set"] == name
            and (row.settings["model"], row.settings["changes"]) == (model, changes)
        ]
        if mine:
            label = ", ".join(f"{key}={value}" for key, value in choice[1].items()) or model
            cells = [_cell([one[key] for one in mine]) for key in FIGURES.values()]
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    mean = statistics.fmean(values)
    return f"{mean:.3g}" if math.isnan(spread) else f"{mean:.3g} ± {spread:.2g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the .npz files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the rows")
    parser.add_argument("--sets", nargs="+", default=["starmen"], choices=SETS)
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=TABLES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--budget", type=float, help="seconds")
    args = parser.parse_args()
    shared = {name: Study.of(SETS[name](args.data), epochs=20) for name in args.sets}
    for name, study in shared.items():
        others = study.validation.subset(torch.arange(len(study.test)))
        print(f"{name}: other real individuals {study.distances(others.x)}", flush=True)

    def tell(state: Progress) -> None:
        left = "" if state.seconds_left is None else f", {state.seconds_left / 60:.0f} min left"
        print(f"{state.done} of {state.total}{left}", file=sys.stderr, flush=True)

    table = execute(
        run,
        [
            {
                "set": name,
                "model": model,
                "changes": changes,
                "seed": seed,
                "epochs": args.epochs,
                "samples": args.samples,
            }
            for seed in range(args.seeds)
            for name in args.sets
            for model, changes in choices(args.tables)
        ],
        folder=args.out,
        context={"version": chartae.__version__},
        shared=shared,
        jobs=args.jobs,
        budget=args.budget,
        progress=tell,
    )
    for name in args.sets:
        for kind in args.tables:
            print(f"\n{markdown(kind, name, list(table.done))}")
    for row in table.failed:
        print(f"failed: {dict(row.settings)}: {row.error}")


if __name__ == "__main__":
    main()
