"""Do coordinates of the posterior metric separate factors better than codes? (thesis, conclusion)

VAEs of several beta learn sprites with known factors. Their codes are compared with geodesic
normal coordinates: the velocity, at the Frechet mean of the codes, of the geodesic to each code,
for the metric of the posterior covariances. MIG, SAP and DCI say how far each coordinate stands for
one factor; the axes are those of the codes in both. "principal" are the principal axes.

    python benchmarks/reproduce/disentanglement.py
"""

import argparse
import time

import torch
from torch import Tensor

import chartae
from chartae.data import sprites
from chartae.evaluation import dci, mutual_information_gap, sap
from chartae.geometry import PosteriorMetric, frechet_mean, logarithmic_map


def normal_coordinates(model: chartae.VAE, x: Tensor, codes: Tensor) -> Tensor:
    """Return geodesic normal coordinates of codes, ``(N, d)``."""
    metric = PosteriorMetric.from_model(model, x, num_centroids=200)
    centre = frechet_mean(metric, codes[:200])
    with torch.no_grad():
        return logarithmic_map(metric, centre.expand_as(codes), codes, num_points=8)


def principal(z: Tensor) -> Tensor:
    centred = z - z.mean(0)
    return centred @ torch.linalg.svd(centred, full_matrices=False).Vh.T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--latent-dim", type=int, default=6)
    arguments = parser.parse_args()
    started = time.perf_counter()
    print("| beta | seed | coordinates | MIG | SAP | disentanglement | completeness |")
    print("|---|---|---|---:|---:|---:|---:|")
    for beta in (1.0, 4.0):
        for seed in range(arguments.seeds):
            data = sprites(arguments.samples, size=16, seed=seed)
            torch.manual_seed(seed)
            model = chartae.BetaVAE(
                (16, 16), arguments.latent_dim, beta=beta, likelihood="bernoulli"
            )
            options = {"epochs": arguments.epochs, "seed": seed, "progress": False}
            chartae.fit(model, data.x, accelerator="cpu", **options)
            codes = model.encode(data.x).detach()
            normal = normal_coordinates(model, data.x, codes)
            for name, z in {
                "codes": codes,
                "principal axes of codes": principal(codes),
                "normal coordinates": normal,
                "principal normal coordinates": principal(normal),
            }.items():
                found = dci(z, data.factors)
                print(
                    f"| {beta:g} | {seed} | {name} | {mutual_information_gap(z, data.factors):.3f} "
                    f"| {sap(z, data.factors):.3f} | {found.disentanglement:.3f} "
                    f"| {found.completeness:.3f} |",
                    flush=True,
                )
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
