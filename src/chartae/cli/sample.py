"""``chartae sample``: observations from a trained model."""

from pathlib import Path
from typing import TYPE_CHECKING

from chartae.cli.options import ConfigFile, DataOptions
from chartae.cli.output import check_output, effective, say, write_config

if TYPE_CHECKING:
    from torch import Tensor

    from chartae.samplers import Sampler

__all__ = ["sample"]

EXAMPLE = "Example: chartae sample digits-vae --n 64 --out digits.png"


def sample(
    model: Path,
    *,
    n: int = 100,
    out: Path,
    sampler: str = "auto",
    fit_on: Path | None = None,
    seed: int = 0,
    data_options: DataOptions = DataOptions(),  # noqa: B008
    config: ConfigFile = None,
) -> None:
    """Draw observations from MODEL and write them to a file.

    Args:
        model: Folder of a trained model or sampler.
        n: Number of observations.
        out: A .npz file, or a .png contact sheet.
        sampler: volume, random_walk, normal or mixture; auto takes volume for an RHVAE, else
            normal.
        fit_on: Training data, which the mixture sampler learns from, and for other models than an
            RHVAE volume and random_walk do.
        seed: Of the samples.
    """
    from chartae.checks import check_integer
    from chartae.errors import ConfigurationError

    check_integer("n", n, minimum=1)
    check_integer("seed", seed, minimum=0)
    check_output(out, ".npz", ".png")
    if not model.is_dir():
        raise ConfigurationError(f"MODEL={str(model)!r}: expected the folder of a trained model")
    chosen = _make_sampler(model, sampler, fit_on, data_options)
    _write(out, chosen.sample(n, seed=seed), type(chosen).__name__)
    options = effective(
        data_options, model=model.resolve(), n=n, out=out, sampler=sampler, fit_on=fit_on, seed=seed
    )
    write_config(out.with_suffix(".json"), "sample", options)
    say(f"{n} observations: {out}")


def _make_sampler(
    folder: Path, name: str, fit_on: Path | None, data_options: DataOptions
) -> "Sampler":
    from chartae.augmentation import SAMPLERS
    from chartae.checks import check_choice
    from chartae.errors import ConfigurationError
    from chartae.loading import load
    from chartae.models import VariationalAutoencoder
    from chartae.samplers import Sampler

    check_choice("sampler", name, ["auto", *SAMPLERS])
    data = None if fit_on is None else data_options.read(fit_on)
    loaded = load(folder)
    if isinstance(loaded, Sampler):
        if name != "auto" or data is not None:
            raise ConfigurationError(
                f"{folder} holds a fitted {type(loaded).__name__}: "
                "expected neither --sampler nor --fit-on"
            )
        return loaded
    if name == "auto" and not isinstance(loaded, VariationalAutoencoder):
        raise ConfigurationError(
            f"{type(loaded).__name__} has no prior: expected --sampler mixture --fit-on DATA"
        )
    if name == "auto":
        name = "volume" if hasattr(type(loaded), "metric") else "normal"
    chosen = SAMPLERS[name](loaded)
    if data is None and chosen.needs_data:
        raise ConfigurationError(f"sampler={name!r} learns from data: expected --fit-on DATA")
    return chosen.fit(None if data is None else data.x)


def _write(path: Path, x: "Tensor", title: str) -> None:
    from chartae.atomic import atomic_path
    from chartae.data import ArrayDataset, write_npz
    from chartae.report import image_grid

    if path.suffix == ".npz":
        write_npz(path, ArrayDataset(x.cpu()))
        return
    figure = image_grid({title: x.cpu()}, columns=max(1, round(len(x) ** 0.5)))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=200)
