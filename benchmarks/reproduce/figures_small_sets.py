"""Figures 1.10, 2.3 and 2.4 of the thesis: samples of models of 120 images.

Three sets of 120 images: letters of Omniglot (six letters, for the 120 letters M of EMNIST), the
digits 0, 1, 2, and shoes, trousers and bags of Fashion-MNIST. A VAE, a VAMP and an RHVAE (Tables
1.10 and 1.15: d = 10, one batch, until the loss has not improved for some epochs) are sampled by
their priors, a mixture, the volume, and the random walk as published. For Figure 2.4, which shows
brain images of two groups, radiographs of two groups stand in, with one model for each.

At the end the script times 100 samples of the random walk of an RHVAE of images of 208 x 176, the
size of the thesis' brain images. The same command goes on after an interruption.

    python benchmarks/reproduce/figures_small_sets.py FOLDER_OF_DATA --out RUNS --figures FOLDER
"""

import argparse
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

import chartae
from chartae.data import few_per_class, read_data
from chartae.report import image_grid
from chartae.runs import Outcome, execute
from chartae.samplers import Sampler

Array = np.ndarray[Any, Any]
Samples = dict[tuple[str, str, str], Array]
"""Images ``(n, 28, 28)`` by set, model and sampler."""

SHOWN = 10
LETTERS = "hmnuvw"
"""Letters whose strokes are those of an M."""
METRIC = {"num_leapfrog": 3, "step_size": 1e-2, "temperature": 1.5, "regularization": 1e-3}
MODELS: dict[str, dict[str, Any]] = {
    "VAE": {},
    "VAMP": {"num_pseudo_inputs": 20},
    "RHVAE": {**METRIC, "sqrt_beta_0": 0.3},
}
SAMPLERS: dict[str, dict[str, type[Sampler]]] = {
    "VAE": {"prior": chartae.NormalSampler, "mixture": chartae.MixtureSampler},
    "VAMP": {"prior": chartae.VampSampler},
    "RHVAE": {
        "prior": chartae.NormalSampler,
        "volume": chartae.VolumeSampler,
        "random walk": chartae.RandomWalkSampler,
    },
}
THREE = ("letters", "digits", "clothes")
GROUPS = ("normal", "pneumonia")


def small_sets(folder: Path) -> dict[str, Tensor]:
    """Return images ``(120, 28, 28)`` by name, class after class."""

    def some(file: str, classes: tuple[int, ...], each: int) -> Tensor:
        data = read_data(folder / file, x_key="x_train", y_key="y_train")
        assert data.y is not None
        x = data.subset(few_per_class(data.y, each, seed=0)[0])
        parts = [x.x[x.y == label] for label in classes]
        return torch.cat(parts).reshape(-1, 28, 28)

    letters = np.load(folder / "omniglot_28.npz", allow_pickle=False)
    latin = letters["alphabet"] == list(letters["alphabet_names"]).index("Latin")
    kinds = [ord(letter) - ord("a") for letter in LETTERS]
    drawn = [letters["x"][latin & (letters["character"] == kind)] for kind in kinds]
    return {
        "letters": torch.from_numpy(np.concatenate(drawn)).float(),
        "digits": some("mnist.npz", (0, 1, 2), 40),
        "clothes": some("fashion_mnist.npz", (7, 1, 8), 40),
        **{name: some("pneumonia_mnist.npz", (k,), 120) for k, name in enumerate(GROUPS)},
    }


