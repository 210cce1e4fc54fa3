"""Thesis chapter 6, reduced: joint likelihoods (Table 6.1) and imputation (Figs 6.3, 6.13).

Every model has the same networks, data, budget and likelihood, and keeps its best epoch on held-out
individuals. The likelihood is a normal of variance 1 with means in [0, 1] as in the thesis, or one
whose variance is learned (``--learned-scale``). For each:

* -log p(x_1, ..., x_T) / T on test individuals with 100 importance samples, by each proposal that
  the model has, with the constant D/2 log(2 pi) and without it, and the effective sample size;
* the mean square error (times 1,000) of what was hidden in test individuals: shares of visits, or
  half of the visits and shares of pixels. Models are trained on individuals with the same shares
  hidden (``--hidden``). For models with several visits in one latent: the draw that fits what was
  observed best (``best``), the mean of draws by their weights (``mean``), and one draw from one
  visit (``naive``).

Each run is one JSON file, so that a run that was stopped goes on where it was.

    python benchmarks/reproduce/flow_likelihoods.py --data ../shared/data --out runs --quick
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

import chartae
from chartae.atomic import write_text
from chartae.data import Sequences, color_changes, rotations
from chartae.evaluation import hidden_error
from chartae.longitudinal import SEQUENCE_MODELS, SequenceModel

LATENT_DIM = 16
NETWORKS: dict[str, Any] = {
    "encoder": {"name": "mlp", "hidden": [512, 128]},
    "decoder": {"name": "mlp", "hidden": [128, 512]},
}
PUBLISHED = {"name": "gaussian", "scale": 1.0, "link": "sigmoid"}
THESIS: dict[str, Any] = {"inference": "visit", "length_normalised": True}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "VAE": ("visitvae", {}),
    "VAMP": ("visitvae", {"model": "vamp"}),
    "TVAE (0)": ("topographicvae", {"coherence": "none"}),
    "TVAE (short)": ("topographicvae", {"coherence": "short"}),
    "TVAE (part)": ("topographicvae", {"coherence": "part"}),
    "TVAE (half)": ("topographicvae", {"coherence": "half"}),
    "BubbleVAE": ("bubblevae", {}),
    "GPVAE (Cauchy)": ("gpvae", {"kernel": "cauchy"}),
    "GPVAE (rbf)": ("gpvae", {"kernel": "rbf"}),
    "GPVAE (diffusion)": ("gpvae", {"kernel": "diffusion"}),
    "GPVAE (matern)": ("gpvae", {"kernel": "matern"}),
    "chain, thesis": ("flowvae", {"flow": "chain", **THESIS}),
    "chain": ("flowvae", {"flow": "chain", "inference": "visit"}),
    "time, visit": ("flowvae", {"inference": "visit"}),
    "time": ("flowvae", {}),
    "time, VAMP": ("flowvae", {"prior": "vamp", "num_pseudo_inputs": 100}),
    "time, IAF": ("flowvae", {"posterior_flows": 2}),
    "ode": ("flowvae", {"flow": "ode"}),
}
STEPS = {"topographicvae", "bubblevae"}
"""Models that need the number of steps."""
HIDDEN: dict[str, dict[str, float]] = {
    "visits .2": {"visits": 0.2},
    "visits .4": {"visits": 0.4},
    "visits .6": {"visits": 0.6},
    "visits .7": {"visits": 0.7},
    "pixels .2": {"visits": 0.5, "features": 0.2},
    "pixels .4": {"visits": 0.5, "features": 0.4},
    "pixels .6": {"visits": 0.5, "features": 0.6},
}
IMPUTERS = ["VAE", "TVAE (half)", "BubbleVAE", "GPVAE (Cauchy)", "chain, thesis", "time"]


def starmen(folder: Path) -> Sequences:
    """Return 1,000 individuals with 10 visits at their own times, pooled to 32 x 32."""
    stored = np.load(folder / "starmen.npz", allow_pickle=False)
    x = torch.from_numpy(stored["x"]).float().flatten(0, 1)[:, None] / 255.0
    return Sequences(avg_pool2d(x, 2)[:, 0].unflatten(0, (-1, 10)), times=stored["time"])


def sprites(folder: Path) -> Sequences:
    """Return the 1,296 characters with 8 frames, pooled to 32 x 32."""
    stored = np.load(folder / "sprites_1296.npz", allow_pickle=False)
    x = np.concatenate([stored["x_train"], stored["x_test"]])
    frames = torch.from_numpy(x).float().movedim(-1, 2).flatten(0, 1) / 255.0
    return Sequences(avg_pool2d(frames, 2).unflatten(0, (-1, 8)), times=torch.arange(8.0))


def mnist(make: Callable[..., Sequences]) -> Callable[[Path], Sequences]:
    """Return a reader of 1,000 sequences made from digits."""

    def read(folder: Path) -> Sequences:
        stored = np.load(folder / "mnist.npz", allow_pickle=False)
        return make(stored["x_train"][:1000])

    return read


SETS: dict[str, Callable[[Path], Sequences]] = {
    "starmen": starmen,
    "rotMNIST": mnist(rotations),
    "colorMNIST": mnist(color_changes),
    "sprites": sprites,
}


def build(
    model: str, data: Sequences, likelihood: str | dict[str, Any], **changes: Any
) -> SequenceModel:
    """Return an untrained model for the data, by its name in `MODELS`, with arguments changed."""
    name, options = MODELS[model]
    options = {"latent_dim": LATENT_DIM, **options, **changes}
    steps = data.x.shape[1]
    if name in STEPS:
        options = {"num_steps": steps, **options}
    if model.startswith("chain"):  # of inverse autoregressive flows
        flow = {"name": "chain", "num_times": steps, **changes.get("flow", {})}
        options = {**options, "flow": flow}
    return SEQUENCE_MODELS[name](data.input_shape, likelihood=likelihood, **NETWORKS, **options)


def likelihoods(model: SequenceModel, test: Sequences, num_samples: int) -> dict[str, Any]:
    """Return the estimates of each proposal: nats per visit, and effective sample sizes."""
    found: dict[str, Any] = {}
    for proposal in model.proposals:
        estimate = model.log_likelihood(test, num_samples, proposal=proposal, seed=0)
        found[proposal] = {
            "nats": estimate.per_visit(),
            "without": estimate.per_visit(constant=False),
            "ess": float(estimate.effective_samples.mean()),
        }
    return found


def errors(model: SequenceModel, test: Sequences, seen: Sequences) -> dict[str, float]:
    """Return mean square errors (times 1,000) of what was hidden."""
    found = {}
    for name, how, count in (("best", "best", 16), ("mean", "resample", 16), ("naive", "naive", 1)):
        draws = model.impute(seen, how=how, num_draws=count, seed=0)
        found[name] = 1e3 * hidden_error(draws, test, seen)
    return found


def run(name: str, model_name: str, hidden: str, seed: int, args: Any) -> dict[str, Any]:
    """Train one model on one set, and return its figures."""
    data = SETS[name](args.data)
    if model_name.startswith("chain"):  # it knows steps only, as in the thesis
        data = Sequences(data.x, times=torch.arange(float(data.x.shape[1])))
    train, validation, test = data.split((0.7, 0.2, 0.1), seed=0)
    seen = test
    if hidden:
        train, validation, seen = (
            part.hidden(**HIDDEN[hidden], seed=number)
            for number, part in enumerate((train, validation, test))
        )
    torch.manual_seed(seed)
    model = build(model_name, data, "gaussian" if args.learned_scale else PUBLISHED)
    start = time.process_time()
    history = chartae.fit(
        model,
        train,
        validation,
        epochs=args.epochs,
        batch_size=64,
        seed=seed,
        progress=False,
    )
    row: dict[str, Any] = {
        "set": name,
        "model": model_name,
        "hidden": hidden,
        "seed": seed,
        "epochs": args.epochs,
        "scale": "learned" if args.learned_scale else 1.0,
        "cpu_s": round(time.process_time() - start, 1),
        "loss": min(history.validation["loss"]),
    }
    if hidden:
        return row | errors(model, test, seen)
    return row | likelihoods(model, test, args.samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the .npz files")
    parser.add_argument("--out", type=Path, required=True, help="folder for one file per run")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--hidden", nargs="*", default=[], choices=HIDDEN)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--learned-scale", action="store_true", help="learn the variance")
    parser.add_argument("--quick", action="store_true", help="two epochs, ten samples")
    args = parser.parse_args()
    if args.quick:
        args.epochs, args.samples = 12, 10
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.sets:
        for hidden in args.hidden or [""]:
            for model in args.models:
                for seed in args.seeds:
                    scale = "learned" if args.learned_scale else "published"
                    label = "_".join((name, model, hidden, str(seed), str(args.epochs), scale))
                    path = args.out / f"{label.replace(' ', '-')}.json"
                    if not path.exists():
                        row = run(name, model, hidden, seed, args)
                        write_text(path, json.dumps(row, indent=1))
                    print(json.dumps(json.loads(path.read_text())), flush=True)


if __name__ == "__main__":
    main()
