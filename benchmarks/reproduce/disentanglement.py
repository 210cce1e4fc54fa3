"""Do coordinates of the posterior metric separate factors better than codes? (thesis, conclusion)

VAEs with beta = 1 and 4 learn sprites with known factors. Their codes are compared with isometric
coordinates: shortest paths in a graph of nearest neighbours, whose edges have the length of the
metric of the posterior covariances, and the vectors whose Euclidean distances are closest to these
(classical scaling). They exist for every model, where logarithmic maps of far points do not. The
same with Euclidean edges is isomap, and shows what the metric adds.

Distances do not determine axes. So coordinates are shown with two choices of them: the rotation
that brings them closest to the codes, and their principal axes. MIG, SAP and DCI say how far each
coordinate stands for one factor.

    python benchmarks/reproduce/disentanglement.py
"""

import argparse
import statistics
import time

import numpy as np
import torch
from scipy.linalg import orthogonal_procrustes
from sklearn.manifold import ClassicalMDS
from torch import Tensor

import chartae
from chartae.data import Sprites, sprites
from chartae.evaluation import active_units, dci, mutual_information_gap, sap
from chartae.geometry import EuclideanMetric, Metric, PosteriorMetric
from chartae.geometry.paths.graph import graph_distances

LEVELS = (2, 4, 4, 6, 6)
SIZE = 16
HIDDEN = (256, 128)
FIGURES = ("MIG", "SAP", "disentanglement", "completeness", "informativeness")


def train(data: Sprites, beta: float, latent_dim: int, epochs: int, seed: int) -> chartae.VAE:
    torch.manual_seed(seed)
    model = chartae.BetaVAE(
        (SIZE, SIZE),
        latent_dim,
        beta=beta,
        likelihood="bernoulli",
        encoder={"name": "mlp", "hidden": HIDDEN},
        decoder={"name": "mlp", "hidden": HIDDEN[::-1]},
    )
    options = {"batch_size": 100, "learning_rate": 1e-3, "seed": seed, "progress": False}
    chartae.fit(model, data.x, epochs=epochs, accelerator="cpu", **options)
    return model


def isometric(metric: Metric, codes: Tensor) -> Tensor:
    """Return coordinates whose distances are closest to those of the graph, ``(N, d)``."""
    distances, _ = graph_distances(metric, codes)
    embedding = ClassicalMDS(codes.shape[1], metric="precomputed").fit_transform(distances)
    return torch.from_numpy(np.ascontiguousarray(embedding))


def principal(z: Tensor) -> Tensor:
    """Return coordinates along principal axes."""
    centred = z - z.mean(0)
    return centred @ torch.linalg.svd(centred, full_matrices=False).Vh.T


def rotated(z: Tensor, codes: Tensor) -> Tensor:
    """Return coordinates in the axes that bring them closest to the codes."""
    centred = (codes - codes.mean(0)).double()
    rotation, _ = orthogonal_procrustes(z.numpy(), centred.numpy())
    return z @ torch.from_numpy(rotation)


def coordinates(model: chartae.VAE, x: Tensor) -> dict[str, Tensor]:
    codes = model.encode(x).detach()
    learned = PosteriorMetric.from_model(model, x, num_centroids=len(x))
    isomap = isometric(EuclideanMetric(codes.shape[1]), codes)
    metric = isometric(learned, codes)
    return {
        "codes": codes,
        "isomap": rotated(isomap, codes),
        "metric": rotated(metric, codes),
        "codes, principal axes": principal(codes),
        "isomap, principal axes": principal(isomap),
        "metric, principal axes": principal(metric),
    }


def scores(z: Tensor, factors: Tensor) -> list[float]:
    found = dci(z, factors)
    informed = found.disentanglement, found.completeness, found.informativeness
    return [mutual_information_gap(z, factors), sap(z, factors), *informed]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--latent-dim", type=int, default=6)
    arguments = parser.parse_args()
    started = time.perf_counter()
    data = sprites(size=SIZE, levels=LEVELS)
    levels = ", ".join(f"{n} of {name}" for n, name in zip(LEVELS, data.names, strict=True))
    print(f"{len(data)} sprites of {SIZE} x {SIZE}: {levels}")
    print("| beta | coordinates | " + " | ".join(FIGURES) + " |")
    print("|---|---|" + "---:|" * len(FIGURES))
    for beta in (1.0, 4.0):
        found: dict[str, list[list[float]]] = {}
        active = []
        for seed in range(arguments.seeds):
            model = train(data, beta, arguments.latent_dim, arguments.epochs, seed)
            active.append(active_units(model, data.x))
            for name, z in coordinates(model, data.x).items():
                found.setdefault(name, []).append(scores(z, data.factors))
        for name, rows in found.items():
            columns = zip(*rows, strict=True)
            cells = [f"{statistics.fmean(c):.3f} ± {statistics.pstdev(c):.3f}" for c in columns]
            print(f"| {beta:g} | {name} | " + " | ".join(cells) + " |", flush=True)
        print(f"active units with beta = {beta:g}: {active}", flush=True)
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
