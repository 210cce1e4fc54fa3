"""Clusters of codes: k-means by Riemannian distances against k-means by straight lines.

Purity is the share of codes that are of their cluster's most frequent class. On these codes neither
way is better throughout. It takes about a minute and a half on a CPU core.
"""

from sklearn.cluster import KMeans

import chartae
from chartae.data import digits, disks_and_rings, few_per_class
from chartae.geometry import ConformalMetric, PosteriorMetric, kmeans
from chartae.randomness import seeded

SEEDS = range(3)


def main():
    shapes = disks_and_rings(180)
    rhvae = trained(chartae.RHVAE, shapes)
    compare("disks and rings, the RHVAE's metric", rhvae.metric, rhvae, shapes.x, shapes.y, 4)

    numbers = digits()
    vae = trained(chartae.VAE, numbers)
    posteriors = PosteriorMetric.from_model(vae, numbers.x, num_centroids=200)
    few, _ = few_per_class(numbers.y, 20, seed=0)
    for strength in (0.1, 0.25):
        metric = ConformalMetric.avoiding_the_void(posteriors, strength)
        name = f"digits, a VAE's posteriors, strength {strength}"
        compare(name, metric, vae, numbers.x[few], numbers.y[few], 10)


def trained(family, data):
    with seeded(0, family.__name__):
        model = family(data.input_shape, 2, likelihood="bernoulli")
    chartae.fit(model, data, epochs=100, seed=0, progress=False)
    return model


def compare(name, metric, model, x, classes, k):
    codes = model.encode(x).detach()
    print(name)
    for seed in SEEDS:
        flat = KMeans(k, n_init=1, random_state=seed).fit(codes.numpy())
        curved = kmeans(metric, codes, k, tolerance=1e-2, seed=seed)
        print(
            f"  seed {seed}: purity {purity(flat.labels_, classes):.3f} by straight lines, "
            f"{purity(curved.labels.numpy(), classes):.3f} by geodesics",
            flush=True,
        )


def purity(labels, classes):
    members = [classes[labels == label] for label in set(labels.tolist())]
    return sum(int(own.bincount().max()) for own in members) / len(classes)


if __name__ == "__main__":
    main()
