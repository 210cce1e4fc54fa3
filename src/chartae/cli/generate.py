"""``chartae generate``: new individuals from a model of follow-ups."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from chartae.checks import check_choice, check_integer
from chartae.cli.followups import TrainedSequences, check_out, numbers
from chartae.cli.options import ConfigFile, MachineOptions, Overwrite
from chartae.cli.output import Outputs, print_lines, record_of, write_figure
from chartae.data import write_sequences
from chartae.errors import ConfigurationError
from chartae.report import image_grid

__all__ = ["generate"]


def generate(
    model: Path,
    *,
    times: str,
    n: int = 100,
    out: Path,
    label: list[str] | None = None,
    covariates: str | None = None,
    seed: int = 0,
    overwrite: Overwrite = False,
    machine: MachineOptions = MachineOptions(),
    config: ConfigFile = None,
) -> None:
    """Run the subcommand.

    Args:
        model: Folder of a model of "chartae train --longitudinal".
        times: Times of the visits of every individual, as in 0,1,2.5.
        n: Number of individuals.
        out: An .npz file; a .csv file of scores; a folder of images; or a .png figure with a row of
            images for each individual.
        label: For a model of several classes, a class to draw. It can be given several times; by
            default all classes are drawn. Each class gets the same number of individuals.
        covariates: For a model with numbers as conditions, their values in order, as in 63,1.
        seed: Seed of the individuals.
    """
    given = dict(locals())
    when = sorted(numbers("times", times))
    check_integer("n", n, minimum=1)
    check_integer("seed", seed, minimum=0)
    outputs = Outputs("generate", record_of(out), given, inputs=[model, config])
    outputs.claim(out)
    machine.apply()
    trained = TrainedSequences.read(model, machine.place)
    check_out(out, trained.model, ".png")
    y = _conditions(trained, label or [], covariates, n)
    with outputs.recording():
        values = trained.model.generate(n, torch.tensor(when), y=y, seed=seed).cpu()
        if out.suffix == ".png":
            grid = image_grid({"": values.flatten(0, 1)}, columns=len(when))
            write_figure(out, grid, dpi=200)
        else:
            frames = trained.form.restore(values.flatten(0, 1))
            x = frames.reshape(n, len(when), *frames.shape[1:])
            write_sequences(out, trained.sequences(x, when, y=y), clip=True)
    print_lines(f"{n} individuals with {len(when)} visits each: {out}")


def _conditions(
    trained: TrainedSequences, labels: Sequence[str], covariates: str | None, n: int
) -> Tensor | None:
    """Return the conditions of n individuals; None for a model that has none."""
    conditions = trained.model.conditions
    if labels and not isinstance(conditions, int):
        raise ConfigurationError(
            f"label={', '.join(labels)!r}: the model has no classes; expected one trained with "
            "--conditional on a covariate of classes"
        )
    if covariates is not None and not isinstance(conditions, tuple):
        raise ConfigurationError(
            f"covariates={covariates!r}: the model has no numbers as conditions; expected one "
            "trained with --conditional on covariates of numbers"
        )
    if isinstance(conditions, int):
        names = trained.class_names or tuple(map(str, range(conditions)))
        for name in labels:
            check_choice("label", name, names)
        classes = torch.tensor([names.index(name) for name in labels or names])
        return classes[torch.arange(n) * len(classes) // n]
    if conditions is None:
        return None
    values = [] if covariates is None else numbers("covariates", covariates, differ=False)
    if len(values) != conditions[0]:
        named = ", ".join(trained.covariate_names) or f"{conditions[0]} numbers"
        raise ConfigurationError(
            f"covariates={covariates!r}: expected a number for each of {named}"
        )
    return torch.tensor(values, dtype=trained.model.dtype).expand(n, -1)
