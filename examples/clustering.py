"""Clusters of codes: k-means by Riemannian distances against k-means in the plane.

Runs in about a minute on two cores. The purity of a clustering is the share of codes that are of
their cluster's most frequent class.
"""

import torch

import chartae
from chartae.data import digits, disks_and_rings, few_per_class
from chartae.geometry import ConformalMetric, EuclideanMetric, Metric, PosteriorMetric
from chartae.geometry.statistics import kmeans


def purity(labels: torch.Tensor, classes: torch.Tensor) -> float:
    counts = torch.stack([classes[labels == label].bincount().max() for label in labels.unique()])
    return float(counts.sum()) / len(classes)


def compare(name: str, metric: Metric, codes: torch.Tensor, classes: torch.Tensor, k: int) -> None:
    for seed in range(3):
        flat = kmeans(EuclideanMetric(2), codes, k, num_restarts=5, seed=seed)
        curved = kmeans(metric, codes, k, seed=seed)
        print(
            f"{name}, seed {seed}: purity {purity(flat.labels, classes):.2f} by straight lines, "
            f"{purity(curved.labels, classes):.2f} by geodesics"
        )


def main() -> None:
    torch.manual_seed(0)
    shapes = disks_and_rings(180)
    model = chartae.RHVAE(shapes.input_shape, latent_dim=2, likelihood="bernoulli")
    chartae.fit(model, shapes, epochs=200, seed=0, progress=False)
    compare("disks and rings, RHVAE", model.metric, model.encode(shapes.x).detach(), shapes.y, 4)

    data = digits()
    model = chartae.VAE(data.input_shape, latent_dim=2, likelihood="bernoulli")
    chartae.fit(model, data, epochs=100, seed=0, progress=False)
    few, _ = few_per_class(data.y, 20, seed=0)
    x, classes = data.x[few], data.y[few]
    posterior = PosteriorMetric.from_model(model, data.x, num_centroids=200)
    metric = ConformalMetric.avoiding_the_void(posterior, strength=0.5)
    compare("digits, VAE", metric, model.encode(x).detach(), classes, 10)


if __name__ == "__main__":
    main()
