"""Thesis chapter 5 at a reduced size: extrapolated visits (Fig. 5.3) and recovered individuals.

Star men of 700 individuals for training, 200 for the choice of the epoch, and 100 for the test.
Visits are 8 features: principal components of the images, divided by one number so that the mean
variance of a feature is 1 (``--features pca``), or the codes of a VAE trained without time
(``--features vae``). For each way to train a `TrajectoryVAE`:

* the squared error of the last visit and of the next one, predicted from the first 1 to 9 visits:
  summed over features, averaged over individuals. The prediction is the mean of 128 draws from the
  posterior, as they are; beside it the mean after resampling by importance weights, and the last
  value carried forward;
* mean square error and structural similarity of the images of these predictions, as in Fig. 5.3:
  the mean of the images of all draws, beside the last image carried forward, and the images of the
  true features, which no prediction of features can surpass;
* the share of features of the last visit inside the 90 % interval of the draws;
* the squared error of all visits given all visits;
* the rank correlations of estimated and true speed and delay;
* -log p(visits) of an individual, with its effective sample size out of 100.

Each run is one JSON file, so that a run that was stopped goes on where it was.

    python benchmarks/reproduce/trajectories.py --data ../shared/data --out runs --quick
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

import chartae
from chartae.atomic import write_text
from chartae.data import Sequences
from chartae.evaluation import mse, ssim
from chartae.longitudinal import TrajectoryVAE, encode_visits

DIM = 8
NETWORKS: dict[str, Any] = {
    "encoder": {"name": "mlp", "hidden": [64]},
    "decoder": {"name": "mlp", "hidden": [512]},  # MLP 2 of Table 5.4
}
VAES: dict[str, dict[str, Any]] = {
    "thesis": {"encoder": "thesis/starmen", "decoder": "thesis/starmen"},
    "mlp": {
        "encoder": {"name": "mlp", "hidden": [512, 128]},
        "decoder": {"name": "mlp", "hidden": [128, 512]},
    },
}
PUBLISHED = {"name": "gaussian", "scale": 0.5**0.5}
OWN: dict[str, Any] = {"likelihood": {"name": "gaussian", "scale": "per_feature"}}
SMALL: dict[str, Any] = {
    "hidden": 64,
    "encoder": {"name": "mlp", "hidden": [32]},
    "decoder": {"name": "mlp", "hidden": [128]},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "own noises": OWN,
    "small": SMALL,
    "small, own noises": {**SMALL, **OWN},
    "complete": {"prefixes": "complete"},
    "seen": {"prefixes": "seen"},
    "whole": {"prefixes": "none"},
    "diagonal": {"covariance": "diagonal"},
    "first": {"space_from": "first"},
    "fixed prior": {"learned_prior": False},
    "beta .1": {"likelihood": PUBLISHED, "beta": 0.1},
    "beta .01": {"likelihood": PUBLISHED, "beta": 0.01},
    "thesis": {
        "likelihood": PUBLISHED,
        "beta": 0.1,
        "prefixes": "none",
        "covariance": "diagonal",
        "space_from": "first",
        "learned_prior": False,
    },
}
DRAWS = 128


@dataclass(frozen=True)
class Study:
    """The three parts of a set of sequences of features, and the true parameters of the test.

    Attributes:
        parts: training, validation and test individuals.
        speed: ``(100,)``, of the test individuals.
        delay: ``(100,)``.
        images: the images of the test individuals, ``(100, 10, 64, 64)``.
        decode: the images of features ``(n, 8)``, ``(n, 64, 64)``.
    """

    parts: tuple[Sequences, Sequences, Sequences]
    speed: np.ndarray
    delay: np.ndarray
    images: Tensor
    decode: Callable[[Tensor], Tensor]


def parts(data: Sequences) -> tuple[Sequences, Sequences, Sequences]:
    """Return the first 700, the next 200 and the last 100 individuals."""
    rows = torch.arange(1000).split([700, 200, 100])
    return data.subset(rows[0]), data.subset(rows[1]), data.subset(rows[2])


def study(folder: Path, features: str, networks: str, epochs: int) -> Study:
    """Return the study of one kind of features; a VAE is trained for a number of epochs."""
    stored = np.load(folder / "starmen.npz", allow_pickle=False)
    truth = stored["acceleration_alpha"][-100:], stored["onset_tau"][-100:]
    x = torch.from_numpy(stored["x"]).float() / 255.0
    if features == "pca":
        scores, decode = components(x)
        return Study(parts(Sequences(scores, times=stored["time"])), *truth, x[-100:], decode)
    images = Sequences(stored["x"][:, :, None], times=stored["time"])
    train, validation, _ = parts(images)
    torch.manual_seed(0)
    vae = chartae.VAE((1, 64, 64), DIM, **VAES[networks])
    frames = [part.x.flatten(0, 1) for part in (train, validation)]
    chartae.fit(vae, *frames, epochs=epochs, batch_size=100, seed=0, progress=False)
    codes = parts(encode_visits(vae, images))
    return Study(codes, *truth, x[-100:], lambda z: vae.decode(z, batch_size=1000)[:, 0])


def components(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return the first principal components of images ``(N, T, 64, 64)``, and what inverts them.

    Components are divided by one number.
    """
    flat = x.flatten(2)
    train = flat[:700].flatten(0, 1)
    center = train.mean(0)
    _, axes = torch.linalg.eigh((train - center).T @ (train - center))
    axes = axes[:, -DIM:].flip(-1)
    scores = (flat - center) @ axes
    scale = scores[:700].square().mean().sqrt()

    def images(z: Tensor) -> Tensor:
        return (scale * z @ axes.T + center).clamp(0.0, 1.0).unflatten(-1, x.shape[-2:])

    return scores / scale, images


