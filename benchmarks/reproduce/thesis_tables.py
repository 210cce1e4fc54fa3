"""Tables 4.1 to 4.3 of the thesis: every model of chartae beside Pythae's, and the thesis' figures.

Both libraries train equal networks (784-512-256-16 and back, ReLU) on the same images of MNIST,
with the same settings, batches of 100, epochs and Adam's learning rate of 1e-3, each by its own
trainer. `chartae.evaluation` evaluates both in the features of one classifier. Runs are kept in a
folder: the same command goes on after an interruption.

    python benchmarks/reproduce/thesis_tables.py MNIST.npz --out FOLDER
    python benchmarks/reproduce/thesis_tables.py MNIST.npz --out FOLDER --models VAE WAE --seeds 5
"""

import argparse
import math
import statistics
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import chartae
from chartae.data import ArrayDataset, few_per_class, read_data
from chartae.evaluation import METRICS, Splits, evaluate_model, train_classifier
from chartae.models import AE, Autoencoder
from chartae.runs import Outcome, Progress, Row, execute

sys.path.append(str(Path(__file__).parents[1] / "speed"))

import peer
from zoo import PAIRS, SHAPE, Pair

HIDDEN = (512, 256)
SAMPLERS = ("auto", "normal", "mixture")
OTHER_SPACES = ("SVAE", "PoincareVAE")
"""Models whose latents are not vectors: no adapter is written for Pythae's."""
# Mean squared error (1e-3), accuracy of a linear probe and of k-means (%), Frechet distance of the
# normal sampler and of a mixture: the thesis' ConvNet on MNIST, d = 16, the best of ten
# configurations (Tables 4.1, 4.2 and 4.3).
THESIS: dict[str, tuple[float, ...]] = {
    "VAE": (16.85, 86.75, 69.71, 28.5, 26.9),
    "VAMP": (24.17, 92.17, 67.26, 64.2, math.nan),
    "IWAE": (14.14, 87.96, 63.93, 29.0, 28.4),
    "VAE_LinNF": (16.75, 86.04, 65.48, 29.3, 28.4),
    "VAE_IAF": (16.71, 88.32, 75.31, 27.5, 27.0),
    "BetaVAE": (5.61, math.nan, math.nan, 21.4, 9.2),
    "BetaTCVAE": (6.78, 90.96, 65.68, 21.3, 11.6),
    "FactorVAE": (17.27, 86.08, 51.02, 27.0, 26.9),
    "INFOVAE_MMD": (16.65, 86.33, 68.17, 28.3, 27.7),
    "Adversarial_AE": (5.59, 93.28, 74.19, 16.8, 9.3),
    "MSSSIM_VAE": (32.60, 78.30, 49.33, 26.7, 27.2),
    "VAEGAN": (15.49, 92.34, 77.29, 8.7, 6.3),
    "AE": (5.47, 93.81, 73.55, 26.7, 9.3),
    "WAE_MMD": (5.55, 93.60, 72.33, 18.9, 8.6),
    "VQVAE": (5.59, 93.45, 72.61, 28.2, 9.1),
    "RAE_L2": (5.24, 94.75, 74.07, 25.0, 9.1),
    "RAE_GP": (5.31, 94.10, 72.88, 27.1, 9.7),
}
COLUMNS: dict[str, tuple[str, Callable[[Row], float | None], float, bool]] = {
    "MSE (1e-3)": ("model", lambda row: row.figures["test"]["mse"], 1e3, False),
    "linear probe (%)": ("model", lambda row: row.figures["test"]["probe_accuracy"], 1e2, True),
    "k-means (%)": ("model", lambda row: row.figures["test"]["cluster_accuracy"], 1e2, True),
    "FD, normal": ("normal", lambda row: _sampled(row, "normal"), 1.0, False),
    "FD, mixture": ("mixture", lambda row: _sampled(row, "mixture"), 1.0, False),
}


