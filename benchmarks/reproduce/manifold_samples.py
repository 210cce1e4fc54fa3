"""One VAE of MNIST, sampled from its prior, a mixture and its manifold (thesis Table 3.1).

A VAE with 16 latent dimensions and perceptrons is trained on 50,000 images, its epoch chosen on the
other 10,000. Latents drawn in each way are decoded to their means, as in the thesis, and compared
with the 10,000 test images in the features of a small convolutional classifier trained here:

* frechet: Frechet distance of the features, lower is better;
* precision, recall: by 3 nearest neighbours in feature space (Kynkaanniemi et al., 2019), against
  2,000 test images;
* classes: exp of the entropy of the predicted classes, at most 10;
* copying: median distance to the nearest reconstruction of a training image, over that of
  reconstructions of test images; 1 is no copying, 0 is copying.

The manifold is sampled around its codes and by its volume (`VolumeSampler`), by the thesis' chains,
and, to see what chains that never end would give, exactly: by importance, from the
mixture that the uniform distribution becomes where its
bumps do not overlap. "ess" is the effective share of these proposals: at a few per cent or less,
the row is a sketch.

    python benchmarks/reproduce/manifold_samples.py --mnist mnist.npz --seeds 3 --folder runs
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import chartae
from chartae.data import read_data
from chartae.evaluation import Classifier, frechet_distance, precision_recall, train_classifier
from chartae.geometry import Chain, ManifoldDensity, PosteriorMetric, Reach, hmc
from chartae.randomness import make_generator
from chartae.report import image_grid
from chartae.samplers import Sampler

LATENT_DIM, VALIDATION, CENTROIDS = 16, 10_000, 1000
CHAIN = {"num_steps": 100, "num_leapfrog": 10, "step_size": 0.01, "num_warmup": 0}  # thesis 3.7.2


def train_vae(x: Tensor, validation: Tensor, epochs: int, seed: int) -> chartae.VAE:
    """Return a VAE with the weights of its best epoch on the validation set."""
    torch.manual_seed(seed)
    model = chartae.VAE((1, 28, 28), LATENT_DIM, likelihood="bernoulli")
    chartae.fit(
        model,
        x,
        validation,
        epochs=epochs,
        batch_size=200,
        scheduler="cosine",
        patience=10,
        seed=seed,
        accelerator="cpu",
        progress=False,
    )
    return model


class Judge:
    """What samples are compared with: test images, and training images as the model knows them."""

    def __init__(self, classifier: Classifier, test: Tensor) -> None:
        self.classifier, self.real = classifier, classifier.features(test)

    def know(self, reconstructions: Tensor, of_test: Tensor) -> None:
        """Take a model's reconstructions of training and of test images."""
        self.known = reconstructions.flatten(1)
        self.unseen = self._distance(of_test)

    def _distance(self, x: Tensor) -> float:
        """Return the median distance of 1,000 images to the nearest training reconstruction."""
        pieces = x[:1000].flatten(1).split(100)
        nearest = [torch.cdist(piece, self.known).amin(1) for piece in pieces]
        return float(torch.cat(nearest).median())

    def scores(self, x: Tensor) -> dict[str, float]:
        """Return the figures of images ``(n, 1, 28, 28)``."""
        features = self.classifier.features(x)
        labels = self.classifier.probabilities(x).argmax(1)
        balls = precision_recall(self.real[:2000], features[:2000], k=3)
        return {
            "frechet": frechet_distance(self.real, features),
            "precision": balls.precision,
            "recall": balls.recall,
            "classes": float(Categorical(labels.bincount(minlength=10) / len(x)).entropy().exp()),
            "copying": self._distance(x) / self.unseen,
        }


def exact_uniform(metric: PosteriorMetric, n: int, seed: int) -> tuple[Tensor, float]:
    r"""Draw from the uniform distribution of a metric by importance resampling.

    A bump that overlaps no other is, where the void's lambda is negligible, the density
    :math:`N(\mu_i, (\rho^2/d) \Sigma_i)` up to a constant that is the same for all: the proposal is
    their equal mixture.

    Returns:
        Latents ``(n, d)``, and the effective share of the 3 n proposals.
    """
    scale = metric.rho / math.sqrt(metric.dim) * metric.variances.sqrt()
    bumps = Independent(Normal(metric.means, scale), 1)
    even = Categorical(torch.ones(len(metric.means)))
    proposal = MixtureSameFamily(even, bumps)
    generator = make_generator(seed, "importance")
    index = torch.randint(len(metric.means), (3 * n,), generator=generator)
    noise = torch.randn(3 * n, metric.dim, generator=generator)
    z = metric.means[index] + scale[index] * noise
    density = ManifoldDensity(metric)
    pieces = [density.log_prob(piece) - proposal.log_prob(piece) for piece in z.split(200)]
    weights = torch.cat(pieces).double().softmax(0)
    kept = torch.multinomial(weights, n, replacement=True, generator=generator)
    return z[kept], float(1.0 / weights.square().sum() / len(z))


