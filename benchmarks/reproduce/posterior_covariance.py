"""What posteriors with full or low-rank covariances gain on MNIST, and a learned mixture prior.

One VAE for each kind of covariance and seed, with equal networks, data and epochs, the best epoch
on held-out images kept. For each:

* -ELBO and -log p(x) on test images, the latter with importance samples of the own posterior, and
  their difference, the KL from the posterior to the true one;
* Frechet distance to test images of samples of the prior, and of samples of the volume of the
  posterior metric (`VolumeSampler`), in the features of a classifier trained here;
* median absolute correlation of two coordinates under a posterior;
* accuracy of the clusters of a mixture prior, each named after its most frequent digit.

    python benchmarks/reproduce/posterior_covariance.py --data mnist.npz
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import chartae
from chartae.data import read_data
from chartae.evaluation import Extractor, frechet_distance, train_classifier

LATENT_DIM, HIDDEN = 16, [256]
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "diagonal": ("VAE", {}),
    "low-rank, 1": ("VAE", {"posterior_covariance": "low-rank", "posterior_rank": 1}),
    "low-rank, 4": ("VAE", {"posterior_covariance": "low-rank", "posterior_rank": 4}),
    "full": ("VAE", {"posterior_covariance": "full"}),
    "mixture prior": ("MixtureVAE", {"num_components": 20}),
}


def correlation(model: Any, x: Tensor) -> float:
    """Return the median absolute correlation of two coordinates under the posteriors of x."""
    posterior = model.posterior(x)
    covariance = posterior.covariance
    if covariance.dim() == 2:
        return 0.0
    deviation = posterior.stddev
    matrices = covariance / (deviation[:, :, None] * deviation[:, None])
    rows, columns = torch.tril_indices(LATENT_DIM, LATENT_DIM, -1)
    return float(matrices[:, rows, columns].abs().median())


def accuracy(model: Any, x: Tensor, y: Tensor) -> float:
    """Return the share of digits in clusters named after them; NaN without clusters."""
    if not isinstance(model, chartae.MixtureVAE):
        return float("nan")
    counts = torch.zeros(model.num_components, 10)
    cluster = model.cluster_probabilities(x).argmax(1)
    counts.index_put_((cluster, y), torch.ones(len(y)), accumulate=True)
    return float(counts.amax(1).sum() / len(y))


@torch.no_grad()
def figures(model: Any, train: Tensor, x: Tensor, y: Tensor, features: Extractor) -> Tensor:
    """Return the columns of the table."""
    few = x[:1000]
    nll = -model.log_likelihood(few, 500, seed=0).mean()
    bound = -model.elbo(few, 20, seed=0).mean()
    prior = chartae.NormalSampler if type(model) is chartae.VAE else chartae.VampSampler
    draws = [
        prior(model).sample(5000, seed=0),
        chartae.VolumeSampler(model).fit(train).sample(5000, seed=0),
    ]
    real = features(x)
    distances = [frechet_distance(real, features(draw)) for draw in draws]
    rest = [correlation(model, few), accuracy(model, x, y)]
    return torch.tensor([bound, nll, bound - nll, *distances, *rest])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="mnist.npz")
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--train", type=int, default=5_000, help="training images")
    parser.add_argument("--epochs", type=int, default=80)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data, test = (read_data(arguments.data, x_key=f"x_{part}") for part in ("train", "test"))
    train, held_out = data.x[: arguments.train], data.x[-2000:]
    features = train_classifier(data.x[:-2000], data.y[:-2000], epochs=3, seed=0).features
    chosen = torch.randperm(len(test.x), generator=torch.Generator().manual_seed(0))[:5000]
    print("| model | seed | epochs | -ELBO | -log p(x) | KL | prior | volume | corr. | clusters |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in arguments.models:
        class_name, options = MODELS[name]
        for seed in range(arguments.seeds):
            torch.manual_seed(seed)
            networks = {"name": "mlp", "hidden": HIDDEN}
            model = getattr(chartae, class_name)(
                (28, 28), LATENT_DIM, encoder=networks, decoder=networks, likelihood="bernoulli",
                **options,
            )  # fmt: skip
            history = chartae.fit(
                model, train, held_out, epochs=arguments.epochs, kl_warmup=5, seed=seed,
                progress=False,
            )  # fmt: skip
            row = figures(model, train, test.x[chosen], test.y[chosen], features).tolist()
            cells = " | ".join(f"{value:.2f}" for value in row)
            print(f"| {name} | {seed} | {history.best_epoch + 1} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