def carried(test: Sequences, target: int, visits: int) -> float:
    """Return the squared error of the last of the first visits as the value of a later one."""
    return float((test.x[:, visits - 1] - test.x[:, target]).square().sum(-1).mean())


def extrapolated(model: TrajectoryVAE, case: Study, visits: int, target: int) -> dict[str, float]:
    """Return the errors of a visit that is predicted from the first ones."""
    test, seen = case.parts[2], case.parts[2].first(visits)
    truth, when = test.x[:, target], test.times[:, target : target + 1]
    plain = model.futures(seen, when, DRAWS, how="best", noise=False)
    weighted = model.futures(seen, when, DRAWS, how="resample", noise=False)
    noisy = model.futures(seen, when, 200, how="best", noise=True).values[:, :, 0]
    low, high = noisy.quantile(0.05, 0), noisy.quantile(0.95, 0)
    inside = (truth >= low) & (truth <= high)
    errors = (plain.values.mean(0)[:, 0] - truth).square().sum(-1)
    found = {
        "error": float(errors.mean()),
        "standard_error": float(errors.std() / len(errors) ** 0.5),
        "resampled": float((weighted.values.mean(0)[:, 0] - truth).square().sum(-1).mean()),
        "carried": carried(test, target, visits),
        "coverage": float(inside.float().mean()),
    }
    pictures = case.images[:, target]
    decoded = torch.stack([case.decode(values) for values in plain.values[:, :, 0]]).mean(0)
    return found | {
        "image": alike(pictures, decoded),
        "image_carried": alike(pictures, case.images[:, visits - 1]),
        "image_true": alike(pictures, case.decode(truth)),
    }


def alike(images: Tensor, others: Tensor) -> tuple[float, float]:
    """Return the mean square error and the structural similarity of images."""
    return mse(images, others), ssim(images, others)


