"""How many posteriors does the metric of a VAE need to sample well? (thesis Fig. 3.12 to 3.14)

A VAE with 16 latent dimensions and perceptrons is trained on a part of MNIST, and sampled by the
volume of its posterior metric with different numbers of centroids, chosen as medoids or at random,
and different lambda. The table has the Frechet distance between 2,000 samples and 2,000 test
images, in the features of a small classifier that is trained here: mean and standard deviation over
seeds of the choice and of the samples. "prior" is the distance of samples of the prior.

    python benchmarks/reproduce/centroids.py mnist.npz
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import chartae
from chartae.data import read_data
from chartae.evaluation import frechet_distance, train_classifier
from chartae.samplers import Sampler

SAMPLES = 2000
NUMBERS = (2, 10, 30, 100, 300, 1000)
LAMBDAS = (1e-4, 1e-3, 1e-2, 1e-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--train", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    started = time.perf_counter()
    with np.load(arguments.mnist, allow_pickle=False) as archive:
        test = torch.from_numpy(archive["x_test"][:SAMPLES] / 255.0).float()
    data = read_data(arguments.mnist).subset(np.arange(arguments.train))
    classifier = train_classifier(data.x, data.y, seed=0, accelerator="cpu")
    real = classifier.features(test)
    torch.manual_seed(0)
    model = chartae.VAE(data.input_shape, 16, likelihood="bernoulli")
    chartae.fit(model, data.x, epochs=arguments.epochs, seed=0, accelerator="cpu", progress=False)

    def distance(sampler: Sampler, seed: int) -> float:
        return frechet_distance(real, classifier.features(sampler.sample(SAMPLES, seed=seed)))

    def row(name: str, options: dict[str, Any]) -> None:
        found = []
        for seed in range(arguments.seeds):
            torch.manual_seed(seed)  # of a random choice
            sampler = chartae.VolumeSampler(model, **options).fit(data.x)
            found.append(distance(sampler, seed))
        spread = statistics.stdev(found) if len(found) > 1 else 0.0
        print(f"| {name} | {statistics.fmean(found):.1f} ± {spread:.1f} |", flush=True)

    print("| | Frechet distance |\n|---|---:|")
    prior = chartae.NormalSampler(model).fit(data.x)
    print(f"| prior | {distance(prior, 0):.1f} |")
    for selection in ("k-medoids", "random"):
        for number in NUMBERS:
            row(f"{number}, {selection}", {"num_centroids": number, "selection": selection})
    row("all", {"num_centroids": None})
    for value in LAMBDAS:
        row(f"1000, lambda {value}", {"num_centroids": 1000, "regularization": value})
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