def run(settings: Mapping[str, Any], shared: Mapping[str, Tensor], attempt: int) -> Outcome:
    """Train a model on a set, and draw samples in each way."""
    x, name = shared[settings["set"]], settings["model"]
    torch.manual_seed(0)
    model = getattr(chartae, name)(
        (28, 28),
        10,
        encoder="thesis/mnist",
        decoder="thesis/mnist",
        likelihood="bernoulli",
        **MODELS[name],
    )
    history = chartae.fit(
        model,
        x,
        epochs=settings["epochs"],
        patience=50,
        batch_size=len(x),
        learning_rate=1e-3 * 0.1**attempt,
        accelerator="cpu",
        progress=False,
        seed=0,
    )
    drawn = {}
    for way, sampler in SAMPLERS[name].items():
        images = sampler(model).fit(x).sample(3 * SHOWN, seed=0)
        drawn[way] = (images.clamp(0.0, 1.0) * 255.0).round().byte().numpy()
    content = io.BytesIO()
    np.savez_compressed(content, **drawn)
    figures = {"epochs": len(history.train["loss"]), "loss": min(history.train["loss"])}
    return Outcome(figures, {"samples.npz": content.getvalue()})


def three_sets(sets: Mapping[str, Tensor], samples: Samples) -> dict[str, Array]:
    """Return the images of Figures 1.10 and 2.3: a row for each set."""
    spread = torch.linspace(0, 119, SHOWN).long()
    sheet = {"training images": np.concatenate([sets[name][spread] for name in THREE])}
    for model, ways in SAMPLERS.items():
        for way in ways:
            rows = [samples[name, model, way][:SHOWN] for name in THREE]
            sheet[f"{model}, {way}"] = np.concatenate(rows)
    return sheet


def two_groups(sets: Mapping[str, Tensor], samples: Samples) -> dict[str, Array]:
    """Return the images of Figure 2.4."""
    sheet = {}
    for name in GROUPS:
        sheet[f"{name}, training images"] = sets[name][: 2 * SHOWN].numpy()
        for model, way in (("VAE", "prior"), ("RHVAE", "random walk")):
            sheet[f"{name}, {model}, {way}"] = samples[name, model, way][: 2 * SHOWN]
    return sheet


def time_walk(x: Tensor) -> str:
    """Return how long 100 samples of the random walk take, for images of 208 x 176."""
    x = interpolate(x[:, None], (208, 176), mode="bilinear")[:, 0]
    networks = {"encoder": "thesis/oasis", "decoder": "thesis/oasis", "likelihood": "bernoulli"}
    model = chartae.RHVAE((208, 176), 10, **networks, **MODELS["RHVAE"])
    chartae.fit(model, x, epochs=5, batch_size=len(x), accelerator="cpu", progress=False, seed=0)
    sampler = chartae.RandomWalkSampler(model, num_steps=200)
    wall, processor = time.perf_counter(), time.process_time()
    images = sampler.sample(100, seed=0)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return (
        f"100 samples of {tuple(images.shape[1:])} by 250 steps of the random walk: {wall:.2f} s, "
        f"{processor:.2f} s of one core"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figures", type=Path, default=Path("docs/figures"))
    parser.add_argument("--epochs", type=int, default=400, help="the largest number")
    parser.add_argument("--jobs", type=int)
    arguments = parser.parse_args()
    sets = small_sets(arguments.data)
    pairs = [(s, m) for s in sets for m in MODELS if m != "VAMP" or s in THREE]
    table = execute(
        run,
        [{"set": s, "model": m, "epochs": arguments.epochs} for s, m in pairs],
        folder=arguments.out,
        context={"version": chartae.__version__},
        shared=sets,
        jobs=arguments.jobs,
        progress=lambda state: print(f"{state.done} of {state.total}", flush=True),
    )
    samples: Samples = {}
    for row in table.done:
        print(dict(row.settings), dict(row.figures), f"{row.cpu_seconds:.0f} s of one core")
        with np.load(table.file(row, "samples.npz"), allow_pickle=False) as drawn:
            for way in drawn.files:
                samples[row.settings["set"], row.settings["model"], way] = drawn[way] / 255.0
    for row in table.failed:
        print(f"failed: {dict(row.settings)}: {row.error}")
    for name, groups in {"small-sets": three_sets, "two-groups": two_groups}.items():
        figure = image_grid(groups(sets, samples), columns=SHOWN)
        figure.savefig(arguments.figures / f"{name}.png", dpi=80)
    print(time_walk(sets["normal"]))


if __name__ == "__main__":
    main()