def run(variant: str, seed: int, case: Study, args: Any) -> dict[str, Any]:
    """Train one model, and return its figures."""
    train, validation, test = case.parts
    torch.manual_seed(seed)
    model = TrajectoryVAE((DIM,), DIM, **{**NETWORKS, **VARIANTS[variant]})
    start = time.process_time()
    chartae.fit(
        model,
        train,
        validation,
        epochs=args.epochs,
        batch_size=100,
        learning_rate=args.learning_rate,
        scheduler="cosine",
        seed=seed,
        progress=False,
    )
    row: dict[str, Any] = {"variant": variant, "seed": seed, "epochs": args.epochs}
    row |= {"features": args.features, "cpu_s": round(time.process_time() - start, 1)}
    found = model.trajectories(test)
    row["speed"] = float(spearmanr(found.speed, case.speed).statistic)
    row["delay"] = float(spearmanr(found.delay, case.delay).statistic)
    likelihood = model.log_likelihood(test, 100, seed=0)
    row["nats"] = -float(likelihood.log_prob.mean())
    row["effective"] = float(likelihood.effective_samples.mean())
    scale = torch.as_tensor(model.observation_model.scale)
    row["scale"] = float(scale.detach().mean())
    again = model.futures(test, test.times, DRAWS, how="best", noise=False).values.mean(0)
    row["reconstruction"] = float((again - test.x).square().sum(-1).mean())
    steps = range(1, test.x.shape[1])
    row["last"] = {k: extrapolated(model, case, k, test.x.shape[1] - 1) for k in steps}
    row["next"] = {k: extrapolated(model, case, k, k) for k in steps}
    return row


def line(row: dict[str, Any]) -> str:
    """Return the main figures of a run in one line."""
    last = [row["last"][k] for k in ("1", "3", "8")]

    def three(name: str) -> str:
        return " / ".join(f"{values[name]:.2f}" for values in last)

    return (
        f"{row['variant']:<12} {row['seed']}  speed {row['speed']:.2f} delay {row['delay']:.2f}  "
        f"last {three('error')}  resampled {three('resampled')}  carried {three('carried')}  "
        f"90 % {three('coverage')}  reconstruction {row['reconstruction']:.3f}  "
        f"nats {row['nats']:.1f} ({row['effective']:.0f})  {row['cpu_s']:.0f} s"
    )


def pictures(row: dict[str, Any]) -> str:
    """Return the figures of images of a run by the number of visits seen, as Fig. 5.3."""
    kinds = {"predicted": "image", "carried forward": "image_carried", "features": "image_true"}
    names = [f"{target}, {kind}" for target in ("next", "last") for kind in kinds]
    lines = ["| visits seen | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for visits in row["next"]:
        pairs = [row[target][visits][key] for target in ("next", "last") for key in kinds.values()]
        cells = [f"{1e3 * error:.1f}, {similar:.3f}" for error, similar in pairs]
        lines.append(f"| {visits} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with starmen.npz")
    parser.add_argument("--out", type=Path, required=True, help="folder for one file per run")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--features", choices=("pca", "vae"), default="pca")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--networks", choices=VAES, default="thesis", help="those of the VAE")
    parser.add_argument("--vae-epochs", type=int, default=50)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--quick", action="store_true", help="few epochs, default model only")
    args = parser.parse_args()
    if args.quick:
        args.epochs, args.vae_epochs, args.variants = 20, 1, ["default"]
    args.out.mkdir(parents=True, exist_ok=True)
    case = None
    for variant in args.variants:
        for seed in args.seeds:
            kind = args.features if args.features == "pca" else f"vae {args.networks}"
            label = f"{kind} {variant} {seed} {args.epochs}".replace(" ", "_")
            path = args.out / f"{label}.json"
            if not path.exists():
                given = args.features, args.networks, args.vae_epochs
                case = case or study(args.data, *given)
                write_text(path, json.dumps(run(variant, seed, case, args), indent=1))
            row = json.loads(path.read_text())
            print(line(row), pictures(row), sep="\n", flush=True)


if __name__ == "__main__":
    main()
