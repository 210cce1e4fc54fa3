"""``chartae doctor``: versions, devices, and what is missing."""

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version

import torch
from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table

from chartae import __version__
from chartae.training import TRACKERS

__all__ = ["doctor", "extras"]

OWN = ("all", "bench", "dev", "docs")
"""Extras for those who work on chartae itself, and the one that is the sum of the others."""
HOLDERS = {"lightning-fabric": ("pytorch-lightning",)}
"""Packages that contain another one, in the same version; conda-forge has only these."""


def doctor() -> None:
    """Run the subcommand."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in _facts().items():
        table.add_row(name, value)
    Console(soft_wrap=True, highlight=False).print(table)


def _facts() -> dict[str, str]:
    facts = {
        "chartae": __version__,
        "Python": f"{platform.python_version()} on {platform.platform()}",
        "CPU": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads of torch",
        "GPU": _accelerators(),
    }
    facts |= {one.name: _installed(one) or "MISSING" for one in _requirements("")}
    for extra, missing in extras().items():
        command = f"missing {', '.join(missing)}: pip install 'chartae[{extra}]'"
        facts[f"[{extra}]"] = command.replace("[", r"\[") if missing else "installed"
    for tracker in sorted({*TRACKERS} - {"csv"}):  # which needs no package
        found = _installed(Requirement(tracker))
        facts[f"tracker {tracker}"] = found or f"missing: pip install {tracker}"
    return {name.replace("[", r"\["): value for name, value in facts.items()}


def _accelerators() -> str:
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
        return f"{', '.join(names)} (CUDA {torch.version.cuda})"
    if torch.backends.mps.is_available():
        return "Apple MPS"
    return "none that this build of torch can use"


def extras() -> dict[str, list[str]]:
    """Return the missing packages of each extra of chartae, by name.

    A package counts as missing if it is not installed, or too old.

    >>> sorted(extras())
    ['app', 'cluster', 'dicom', 'hub', 'nifti', 'parquet', 'tune']
    """
    return {
        extra: [str(one.name) for one in _requirements(extra) if not _installed(one)]
        for extra in _extras()
    }


def _extras() -> list[str]:
    given = (Requirement(text) for text in requires("chartae") or [])
    names = {part.strip("'\" ") for one in given for part in str(one.marker).split("extra == ")[1:]}
    return sorted(names - set(OWN))


def _requirements(extra: str) -> list[Requirement]:
    """Return the packages that an extra needs; those that chartae itself needs for ``""``."""
    given = [Requirement(text) for text in requires("chartae") or []]
    return [
        one
        for one in given
        if (one.marker is None and not extra)
        or (
            one.marker is not None
            and one.marker.evaluate({"extra": extra})
            and (not extra or not one.marker.evaluate({"extra": ""}))
        )
    ]


def _installed(requirement: Requirement) -> str:
    """Return the version of a package; empty if it is missing or too old."""
    for name in (requirement.name, *HOLDERS.get(requirement.name, ())):
        with suppress(PackageNotFoundError):
            found = version(name)
            return found if requirement.specifier.contains(found, prereleases=True) else ""
    return ""
