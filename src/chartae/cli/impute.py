"""``chartae impute``: what was not observed of individuals, from a model of follow-ups."""

from pathlib import Path

from chartae.checks import check_integer, check_number
from chartae.cli.followups import (
    TrainedSequences,
    check_columns,
    check_out,
    natural_how,
    write_draws,
)
from chartae.cli.options import ConfigFile, DataOptions, MachineOptions, Overwrite, VisitOptions
from chartae.cli.output import Outputs, print_lines, record_of

__all__ = ["impute"]


def impute(
    model: Path,
    data: Path,
    *,
    out: Path,
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
        data: Individuals, as for train. In a table, a visit without any score is imputed at its
            time, and so is an image without a file name.
        out: An .npz file; a .csv file of scores; or a folder of images. Observed values are
            copied unchanged.
        how: How draws are combined. resample: values are means of draws, which are weighted by
            how well they fit the observed values; the weights are tempered if they would leave
            less than a quarter of the draws. best: the draw that fits best, with intervals from
            all draws. naive: a draw given one visit. [default: resample for scores, best for
            images]
        draws: Number of draws of each individual.
        level: Level of the intervals of imputed values: in a table the columns NAME_lower and
            NAME_upper, which are empty for observed values; in an .npz file the arrays lower and
            upper, which repeat observed values, and imputed, which tells them apart. Intervals of
            images are of their means, without the noise of pixels.
        keep_draws: Write all draws too, as the array draws of an .npz file.
        seed: Seed of the draws.
    """
    given = dict(locals())
    check_integer("draws", draws, minimum=1)
    check_integer("seed", seed, minimum=0)
    check_number("level", level, above=0.0, below=1.0)
    inputs = [model, data, visits.table, config]
    outputs = Outputs("impute", record_of(out), given, inputs=inputs)
    outputs.claim(out)
    machine.apply()
    trained = TrainedSequences.read(model, machine.place)
    chosen = natural_how(trained.model, how)
    check_out(out, trained.model, keep_draws=keep_draws)
    source = trained.individuals(data, visits, data_options)
    check_columns(out, trained, source)
    with outputs.recording():
        found = trained.model.impute(source, chosen, draws, seed=seed)
        write_draws(out, trained, source, found, level, keep_draws)
    missing = ~source.padding & ~source.known.flatten(2).all(-1)
    print_lines(
        f"{int(missing.sum())} of {int((~source.padding).sum())} visits of {len(source)} "
        f"individuals completed: {out}"
    )
