"""What does it bring to classifiers that held-out examples choose the number of epochs?

`Augmenter` does so from 500 examples of a class on. The script compares it with 250 epochs for all,
on so many examples of each class of three sets. With fewer than 500, both are the same.

    python benchmarks/reproduce/stopping.py DATA --out FOLDER
"""

import argparse
import logging
from pathlib import Path

import numpy as np
from augmentation_tables import images

from chartae.augmentation import CLASSIFIERS, REAL, TrainingSet, augmentation_study, make_method
from chartae.data import ArrayDataset

SETS = {
    "mnist": images("mnist", [3, 5, 8]),
    "fashion": images("fashion_mnist", [0, 3, 6]),
    "pneumonia": images("pneumonia_mnist"),
}
MODEL = "vae+mixture"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with mnist.npz, fashion_mnist.npz, ...")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--classifiers", nargs="*", default=["k-NN", "random forest"])
    parser.add_argument("--per-class", type=int, default=500, help="examples, at least 500")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()
    logging.getLogger("chartae").setLevel(logging.ERROR)
    for name, read in SETS.items():
        (x, y), test = read(arguments.data)
        held_out = ArrayDataset.from_arrays(*test)
        result = augmentation_study(
            x,
            y,
            held_out.subset(np.arange(len(held_out))[:: max(1, len(held_out) // 1000)]),
            methods={
                "chosen": make_method(MODEL),
                "fixed": make_method(MODEL, fit_options={"epochs": 250}),
            },
            classifiers={key: CLASSIFIERS[key] for key in arguments.classifiers},
            per_class=arguments.per_class,
            repeats=arguments.repeats,
            workers=arguments.workers,
            folder=arguments.out / name,
        )
        print(f"\n## {name}\n\n{result.to_markdown()}", flush=True)
        for part in ("real + synthetic", "synthetic only"):
            chosen, fixed = (TrainingSet(part, method, "200") for method in ("chosen", "fixed"))
            for key in result.classifiers:
                gains = [str(result.compare(of, key, REAL)) for of in (fixed, chosen)]
                print(f"* {part}, {key}: fixed {gains[0]}; chosen {gains[1]}", flush=True)
                print(f"  chosen against fixed: {result.compare(chosen, key, fixed)}", flush=True)


if __name__ == "__main__":
    main()
