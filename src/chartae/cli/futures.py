"""``chartae futures``: individuals at later times, from a model of follow-ups."""

from pathlib import Path

import torch
from torch import Tensor

from chartae.checks import check_integer, check_number
from chartae.cli.followups import (
    TrainedSequences,
    check_columns,
    check_out,
    natural_how,
    numbers,
    write_draws,
)
from chartae.cli.options import ConfigFile, DataOptions, MachineOptions, Overwrite, VisitOptions
from chartae.cli.output import Outputs, print_lines, record_of
from chartae.data import Sequences
from chartae.errors import ConfigurationError

__all__ = ["futures"]


def futures(
    model: Path,
    data: Path,
    *,
    out: Path,
    times: str | None = None,
    after: str | None = None,
    first: int | None = None,
    how: str | None = None,
    draws: int = 100,
    level: float = 0.9,
    keep_draws: bool = False,
    seed: int = 0,
    overwrite: Overwrite = False,
    data_options: DataOptions = DataOptions(),
    visits: VisitOptions = VisitOptions(),
    machine: MachineOptions = MachineOptions(),
    config: ConfigFile = None,
) -> None:
    """Run the subcommand.

    Args:
        model: Folder of a model of "chartae train --longitudinal".
        data: Individuals, as for train.
        out: An .npz file; a .csv file of scores; or a folder of images. It has one value at
            each time: the mean of the draws, or the best draw.
        times: Times at which individuals are predicted, as in 1,2.5,3.
        after: Times after the last used visit of each individual, instead of --times.
        first: Use only this number of the first visits of each individual. [default: all]
        how: As for impute. [default: resample for scores, best for images]
        draws: Number of draws of each individual.
        level: Level of the intervals: in a table the columns NAME_lower and NAME_upper, in an .npz
            file the arrays lower and upper. Those of images are of their means, without the noise
            of pixels.
        keep_draws: Write all draws too, as the array draws of an .npz file.
        seed: Seed of the draws.
    """
    given = dict(locals())
    if (times is None) == (after is None):
        raise ConfigurationError("times, after: expected one of --times and --after")
    later = numbers("times", times) if after is None else numbers("after", after)
    if first is not None:
        check_integer("first", first, minimum=1)
    check_integer("draws", draws, minimum=1)
    check_integer("seed", seed, minimum=0)
    check_number("level", level, above=0.0, below=1.0)
    inputs = [model, data, visits.table, config]
    outputs = Outputs("futures", record_of(out), given, inputs=inputs)
    outputs.claim(out)
    machine.apply()
    trained = TrainedSequences.read(model, machine.place)
    chosen = natural_how(trained.model, how)
    check_out(out, trained.model, keep_draws=keep_draws)
    source = trained.individuals(data, visits, data_options)
    check_columns(out, trained, source)
    used = source if first is None else source.first(first)
    when = torch.tensor(later, dtype=torch.float64)
    if after is not None:
        when = _last(used)[:, None] + when
    with outputs.recording():
        found = trained.model.futures(used, when, draws, how=chosen, seed=seed)
        write_draws(out, trained, used, found, level, keep_draws)
    print_lines(f"{len(source)} individuals at {len(later)} times: {out}")


def _last(sequences: Sequences) -> Tensor:
    """Return the time of the last observed visit of each individual, ``(N,)``."""
    return torch.where(sequences.observed, sequences.times, -torch.inf).amax(1).cpu()