def draws(
    model: chartae.VAE, x: Tensor, n: int, seed: int
) -> dict[str, Callable[[], tuple[Tensor, dict[str, float]]]]:
    """Return the ways to draw n latents; each also gives the diagnostics it has."""
    posterior = model.posterior(x)
    generator = make_generator(seed, "posterior")
    some = torch.randperm(len(x), generator=generator)[:n]
    noise = torch.randn(n, LATENT_DIM, generator=generator)

    def told(chain: Chain) -> dict[str, float]:
        return {"acceptance": float(chain.acceptance.mean()), "r_hat": float(chain.r_hat.max())}

    def volume() -> tuple[Tensor, dict[str, float]]:
        sampler = chartae.VolumeSampler(model, target="volume").fit(x)
        z = sampler.sample_latents(n, seed=seed)
        assert sampler.diagnostics is not None
        return z, told(sampler.diagnostics)

    def published() -> tuple[Tensor, dict[str, float]]:
        metric = PosteriorMetric.from_model(model, x, num_centroids=CENTROIDS, rho="euclidean")
        generator = make_generator(seed, "published")
        start = torch.randint(len(metric.means), (n,), generator=generator)
        chain = hmc(ManifoldDensity(metric), metric.means[start], **CHAIN, generator=generator)
        return chain.final, told(chain)

    def exact(rho: Reach) -> tuple[Tensor, dict[str, float]]:
        metric = PosteriorMetric.from_model(model, x, num_centroids=CENTROIDS, rho=rho)
        z, share = exact_uniform(metric, n, seed)
        return z, {"rho": metric.rho, "ess": share}

    def fitted(sampler: Sampler) -> tuple[Tensor, dict[str, float]]:
        return sampler.fit(x).sample_latents(n, seed=seed), {}

    return {
        "training codes (reconstructions)": lambda: (posterior.mean[some], {}),
        "posteriors of training images": lambda: (
            posterior.mean[some] + posterior.stddev[some] * noise,
            {},
        ),
        "manifold, the codes (default)": lambda: fitted(chartae.VolumeSampler(model)),
        "manifold, the volume": volume,
        "manifold, the thesis' chains": published,
        "manifold, exact, the thesis' rho": lambda: exact("euclidean"),
        "manifold, exact, isolated bumps": lambda: exact("isolated"),
        "mixture of 10": lambda: fitted(chartae.MixtureSampler(model)),
        "prior": lambda: fitted(chartae.NormalSampler(model)),
    }


def classifier_of(folder: Path, x: Tensor, y: Tensor, epochs: int) -> Classifier:
    """Return the classifier kept in the folder, or train it and keep it."""
    home = folder / "classifier"
    if not home.exists():
        train_classifier(x, y, epochs=epochs, seed=0, accelerator="cpu").save_pretrained(home)
    classifier: Classifier = chartae.load(home)
    return classifier.eval()


def vae_of(folder: Path, x: Tensor, validation: Tensor, epochs: int, seed: int) -> chartae.VAE:
    """Return the VAE kept in the folder, or train it and keep it."""
    home = folder / f"vae_{seed}"
    if not home.exists():
        train_vae(x, validation, epochs, seed).save_pretrained(home)
    model: chartae.VAE = chartae.load(home)
    return model.eval()


def table(runs: list[dict[str, dict[str, float]]]) -> str:
    """Return mean and standard deviation over the seeds of every figure, as Markdown."""
    figures = ("frechet", "precision", "recall", "classes", "copying")
    lines = [f"| samples | {' | '.join(figures)} | chain |", "|---" * (len(figures) + 2) + "|"]
    for name in runs[0]:
        cells = [name]
        for figure in figures:
            values = [run[name][figure] for run in runs]
            digits = 1 if figure in ("frechet", "classes") else 2
            spread = f" ± {statistics.stdev(values):.{digits}f}" if len(runs) > 1 else ""
            cells.append(f"{statistics.mean(values):.{digits}f}{spread}")
        rest = {key: [run[name][key] for run in runs] for key in runs[0][name]}
        cells.append(
            ", ".join(
                f"{key} {statistics.mean(values):.3g}"
                for key, values in rest.items()
                if key not in (*figures, "seconds")
            )
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, required=True, help="an .npz with x_train and x_test")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=10_000, help="latents of each kind")
    parser.add_argument("--epochs", type=int, default=30, help="of the VAE")
    parser.add_argument("--quick", action="store_true", help="one seed, few epochs and samples")
    parser.add_argument("--folder", type=Path, default=Path("manifold_samples"), help="for models")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.samples, arguments.epochs = 1, 200, 2
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    arguments.folder.mkdir(parents=True, exist_ok=True)

    train = read_data(arguments.mnist, x_key="x_train")
    test = read_data(arguments.mnist, x_key="x_test", y_key="y_test")
    x, unseen = train.x[:, None], test.x[:, None]
    with torch.enable_grad():
        classifier = classifier_of(arguments.folder, x, train.y, 2 if arguments.quick else 5)
    judge = Judge(classifier, unseen)
    accuracy = (classifier.probabilities(unseen).argmax(1) == test.y).float().mean()
    print(f"The classifier's test accuracy is {accuracy:.4f}.")

    runs = []
    x, validation = x[:-VALIDATION], x[-VALIDATION:]
    for seed in range(arguments.seeds):
        with torch.enable_grad():
            model = vae_of(arguments.folder, x, validation, arguments.epochs, seed)
        judge.know(model.decode(model.encode(x)), model.decode(model.encode(unseen[:1000])))
        samples = {"test images": unseen[:100]}
        run = {"training images": judge.scores(x[: arguments.samples])}
        for name, draw in draws(model, x, arguments.samples, seed).items():
            start = time.perf_counter()
            z, diagnostics = draw()
            seconds = time.perf_counter() - start
            images = model.decode(z, batch_size=1000)
            samples[name] = images[:100]
            run[name] = judge.scores(images) | diagnostics | {"seconds": seconds}
            print(f"seed {seed}, {name}: {run[name]}", flush=True)
        runs.append(run)
        image_grid(samples).savefig(arguments.folder / f"samples_{seed}.png", dpi=110)
    print(table(runs))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(runs), encoding="utf-8")


if __name__ == "__main__":
    main()
