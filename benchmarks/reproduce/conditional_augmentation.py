"""One conditional model, or one model a class? Ten of scikit-learn's digits per class, augmented.

The split, the networks and the weighting are the demo's: examples are drawn from a pool of 450
digits, and classifiers tested on the 1,347 others. All models get the same budget of 2,500 steps on
ten images: ten class-wise models 250 each. Likelihoods are the augmenter's, but for the sharp CVAE,
whose scale is that of the class-wise models. An SVM trained on the test digits says which share of
the synthetic labels are right.

    python benchmarks/reproduce/conditional_augmentation.py
    python benchmarks/reproduce/conditional_augmentation.py --repeats 3 --only "CVAE, N(0, I)"
"""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from sklearn.svm import SVC

from chartae.augmentation import CLASSIFIERS, Method, ModelMethod, TrainingSet, augmentation_study
from chartae.data import digits, few_per_class

HIDDEN = {"name": "mlp", "hidden": [128]}
NETWORKS = {"encoder": HIDDEN, "decoder": HIDDEN}
SHARP = {"likelihood": {"name": "gaussian", "scale": 0.1, "link": "sigmoid"}}
METHODS: dict[str, dict[str, Any]] = {
    "VAE of each class, N(0, I)": {"model": "vae", "sampler": "normal"},
    # Ten codes of a class determine one Gaussian in 8 dimensions, and no mixture of more.
    "VAE of each class, mixture of 1": {
        "model": "vae",
        "sampler": "mixture",
        "sampler_options": {"num_components": 1},
    },
    "CVAE, N(0, I)": {"model": "cvae", "sampler": "normal"},
    "CVAE, flow": {"model": "cvae", "sampler": "flow"},
    "sharp CVAE, N(0, I)": {"model": "cvae", "sampler": "normal", "model_options": SHARP},
    "sharp CVAE, flow": {"model": "cvae", "sampler": "flow", "model_options": SHARP},
    "sharp CVAE, mixture of 10": {"model": "cvae", "sampler": "mixture", "model_options": SHARP},
}
CHOSEN = ("logistic regression", "k-NN", "RBF SVM")

Array = np.ndarray[Any, Any]


@dataclass
class Checked:
    """A method, of whose labels a judge says how many are right."""

    method: Method
    judge: SVC
    shares: list[float] = field(default_factory=list)

    def __call__(self, x: Array, y: Array, n: int, seed: int) -> tuple[Array, Array]:
        x_new, y_new = self.method(x, y, n, seed)
        self.shares.append(self.judge.score(x_new.reshape(len(x_new), -1), y_new))
        return x_new, y_new


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--only", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--out", type=Path, help="a .json file for every accuracy")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = digits()
    pool, test = few_per_class(data.y, 45, seed=0)
    judge = SVC(C=10.0).fit(data.x[test].flatten(1).numpy(), data.y[test].numpy())
    methods = {}
    for name in arguments.only:
        options = METHODS[name]
        options = {
            **options,
            "model_options": {**NETWORKS, **options.get("model_options", {})},
            "fit_options": {"epochs": 250, "batch_size": 10},
        }
        methods[name] = Checked(ModelMethod(options), judge)
    started = perf_counter()
    study = augmentation_study(
        data.x[pool],
        data.y[pool],
        data.x[test],
        data.y[test],
        methods=methods,
        classifiers={name: CLASSIFIERS[name] for name in CHOSEN},
        per_class=10,
        synthetic=100,
        real_share=0.5,
        repeats=arguments.repeats,
        workers=1,  # in this process, where the shares are kept
    )
    print(study.to_markdown())
    for method, checked in methods.items():
        print(f"{method}: {100 * np.mean(checked.shares):.1f} % of the labels are right")
        for name in CHOSEN:
            found = study.compare(TrainingSet("real + synthetic", method), name)
            print(
                f"  {name}, real + synthetic against real: {100 * found.difference:+.1f} ± "
                f"{100 * found.margin:.1f} points ({found.effect})"
            )
    print(f"{perf_counter() - started:.0f} s")
    if arguments.out is not None:
        arguments.out.write_text(study.to_json())


if __name__ == "__main__":
    main()
