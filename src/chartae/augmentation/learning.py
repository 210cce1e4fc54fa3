"""The training of an augmenter's models, each with its sampler and a check of its samples."""

import copy
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from chartae.augmentation.fidelity import ClassFidelity
from chartae.augmentation.messages import warnings_about
from chartae.augmentation.sampling import draw
from chartae.checks import check_choice
from chartae.data import ArrayDataset, held_out_split
from chartae.models import Autoencoder
from chartae.naming import folder_name
from chartae.randomness import derive_seed
from chartae.samplers import Sampler
from chartae.training import History, fit, fit_defaults

__all__ = ["ENOUGH", "EPOCHS", "LONGEST", "Learned", "Learning", "check_fit_options"]

CHECKED = 100
"""Number of samples of each class that are compared to its real examples."""
EPOCHS = 250
"""Number of epochs for few examples, from which none can be held out."""
ENOUGH = 500
"""Number of examples of a model from which on held-out examples choose the number of epochs.

The loss of fewer is lowest long before samples are sharp (docs/augmentation.md).
"""
LONGEST, PATIENCE, HELD_OUT = 500, 40, 0.2
"""Limit of that choice, the epochs without improvement that end it, and the share held out."""


class Learned(NamedTuple):
    """A trained model with its sampler, its history and a check of its samples."""

    sampler: Sampler
    history: History
    fidelity: Mapping[str, ClassFidelity]
    """For each class of the model, by name."""


@dataclass(frozen=True)
class Learning:
    """How models are trained; ``fit_options`` to ``output_dir`` as in `Augmenter`.

    Args:
        conditional: whether one model learns all classes, a CVAE included.
    """

    fit_options: Mapping[str, Any]
    jobs: int
    seed: int
    output_dir: str | Path | None
    conditional: bool

    def learn_all(
        self, fresh: Mapping[str, Sampler], parts: Mapping[str, ArrayDataset]
    ) -> dict[str, Learned]:
        """Return the result of `learn` for each name, one after another or in several processes.

        Raises:
            KeyboardInterrupt: after Ctrl-C; the remaining classes are not trained.
        """
        # An absolute path, because a worker process may have another working directory.
        place = None if self.output_dir is None else Path(self.output_dir).resolve()
        calls = [(name, fresh[name], members, place) for name, members in parts.items()]
        learned: Iterable[Learned]
        if self.jobs == 1 or len(parts) == 1:
            learned = (self.learn(*call) for call in calls)
        else:
            from joblib import Parallel, delayed, parallel_config

            with parallel_config("loky", n_jobs=self.jobs, inner_max_num_threads=1):
                learned = Parallel()(delayed(self.learn)(*call) for call in calls)
        results = {}
        for name, of in zip(parts, learned, strict=True):
            if of.history.stopped == "interrupted":
                raise KeyboardInterrupt
            results[name] = of
        return results

    def learn(
        self,
        name: str,
        sampler: Sampler,
        members: ArrayDataset,
        place: Path | None,
    ) -> Learned:
        """Train a model, fit its sampler, and compare its samples to the real examples."""
        options: dict[str, Any] = {"epochs": EPOCHS, "progress": False, **fit_defaults(members)}
        options |= self.fit_options
        options["seed"] = derive_seed(self.seed, "fit", name)
        if self.jobs > 1:
            options["progress"] = False  # several processes would overwrite each other's bars
        if place is not None:
            folder = place / folder_name(name)
            options |= {"output_dir": folder, "resume": True}
        subject = "all classes" if self.conditional else f"class {name!r}"
        with warnings_about(subject) as warned:
            if "epochs" not in self.fit_options and len(members) >= ENOUGH:
                options["epochs"] = self._chosen_epochs(name, sampler.model, members, options)
            history = fit(sampler.model, members, **options)
            if history.stopped == "interrupted":
                return Learned(sampler, history, {})
            given = {} if members.mask is None else {"mask": members.mask}
            sampler.fit(members.x, members.y if self.conditional else None, **given)
        return Learned(sampler, history, self._compare(sampler, members, warned))

    def _chosen_epochs(
        self, name: str, model: Autoencoder, members: ArrayDataset, options: Mapping[str, Any]
    ) -> int:
        """Return the number of epochs after which the loss of held-out examples is lowest.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
        """
        train, held_out = held_out_split(members, HELD_OUT, seed=derive_seed(self.seed, name))
        own = {"epochs": LONGEST, "patience": PATIENCE, "output_dir": None, "resume": False}
        history = fit(copy.deepcopy(model), train, held_out, **{**options, **own})
        if history.stopped == "interrupted":
            raise KeyboardInterrupt
        assert history.best_epoch is not None  # there was a validation set
        return history.best_epoch + 1

    def _compare(
        self, sampler: Sampler, members: ArrayDataset, warned: list[str]
    ) -> dict[str, ClassFidelity]:
        """Return how samples compare to the examples of each class that has at least two."""
        found = {}
        for index in members.classes:
            name = members.class_names[index]
            real = members.of_class(name)
            if len(real) < 2:
                continue
            y = index if self.conditional else None
            with warnings_about(f"class {name!r}") as also:
                made = draw(sampler, CHECKED, derive_seed(self.seed, "class", name), y)
            warnings = dict.fromkeys([*warned, *also])
            found[name] = ClassFidelity.of(real.x.cpu(), made.cpu(), _on_cpu(real.mask), warnings)
        return found


def check_fit_options(options: Mapping[str, Any] | None) -> None:
    """Raise `ConfigurationError` for an option that `fit` has not, or that an augmenter sets."""
    own = {"model", "train", "seed", "output_dir", "resume"}
    known = [option for option in inspect.signature(fit).parameters if option not in own]
    for option in options or {}:
        check_choice("fit_options", option, known)


def _on_cpu(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.cpu()
