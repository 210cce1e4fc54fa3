"""What the subcommands for individuals with several visits share."""

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, cast, get_args

import numpy as np
import torch
from torch import Tensor

from chartae.checks import check_choice, check_number
from chartae.cli.options import DataOptions, VisitOptions, listed
from chartae.cli.trained import model_folder
from chartae.data import Form, Sequences, write_sequences
from chartae.data.sequence_arguments import KEY_COLUMNS, read_key_columns
from chartae.errors import CheckpointError, ConfigurationError, DataError
from chartae.loading import load
from chartae.longitudinal import Draws, How, SequenceModel
from chartae.models import Autoencoder
from chartae.persistence import CONFIG_FILE
from chartae.report import write_followup_report
from chartae.training import History

__all__ = [
    "REPORT",
    "TrainedSequences",
    "check_columns",
    "check_out",
    "held_out_individuals",
    "natural_how",
    "numbers",
    "write_draws",
    "write_report",
]

logger = logging.getLogger(__name__)

FEW = 5
"""Number of draws below which importance weights mean little."""
REPORT = "report.html"
"""The report beside a model of follow-ups."""


# --- training -------------------------------------------------------------------------------------


def held_out_individuals(
    source: Sequences, fraction: float, seed: int
) -> tuple[Sequences, Sequences]:
    """Return a training set and a held-out set of a fraction of the individuals, at least one.

    Raises:
        DataError: if there are fewer than three individuals.
    """
    if len(source) < 3:
        raise DataError(
            f"DATA has {len(source)} individuals: expected at least 3, to hold one out for "
            f"--validation {fraction:g}"
        )
    count = min(max(1, round(fraction * len(source))), len(source) - 2)
    learned, held_out = source.split((len(source) - count, count), seed=seed)
    return learned, held_out


def write_report(
    out: Path,
    model: Autoencoder,
    learned: Sequences,
    held_out: Sequences | None,
    history: History,
    facts: Mapping[str, str],
    settings: Mapping[str, Any],
) -> list[str]:
    """Write the report of a training beside the model, and return lines about it."""
    assert isinstance(model, SequenceModel)
    people = learned if held_out is None else held_out
    if not bool((people.num_visits > 1).any()):
        return ["no report: no individual has two observed visits, of which one could be hidden"]
    results = write_followup_report(
        out / REPORT,
        model,
        people.to(device=model.device),
        held_out=held_out is not None,
        history=history,
        title=f"Follow-ups of {Path(facts['Data']).name}",
        facts={
            **facts,
            "Training set": str(learned),
            "Model": f"{type(model).__name__}, {model.latent_dim} latent dimensions",
        },
        settings=settings,
        seed=int(settings["seed"]),
    )
    return [*(result.sentence for result in results), f"report: {out / REPORT}"]


