"""Test log-likelihoods on binarized MNIST, beside the published ones.

Every model gets the networks of Tomczak and Welling (2018) without their gates, 784-300-300-40 and
back with ReLU; Adam with a learning rate of 5e-4 and batches of 100; a KL warm-up over the first
epochs; and early stopping on 2,000 images of the validation set. All have the same budget: so many
epochs, and at most so many minutes of them; the table says what each one used. log p(x) is
estimated on test images spread over the test set, which is sorted by digit, with importance samples
from the model's own posterior.

An RHVAE's metric is that of its whole training set, far too many centroids for a million samples;
for the estimate it is fixed anew on 500 training images.

One JSON for each model, and a checkpoint, are kept in the output folder: an interrupted run goes on
where it was, a finished one only prints its table.

    python benchmarks/reproduce/density_estimation.py --data binarized_mnist.npz --out density
    (add `--models IWAE` for one of them)

A reduced Table 1.1, in which all models take all epochs they need:

    python benchmarks/reproduce/density_estimation.py --data binarized_mnist.npz --out small \\
        --models VAE HVAE RHVAE --train 2000 --epochs 150 --patience 25 --test 500 --samples 200
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import chartae
from chartae.data import read_data
from chartae.models import VariationalAutoencoder
from chartae.training import Callback, History

LATENT_DIM, HIDDEN, BATCH, LEARNING_RATE = 40, (300, 300), 100, 5e-4
CENTROIDS = 500

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "VAE": ("VAE", {}),
    "IWAE-10": ("IWAE", {"num_samples": 10}),
    "IWAE-50": ("IWAE", {"num_samples": 50}),
    "VAMP-500": ("VAMP", {"num_pseudo_inputs": 500}),
    "PlanarFlowVAE": ("PlanarFlowVAE", {"flows": "P" * 10}),
    "IAFVAE": ("IAFVAE", {"num_flows": 3}),
    "HVAE": ("HVAE", {"num_leapfrog": 3, "step_size": 0.01}),
    "RHVAE": ("RHVAE", {"num_leapfrog": 3, "step_size": 0.01}),
}
PUBLISHED = {
    "VAE": "89.9; 92.9 (thesis, Table 1.1)",
    "IWAE-50": "87.1",
    "VAMP-500": "85.6",
    "HVAE": "86.4; 85.3 (thesis, Table 1.1)",
    "RHVAE": "82.6 (thesis, Table 1.1)",
}


class Minutes(Callback):
    """End a training after so many minutes of epochs, those before an interruption included."""

    def __init__(self, minutes: float) -> None:
        self.seconds = 60.0 * minutes

    def on_epoch_end(self, model: Any, history: History) -> bool:
        return sum(history.seconds) >= self.seconds


def images(path: Path, part: str) -> Tensor:
    """Return ``"train"``, ``"val"`` or ``"test"`` images: ``(N, 28, 28)`` of 0 and 1."""
    return (read_data(path, x_key=f"x_{part}").x > 0.0).float()


def build(name: str, seed: int) -> VariationalAutoencoder:
    """Return the untrained model, the same at every call with a seed."""
    class_name, options = MODELS[name]
    torch.manual_seed(seed)
    return getattr(chartae, class_name)(
        (28, 28),
        LATENT_DIM,
        encoder={"name": "mlp", "hidden": HIDDEN},
        decoder={"name": "mlp", "hidden": HIDDEN[::-1]},
        likelihood="bernoulli",
        **options,
    )


def estimate(model: VariationalAutoencoder, x: Tensor, num_samples: int) -> dict[str, float]:
    """Return -log p(x), its standard error over images, -ELBO, and KL(q(z|x) || p(z|x))."""
    torch.manual_seed(1)
    log_likelihood = model.log_likelihood(x, num_samples)
    with torch.no_grad():
        elbo = torch.stack([model.elbo(x) for _ in range(20)]).mean(0)
    return {
        "nll": -log_likelihood.mean().item(),
        "error": (log_likelihood.std() / len(x) ** 0.5).item(),
        "negative_elbo": -elbo.mean().item(),
        "kl": (log_likelihood - elbo).mean().item(),
    }


def run(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train, or go on training, one model; return what the table says of it."""
    train = images(arguments.data, "train")[: arguments.train]
    validation = images(arguments.data, "val")[::5]
    test = images(arguments.data, "test")
    test = test[:: len(test) // arguments.test][: arguments.test]
    model = build(name, arguments.seed)
    history = chartae.fit(
        model,
        train,
        validation,
        epochs=arguments.epochs,
        batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        patience=arguments.patience,
        kl_warmup=arguments.warmup,
        seed=arguments.seed,
        callbacks=[Minutes(arguments.minutes)],
        output_dir=arguments.out / name,
        resume=True,
        progress=False,
    )
    if history.stopped == "interrupted":
        raise SystemExit(f"{name} was interrupted: the same command goes on with it")
    if isinstance(model, chartae.RHVAE):
        model.on_fit_start(CENTROIDS)
        model.on_fit_end([{"x": train[:CENTROIDS].to(model.device)}])
    return {
        "model": name,
        "options": MODELS[name][1],
        "epochs": history.num_epochs,
        "best epoch": history.best_epoch,
        "stopped": history.stopped,
        "minutes": sum(history.seconds) / 60.0,
        "importance samples": arguments.samples,
        **estimate(model, test.to(model.device), arguments.samples),
    }


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as a table in Markdown."""
    lines = [
        "| model | -log p(x) | -ELBO | KL(q, p(z given x)) | published | epochs (best) | minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results:
        options = ", ".join(f"{key}={value}" for key, value in row["options"].items())
        lines.append(
            f"| {row['model']}{f' ({options})' if options else ''} "
            f"| **{row['nll']:.2f}** ± {row['error']:.2f} | {row['negative_elbo']:.2f} "
            f"| {row['kl']:.2f} | {PUBLISHED.get(row['model'], '')} "
            f"| {row['epochs']} ({row['best epoch'] + 1}) | {row['minutes']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="binarized_mnist.npz")
    parser.add_argument("--out", type=Path, default=Path("density"), help="folder of the results")
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=30.0, help="at most, for each model")
    parser.add_argument("--warmup", type=int, default=5, help="epochs of KL warm-up")
    parser.add_argument("--patience", type=int, default=15, help="epochs without improvement")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=50_000, help="training images")
    parser.add_argument("--test", type=int, default=1_000, help="test images")
    parser.add_argument("--samples", type=int, default=1_000, help="importance samples an image")
    arguments = parser.parse_args()
    for name in arguments.models:
        file = arguments.out / f"{name}.json"
        if not file.is_file():
            result = run(name, arguments)
            file.write_text(json.dumps(result, indent=1), encoding="utf-8")
        print(f"{name} is done", flush=True)
    files = [arguments.out / f"{name}.json" for name in MODELS]
    print(table([json.loads(file.read_text("utf-8")) for file in files if file.is_file()]))


if __name__ == "__main__":
    main()
