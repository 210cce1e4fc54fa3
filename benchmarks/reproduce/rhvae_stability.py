"""Does an RHVAE's training diverge, and does its metric collapse?

The trainings have the thesis' hyper-parameters and 10 seeds (each with another initialisation and
another subset of one class), for several sizes of the training set and of the latent space. The
table has the number of trainings that diverged, the largest loss, and the metric at the end:

* gap: median of log volume on the boundary of S = {|z| <= 2 max |c|} minus that at the codes, in
  nats;
* low: share of `VolumeSampler`'s latents whose volume is within a factor 2^(d/2) of that far from
  all codes;
* near: median distance from such a latent to the nearest code, divided by the median distance
  between nearest codes.

    python benchmarks/reproduce/rhvae_stability.py [--mnist mnist.npz] [--seeds 10] [--out FILE]

Without MNIST (an .npz of ``x_train`` and ``y_train``) it takes scikit-learn's digits.
"""

import argparse
import json
import math
import statistics
from pathlib import Path

import torch
from torch import Tensor

import chartae
from chartae.data import digits, read_data
from chartae.errors import DivergenceError

SETTINGS = [
    # (observations, latent dimension, likelihood, epochs)
    *[(10, d, "bernoulli", 300) for d in (2, 5, 10, 16)],
    *[(50, d, "bernoulli", 300) for d in (2, 5, 10, 16)],
    *[(200, d, "bernoulli", 60) for d in (2, 10, 16)],
    *[(500, d, "bernoulli", 40) for d in (2, 10, 16)],
    *[(50, d, "gaussian", 300) for d in (2, 10)],
]


def train(x: Tensor, latent_dim: int, likelihood: str, epochs: int, seed: int) -> dict[str, float]:
    """Train one model on x and return what became of it."""
    torch.manual_seed(seed)
    temperature = 0.8 if latent_dim == 2 else 1.5
    model = chartae.RHVAE(
        tuple(x.shape[1:]),
        latent_dim,
        temperature=temperature,
        likelihood=likelihood,
        encoder="thesis/mnist",
        decoder="thesis/mnist",
    )
    try:
        history = chartae.fit(
            model, x, epochs=epochs, batch_size=100, seed=seed, progress=False, accelerator="cpu"
        )
    except DivergenceError:
        return {"diverged": 1.0}
    return {
        "diverged": 0.0,
        "worst": max(history.train["loss"]),
        "loss": history.train["loss"][-1],
        **describe_metric(model, seed),
    }


@torch.no_grad()
def describe_metric(model: chartae.RHVAE, seed: int) -> dict[str, float]:
    """Return how much the model's metric separates the data from the low-density region."""
    metric = model.metric
    codes, d = metric.centroids, metric.dim
    direction = torch.randn(500, d, generator=torch.Generator().manual_seed(seed))
    radius = 2.0 * codes.norm(dim=-1).max()
    rim = radius * direction / direction.norm(dim=-1, keepdim=True)
    gap = metric.log_volume(rim).median() - metric.log_volume(codes).median()
    latents = chartae.VolumeSampler(model, target="volume").sample_latents(200, seed=seed)
    floor = -0.5 * d * math.log(metric.regularization)
    low = (floor - metric.log_volume(latents) < 0.5 * d * math.log(2.0)).float().mean()
    between = torch.cdist(codes, codes).fill_diagonal_(math.inf).amin(1).median()
    near = torch.cdist(latents, codes).amin(1).median() / between
    return {"gap": float(gap), "low": float(low), "near": float(near)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("rhvae_stability.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = read_data(arguments.mnist, x_key="x_train") if arguments.mnist else digits()
    rows = []
    print("| N | d | likelihood | epochs | diverged | worst loss | last loss | gap | low | near |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for n, d, likelihood, epochs in SETTINGS:
        runs = []
        for seed in range(arguments.seeds):
            one_class = data.of_class("2").x if n < 170 or arguments.mnist else data.x
            order = torch.randperm(
                len(one_class), generator=torch.Generator().manual_seed(1000 + seed)
            )
            runs.append(train(one_class[order[:n]], d, likelihood, epochs, seed))
        done = [run for run in runs if not run["diverged"]]
        median = {k: statistics.median(run[k] for run in done) for k in done[0]} if done else {}
        diverged, worst = len(runs) - len(done), max((run["worst"] for run in done), default=0.0)
        rows.append({"n": n, "d": d, "likelihood": likelihood, "epochs": epochs, "runs": runs})
        print(
            f"| {n} | {d} | {likelihood} | {epochs} | {diverged} of {len(runs)} | {worst:.0f} "
            f"| {median.get('loss', math.nan):.1f} | {median.get('gap', math.nan):.1f} "
            f"| {median.get('low', math.nan):.3f} | {median.get('near', math.nan):.2f} |",
            flush=True,
        )
        arguments.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