class Peer(AE):
    """A trained model of Pythae in chartae's form: its embedding, and its decoder."""

    def __init__(self, theirs: Any, latent_dim: int) -> None:
        super().__init__(SHAPE, latent_dim, encoder={"name": "mlp", "hidden": [1]})
        self.theirs = theirs

    def embed(self, x: Tensor, y: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        z = self.theirs.encoder(x).embedding
        if self.theirs.model_name == "VAE_LinNF":
            for layer in self.theirs.net:
                z = layer(z).out
        elif self.theirs.model_name == "VAE_IAF":
            z = self.theirs.iaf_flow.inverse(z).out
        elif self.theirs.model_name == "VQVAE":
            codes = self.theirs.quantizer(z.permute(0, 2, 3, 1), uses_ddp=False)
            z = codes.quantized_vector
        return z.flatten(1)

    def decode(
        self, z: Tensor, y: Tensor | None = None, *, batch_size: int | None = None
    ) -> Tensor:
        if self.theirs.model_name == "VQVAE":
            z = z.reshape(-1, 4, 4, 4)
        x = self.theirs.decoder(z).reconstruction
        return x.sigmoid() if self.theirs.model_name == "HVAE" else x


def train(pair: Pair, side: str, x: Tensor, epochs: int, rate: float, seed: int) -> Autoencoder:
    """Return a trained model of one side."""
    torch.manual_seed(seed)
    if side == "chartae":
        model = pair.build(HIDDEN)
        options = {"batch_size": 100, "learning_rate": rate, "seed": seed, "progress": False}
        chartae.fit(model, x, epochs=epochs, **options)
        return model
    theirs = pair.build_peer(HIDDEN)
    peer.train(theirs, x, epochs=epochs, batch_size=100)
    return Peer(theirs, pair.latent_dim).eval()


def run(settings: Mapping[str, Any], shared: Any, attempt: int) -> Outcome:
    """Train and evaluate one model of one library."""
    warnings.filterwarnings("ignore")
    pair, (splits, classifier) = PAIRS[settings["pair"]], shared
    rate = 1e-3 * 0.1**attempt
    model = train(
        pair, settings["side"], splits.train.x, settings["epochs"], rate, settings["seed"]
    )
    tasks = ["reconstruction", "generation", "classification", "clustering"]
    found = evaluate_model(
        model, splits, features=classifier, samplers=SAMPLERS, tasks=tasks, runs=3, seed=0
    )
    return Outcome({"test": found.figures["test"], "samplers": found.samplers})


def _sampled(row: Row, sampler: str) -> float | None:
    figures = row.figures["samplers"].get(sampler)
    return None if figures is None else figures["test"]["frechet"]


def markdown(rows: list[Row]) -> str:
    """Return a table: for each figure the thesis', Pythae's and ours."""
    lines = [
        "| model | " + " | ".join(f"{name}: thesis, Pythae, ours" for name in COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for index, pair in enumerate(PAIRS):
        mine = [row for row in rows if row.settings["pair"] == index]
        if not mine:
            continue
        cells = [f"{pair.ours}" + (f" ({pair.settings})" if pair.settings else "")]
        for place, (_, value, scale, higher) in enumerate(COLUMNS.values()):
            sides = {
                side: [
                    scale * found
                    for row in mine
                    if row.settings["side"] == side and (found := value(row)) is not None
                ]
                for side in ("pythae", "chartae")
            }
            cells.append(_cell(THESIS.get(pair.theirs), place, sides, higher))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(
    thesis: tuple[float, ...] | None, place: int, sides: Mapping[str, list[float]], higher: bool
) -> str:
    known = thesis is not None and not math.isnan(thesis[place])
    printed = f"{thesis[place]:.1f}" if thesis is not None and known else "-"
    texts = {side: _mean(values) for side, values in sides.items()}
    if all(sides.values()):
        better = max if higher else min
        means = {side: statistics.fmean(values) for side, values in sides.items()}
        best = better(means, key=lambda side: means[side])
        gap = abs(means["pythae"] - means["chartae"])
        spreads = [statistics.stdev(v) for v in sides.values() if len(v) > 1]
        if gap > max(spreads, default=0.0):
            texts[best] = f"**{texts[best]}**"
    return f"{printed}, {texts['pythae']}, {texts['chartae']}"


def _mean(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", nargs="*", help="our names or Pythae's; none is all of them")
    parser.add_argument("--images", type=int, default=3000, help="training images")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--budget", type=float, help="seconds")
    arguments = parser.parse_args()
    data = read_data(arguments.mnist, x_key="x_train", y_key="y_train")
    test = read_data(arguments.mnist, x_key="x_test", y_key="y_test")
    splits = _splits(data, test, arguments.images)
    chosen = [
        index
        for index, pair in enumerate(PAIRS)
        if pair.ours not in OTHER_SPACES
        and (not arguments.models or {pair.ours, pair.theirs} & {*arguments.models})
    ]
    both = [splits.train, splits.validation]
    x, y = torch.cat([part.x for part in both]), np.concatenate([_labels(part) for part in both])
    classifier = train_classifier(x, y, seed=0)
    print(f"classifier: {classifier.accuracy:.3f} of its held-out images", flush=True)

    def tell(state: Progress) -> None:
        left = "" if state.seconds_left is None else f", {state.seconds_left / 60:.0f} min left"
        print(f"{state.done} of {state.total}{left}", file=sys.stderr, flush=True)

    table = execute(
        run,
        [
            {"pair": index, "side": side, "seed": seed, "epochs": arguments.epochs}
            for seed in range(arguments.seeds)
            for index in chosen
            for side in ("chartae", "pythae")
        ],
        folder=arguments.out,
        context={"images": arguments.images, "version": chartae.__version__},
        shared=(splits, classifier),
        jobs=arguments.jobs,
        budget=arguments.budget,
        cost=lambda one: (f"{one['pair']} {one['side']}", float(one["epochs"])),
        progress=tell,
    )
    print(f"{METRICS['frechet'].title} (FD) in the features of the classifier; {len(table)} runs")
    print(markdown(list(table.done)))
    for row in table.failed:
        print(f"failed: {PAIRS[row.settings['pair']].ours}, {dict(row.settings)}: {row.error}")


def _splits(data: ArrayDataset, test: ArrayDataset, images: int) -> Splits:
    """Return images of shape (1, 28, 28): for training, and 1,000 each to choose and to test."""
    per_class = images // 10
    assert data.y is not None
    assert test.y is not None
    chosen, rest = few_per_class(data.y, per_class, seed=0)
    validation = rest[few_per_class(data.y[rest], 100, seed=0)[0]]
    parts = [
        data.subset(chosen),
        data.subset(validation),
        test.subset(few_per_class(test.y, 100, seed=0)[0]),
    ]
    return Splits(
        *(
            ArrayDataset(part.x.round().reshape(-1, *SHAPE), part.y, class_names=part.class_names)
            for part in parts
        )
    )


def _labels(part: ArrayDataset) -> Any:
    assert part.y is not None
    return part.y.numpy()


if __name__ == "__main__":
    main()
