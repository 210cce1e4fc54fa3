"""Samples of the volume beside samples of the prior: three MNIST classes, 40 images each.

One RHVAE per class; the same models are sampled from the volume of their metric and from the
prior, and a plain VAE of the same networks from its prior. For each:

* sharpness: mean absolute difference of neighbouring pixels, over that of real images;
* diversity: mean distance between two samples, over that between two real images;
* copying: median distance from a sample to the nearest training image, over that from a held-out
  image;
* precision and recall by 3 nearest neighbours (Kynkaanniemi et al., 2019) against 1,000 held-out
  images, in pixels.

    python benchmarks/reproduce/mnist_samples.py MNIST.npz --out samples.png
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

import chartae
from chartae.augmentation import Augmenter
from chartae.data import few_per_class, read_data
from chartae.evaluation import nearest_distance_ratio, precision_recall
from chartae.report import image_grid

CLASSES = ("2", "3", "8")


def sharpness(x: Tensor) -> float:
    """Return the mean absolute difference of neighbouring pixels of images (n, H, W)."""
    return float((x.diff(dim=1).abs().mean() + x.diff(dim=2).abs().mean()) / 2)


def diversity(x: Tensor) -> float:
    """Return the mean distance between two images."""
    return float(torch.pdist(x.flatten(1)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--epochs", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("samples.png"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = read_data(arguments.mnist, x_key="x_train")
    networks = {"encoder": "thesis/mnist", "decoder": "thesis/mnist"}
    sums: dict[str, Tensor] = {}
    for seed in range(arguments.seeds):
        chosen, rest = few_per_class(data.y, 40, seed=seed)
        few, held_out = data.subset(chosen), data.subset(rest)
        few = few.subset(torch.isin(few.y, torch.tensor([int(c) for c in CLASSES])))
        options = {"model_options": networks, "fit_options": {"epochs": arguments.epochs}}
        rhvae = Augmenter(
            "rhvae", "volume", sampler_options={"target": "volume"}, seed=seed, **options
        ).fit(few.x, few.y)
        vae = Augmenter("vae", "normal", seed=seed, **options).fit(few.x, few.y)
        grid: dict[str, list[Tensor]] = {}
        for name in CLASSES:
            real, test = few.of_class(name).x, held_out.of_class(name).x[:1000]
            model = rhvae.models_[name]
            made = {
                "real": test[:200],
                "volume": rhvae.samplers_[name].sample(200, seed=seed),
                "prior": chartae.NormalSampler(model).sample(200, seed=seed),
                "plain VAE": vae.samplers_[name].sample(200, seed=seed),
            }
            for label, x in made.items():
                grid.setdefault(label, []).append((real if label == "real" else x)[:12])
                balls = precision_recall(test, x, k=3)
                figures = torch.tensor(
                    [
                        sharpness(x) / sharpness(test),
                        diversity(x) / diversity(test[:200]),
                        nearest_distance_ratio(real, test, x),
                        balls.precision,
                        balls.recall,
                    ]
                )
                sums[label] = sums.get(label, torch.zeros(5)) + figures
        if seed == 0:
            sheets = {label: torch.cat(rows) for label, rows in grid.items()}
            image_grid(sheets, columns=12).savefig(arguments.out, dpi=110)
    print("| samples | sharpness | diversity | copying | precision | recall |")
    print("|---|---|---|---|---|---|")
    for label, total in sums.items():
        cells = " | ".join(f"{v:.2f}" for v in total / (len(CLASSES) * arguments.seeds))
        print(f"| {label} | {cells} |")


if __name__ == "__main__":
    main()