# --- a trained model ------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainedSequences:
    """A model of follow-ups as it was read from a folder, with what is known of its data.

    Args:
        model: the model.
        form: the form of its training data.
        class_names: the classes of their covariates; empty if there are none.
        covariate_names: the names of the covariates.
        key_columns: what their table calls the columns of individuals and of times.
    """

    model: SequenceModel
    form: Form
    class_names: tuple[str, ...]
    covariate_names: tuple[str, ...]
    key_columns: tuple[str, str]

    @classmethod
    def read(cls, folder: Path, device: str = "cpu") -> Self:
        """Return the model of a folder or of the hub.

        Raises:
            ConfigurationError: as `model_folder`; or for a model of another kind.
            CheckpointError: as `model_folder`; or if it is damaged.
        """
        folder = model_folder(folder)
        model = load(folder, device=device)
        if not isinstance(model, SequenceModel):
            raise ConfigurationError(
                f"MODEL={str(folder)!r} has a {type(model).__name__}: expected a model of "
                'follow-ups, from "chartae train --longitudinal"'
            )
        known = model.metadata
        try:
            form = Form.from_json(known["form"]) if "form" in known else Form(model.dtype, "array")
            classes, names = (
                tuple(map(str, known.get(key, ()))) for key in ("class_names", "covariate_names")
            )
            keys = read_key_columns(known.get("key_columns", KEY_COLUMNS))
        except (DataError, ConfigurationError, TypeError) as error:
            raise CheckpointError(f"{folder / CONFIG_FILE} is damaged: {error}") from error
        return cls(model, replace(form, container="array"), classes, names, keys)

    def individuals(self, path: Path, visits: VisitOptions, how: DataOptions) -> Sequences:
        """Read individuals as the model expects them: its scores, and its covariates.

        Raises:
            DataError: if they do not fit the model.
        """
        table = path.suffix.lower() in (".csv", ".tsv")
        columns = [str(name) for name in self.form.columns]
        # Those of an archive are in it, with their names.
        archive = path.suffix.lower() == ".npz"
        wanted = () if archive else self.covariate_names
        found = visits.read(
            path,
            how,
            scores=columns if table and columns else None,
            covariates=wanted if self.model.conditions is not None and wanted else None,
            key_columns=(None, None) if archive else self.key_columns,
        )
        if found.input_shape != self.model.input_shape:
            raise DataError(
                f"DATA has visits of shape {found.input_shape}: the model expects "
                f"{self.model.input_shape}"
            )
        if columns and found.form.columns and list(map(str, found.form.columns)) != columns:
            raise DataError(
                f"DATA has the scores {list(found.form.columns)}: the model expects {columns}"
            )
        found = self._with_conditions(found).to(dtype=self.model.dtype, device=self.model.device)
        self.model.check_batch("DATA", found.tensors)
        return found

    def _with_conditions(self, data: Sequences) -> Sequences:
        """Return the individuals with classes numbered as in the model."""
        y = data.y
        if self.model.conditions is None:
            return data
        if y is None:
            raise DataError("DATA has no covariates: this model has them as conditions")
        if isinstance(self.model.conditions, int):
            if not data.class_names:
                raise DataError(
                    f"DATA has covariates that are numbers: expected one of {self.class_names}"
                )
            for name in data.class_names:
                check_choice("class of a covariate", name, self.class_names)
            numbers = torch.tensor([self.class_names.index(name) for name in data.class_names])
            data = copy.copy(data)
            data.y, data.class_names = numbers[y.cpu()], self.class_names
        elif data.covariate_names != self.covariate_names and data.covariate_names:
            raise DataError(
                f"DATA has the covariates {list(data.covariate_names)}: the model expects "
                f"{list(self.covariate_names)}"
            )
        return data

    def sequences(
        self,
        x: Any,
        times: Any,
        *,
        mask: Any = None,
        like: Sequences | None = None,
        y: Tensor | None = None,
        columns: Sequence[str] | None = None,
    ) -> Sequences:
        """Return visits in the layout of the data as individuals.

        Args:
            x: ``(N, K, *shape)``.
            times: ``(N, K)`` or ``(K,)``.
            mask: bool, the shape of ``x``, True where there is a value; by default everywhere.
            like: individuals whose names and covariates they have.
            y: the covariates of others.
            columns: names of scores; by default those of the training data.
        """
        y = y if like is None else like.y
        source = self if like is None else like
        given: dict[str, Any] = {}
        if y is not None:
            given["class_names"] = source.class_names or None
            given["covariate_names"] = source.covariate_names
        if columns is None:
            columns = [str(name) for name in self.form.columns]
        return Sequences(
            x,
            times=times,
            mask=mask,
            ids=None if like is None else like.ids,
            covariates=None if y is None else y.cpu(),
            channels_last=self.form.channels_last,
            columns=columns,
            key_columns=source.key_columns,
            dtype=self.model.dtype,
            **given,
        )


# --- output ---------------------------------------------------------------------------------------


def numbers(name: str, text: str | None, *, differ: bool = True) -> list[float]:
    """Return finite numbers between commas, all different unless ``differ`` is False.

    >>> numbers("times", "1, 2.5")
    [1.0, 2.5]
    """
    try:
        found = [float(part) for part in listed(name, text) or ()]
    except ValueError:
        raise ConfigurationError(f"{name}={text!r}: expected numbers, as in 1,2.5") from None
    for number in found:
        check_number(name, number)
    if differ and len(set(found)) < len(found):
        raise ConfigurationError(f"{name}={text!r}: expected numbers that are all different")
    return found


def check_out(out: Path, model: Autoencoder, *others: str, keep_draws: bool = False) -> None:
    """Raise `ConfigurationError`, before any work, if a file cannot store visits of a model.

    Args:
        out: an .npz file, a .csv file for scores, or a folder for images.
        model: the model.
        others: other endings that are accepted.
        keep_draws: whether all draws are to be stored, too.
    """
    shape = model.input_shape
    images = len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))
    if out.suffix not in ("", ".npz", ".csv", *others):
        endings = " or ".join([".npz", ".csv", *others])
        raise ConfigurationError(
            f"out={str(out)!r}: expected a name that ends in {endings}, or that of a folder"
        )
    if out.suffix and out.is_dir():
        raise ConfigurationError(f"out={str(out)!r} is a folder: expected a file, by its name")
    if out.suffix == ".csv" and len(shape) != 1:
        raise ConfigurationError(
            f"out={str(out)!r}: visits of shape {shape} are not rows of a table"
        )
    if out.suffix in ("", ".png") and not images:
        raise ConfigurationError(
            f"out={str(out)!r}: visits of shape {shape} are not images: expected a name that "
            "ends in .npz"
        )
    if keep_draws and out.suffix != ".npz":
        raise ConfigurationError(
            f"keep_draws=True: out={str(out)!r} cannot store draws: expected a name that ends in "
            ".npz"
        )


