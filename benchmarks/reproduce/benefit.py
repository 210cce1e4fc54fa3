"""Does `would_help` answer as a large test set does?

For each set, draw and generator: the answer of `would_help` on few examples, and the difference
that samples of an augmenter of all of these examples make on a large test set.

    python benchmarks/reproduce/benefit.py DATA --sets mnist fashion --draws 3
"""

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
from augmentation_tables import SETS
from sklearn.datasets import load_breast_cancer

from chartae import Augmenter
from chartae.augmentation import CLASSIFIERS, ModelMethod, would_help
from chartae.augmentation.benefit import METHOD, held_out_fold
from chartae.augmentation.draws import Draw
from chartae.augmentation.study_runs import Inputs
from chartae.data import ArrayDataset
from chartae.randomness import derive_seed

LARGEST = 2000
"""Number of test examples."""
SIZES = {name: of.per_class for name, of in SETS.items()} | {
    "pneumonia": {"0": 50, "1": 150},
    "cancer": {"0": 60, "1": 60},
}
"""Examples of each class; for fewer than 100 in all there is no answer."""


def read(name: str, folder: Path) -> tuple[ArrayDataset, ArrayDataset | None]:
    """Return a pool, and a test set if the set has one."""
    if name == "cancer":
        return ArrayDataset.from_arrays(*load_breast_cancer(return_X_y=True)), None
    train, test = SETS[name].read(folder)
    return ArrayDataset.from_arrays(*train), ArrayDataset.from_arrays(*test)


def few(pool: ArrayDataset, sizes: dict[str, int], draw: int) -> tuple[ArrayDataset, ArrayDataset]:
    """Return some examples of each class, and the others."""
    random = np.random.default_rng(derive_seed(draw, "examples"))
    assert pool.y is not None
    y = pool.y.numpy()
    rows = np.concatenate(
        [
            random.choice(np.flatnonzero(y == pool.class_names.index(name)), n, replace=False)
            for name, n in sizes.items()
        ]
    )
    return pool.subset(rows), pool.subset(np.setdiff1d(np.arange(len(pool)), rows))


def some(data: ArrayDataset) -> ArrayDataset:
    """Return at most about `LARGEST` observations."""
    return data.subset(np.arange(len(data))[:: max(1, len(data) // LARGEST)])


def truth(
    data: ArrayDataset, test: ArrayDataset, options: dict[str, object], classifier: str, seed: int
) -> tuple[float, float]:
    """Return the balanced accuracies on a test set, with real examples alone, and with samples."""
    inputs = Inputs(
        data,
        {"test": test},
        [Draw(np.arange(len(data)), np.arange(len(data)), None)],
        {METHOD: ModelMethod(options)},
        {classifier: CLASSIFIERS[classifier]},
        real_share=0.5,
    )
    found = held_out_fold(inputs, 0, seed, "200")
    assert test.y is not None
    y = test.y.numpy()
    means = [np.mean([of[y == c].mean() for c in np.unique(y)]) for of in found[:2]]
    return float(means[0]), float(means[1])


def rows(arguments: argparse.Namespace) -> Iterator[str]:
    for name in arguments.sets:
        pool, test = read(name, arguments.data)
        for draw in range(arguments.draws):
            data, rest = few(pool, SIZES[name], draw)
            tested = some(rest if arguments.rest or test is None else test)
            for model, _, sampler in (m.partition("+") for m in arguments.methods):
                options = {"model": model, "sampler": sampler}
                for classifier in arguments.classifiers:
                    started = perf_counter()
                    found = would_help(Augmenter(**options, seed=draw), data, classifier=classifier)
                    seconds = perf_counter() - started
                    real, both = truth(data, tested, options, classifier, draw)
                    difference = found.comparison
                    inside = abs(100 * (both - real) - 100 * difference.difference)
                    yield (
                        f"| {name} | {draw} | {model}+{sampler} | {classifier} | {found.examples} "
                        f"| {found.answer} | {100 * difference.difference:+.1f} ± "
                        f"{100 * difference.margin:.1f} | {100 * (both - real):+.1f} "
                        f"| {'yes' if inside <= 100 * difference.margin else 'no'} "
                        f"| {100 * found.real:.1f} | {100 * real:.1f} "
                        f"| {100 * found.right_label:.0f} | {found.membership_auc:.2f} "
                        f"| {seconds:.0f} |"
                    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with mnist.npz, fashion_mnist.npz, ...")
    parser.add_argument("--sets", nargs="*", choices=SIZES, default=list(SIZES))
    parser.add_argument("--methods", nargs="*", default=["rhvae+volume"])
    parser.add_argument("--classifiers", nargs="*", default=["random forest"])
    parser.add_argument("--rest", action="store_true", help="test on the rest of the training file")
    parser.add_argument("--draws", type=int, default=3)
    arguments = parser.parse_args()
    logging.getLogger("chartae").setLevel(logging.ERROR)
    print(
        "| set | draw | method | classifier | examples | the samples | difference | on test data "
        "| inside | real | on test data | right label % | membership | seconds |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for row in rows(arguments):
        print(row, flush=True)


if __name__ == "__main__":
    main()