def check_columns(out: Path, trained: TrainedSequences, data: Sequences) -> None:
    """Raise `ConfigurationError` if columns of a table of scores and intervals have one name."""
    if out.suffix != ".csv":
        return
    names = [*_with_intervals(trained), *data.covariate_names, *data.key_columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigurationError(
            f"out={str(out)!r} would have the column {twice[0]!r} twice: rename the score or the "
            "covariate, or write an .npz file"
        )


def _with_intervals(trained: TrainedSequences) -> list[str]:
    """Return the names of columns: each score, and the ends of its interval."""
    count, names = trained.model.input_shape[0], map(str, trained.form.columns)
    scores = list(names) or [f"x{place}" for place in range(count)]
    return [f"{name}{end}" for name in scores for end in ("", "_lower", "_upper")]


def natural_how(model: Autoencoder, how: str | None) -> How:
    """Return how draws are chosen: as asked, else by the kind of the visits.

    The weights of draws of images say little, because an image has so many values.
    """
    if how is None:
        return "resample" if len(model.input_shape) == 1 else "best"
    check_choice("how", how, get_args(How))
    return cast("How", how)


def write_draws(
    out: Path,
    trained: TrainedSequences,
    data: Sequences,
    draws: Draws,
    level: float,
    keep_draws: bool,
) -> None:
    """Write a value for each visit, with the interval of its draws.

    In a table, each score has further columns with ``_lower`` and ``_upper`` after its name, which
    are empty for known values. An archive has arrays ``lower`` and ``upper``, and ``draws`` if they
    are kept, in which known values are repeated as they are; ``imputed`` tells which are not known.
    Folders of images have no intervals.
    """
    _warn_of_few(draws)
    draws = _settled(draws)
    tails = (1.0 - level) / 2.0
    values = [draws.point(), draws.quantile(tails), draws.quantile(1.0 - tails)]
    times = draws.times
    if draws.observed is not None:  # the visits are those of the data
        values[0] = draws.completed()
        times = torch.where(data.padding, torch.nan, data.times).cpu()
    if out.suffix == ".csv":
        x = np.stack([np.asarray(value) for value in values], -1)
        mask = np.ones(x.shape, bool)
        if draws.observed is not None:
            mask[..., 1:] = ~draws.observed.numpy()[..., None]
        shape = (*x.shape[:2], -1)
        written = trained.sequences(
            x.reshape(shape),
            times,
            mask=mask.reshape(shape),
            like=data,
            columns=_with_intervals(trained),
        )
        write_sequences(out, written)
        return
    written = trained.sequences(values[0], times, like=data)
    if out.suffix == "":
        write_sequences(out, written, clip=True)
        return
    further = {"lower": values[1], "upper": values[2]}
    if draws.observed is not None:
        further["imputed"] = ~_restored(draws.observed.float(), draws, torch.bool)
    if keep_draws:
        further["draws"] = np.stack([_restored(value, draws) for value in draws.values])
    write_sequences(out, written, further=further)


def _warn_of_few(draws: Draws) -> None:
    """Warn if the weights say so little that draws are mostly those of the encoder."""
    if draws.effective_samples is not None and len(draws) >= FEW:
        left = float(draws.effective_samples.median())
        if left < FEW:
            logger.warning(
                "the importance weights have %.1f effective draws of %d of an individual (median): "
                "they were tempered, so intervals are mostly those of the encoder",
                left,
                len(draws),
            )


def _settled(draws: Draws) -> Draws:
    """Return draws on the CPU, as arrays, with known values as they are."""
    form = replace(draws.form, container="array")
    values, known, data = draws.values, draws.observed, draws.data
    if known is not None and data is not None:
        values = torch.where(known, data, values)
        known, data = known.cpu(), data.cpu()
    return replace(
        draws,
        values=values.cpu(),
        times=draws.times.cpu(),
        log_fit=draws.log_fit.cpu(),
        observed=known,
        data=data,
        form=form,
    )


def _restored(values: Tensor, draws: Draws, dtype: torch.dtype | None = None) -> Any:
    """Return visits ``(N, K, *input_shape)`` in the layout of the data."""
    form = replace(draws.form, dtype=dtype or draws.form.dtype)
    frames = form.restore(values.flatten(0, 1))
    return frames.reshape(*values.shape[:2], *frames.shape[1:])
