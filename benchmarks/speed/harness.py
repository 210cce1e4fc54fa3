"""What every benchmark shares: interleaved timing, medians of ratios, the machine, JSON.

Contestants take turns (A B, B A, A B ...), so that whatever else the machine does hits them alike,
and what is reported is the median over the rounds of the *ratio* within a round, which drifts less
than either time.
"""

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

__all__ = ["Row", "Times", "interleave", "machine", "main", "quartiles"]

Contestant = Callable[[], float | None]
"""Does the work once; returns its seconds if it knows better than the clock around the call."""


@dataclass(frozen=True)
class Times:
    """Seconds of every contestant in every round."""

    seconds: Mapping[str, list[float]]

    def median(self, name: str) -> float:
        """Return the median seconds of a contestant."""
        return statistics.median(self.seconds[name])

    def ratios(self, numerator: str, denominator: str) -> list[float]:
        """Return the ratios of seconds, round by round."""
        pairs = zip(self.seconds[numerator], self.seconds[denominator], strict=True)
        return [a / b for a, b in pairs]


def interleave(contestants: Mapping[str, Contestant], rounds: int, warmup: int = 1) -> Times:
    """Run every contestant once a round, in an order that reverses each round.

    Args:
        contestants: what to time, by name.
        rounds: rounds that count.
        warmup: rounds before them that do not.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(-warmup, rounds):
        for name in names if number % 2 == 0 else reversed(names):
            start = time.perf_counter()
            own = contestants[name]()
            elapsed = time.perf_counter() - start if own is None else own
            if number >= 0:
                seconds[name].append(elapsed)
    return Times(seconds)


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: what was measured.
        against: what it is compared with.
        values: the figure of every round; their median is reported.
        reach: the bound to reach, or None for a line that only informs.
        sense: whether the figure should be at least or at most the bound.
        unit: of the figure; empty for a ratio.
        detail: the absolute figures, in words.
    """

    what: str
    against: str
    values: list[float]
    reach: float | None
    sense: Literal[">=", "<="] = ">="
    unit: str = ""
    detail: str = ""
    median: float = field(init=False)
    reached: bool | None = field(init=False)

    def __post_init__(self) -> None:
        median = quartiles(self.values)[1] if self.values else math.nan
        reached = None
        if self.reach is not None:
            reached = median >= self.reach if self.sense == ">=" else median <= self.reach
        object.__setattr__(self, "median", median)
        object.__setattr__(self, "reached", reached)


def machine() -> dict[str, str]:
    """Return what identifies the machine and the versions on it."""
    import torch

    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().split("\n\n")[0].splitlines()
        pairs = [line.partition(":") for line in lines]
        facts = {name.strip(): value.strip() for name, _, value in pairs}
        family = ", ".join(f"{key} {facts[key]}" for key in ("cpu family", "model") if key in facts)
        cpu = f"{facts.get('model name', cpu)} ({family})"
    load = f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"
    return {
        "CPU": cpu,
        "cores": str(os.cpu_count()),
        "torch threads": str(torch.get_num_threads()),
        "load before": load,
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "torch": torch.__version__,
        **{name: _version(name) for name in ("numpy", "chartae", "pythae")},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        if package != "chartae":
            return "not installed"
        import chartae  # a checkout on the path has no metadata

        return chartae.__version__


def main(measure: Callable[[int], list[Row]], rounds: int) -> None:
    """Run a benchmark from its command line, print its rows, and write them if asked to.

    Args:
        measure: makes the rows, given the number of rounds.
        rounds: the default number of rounds.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=rounds, help=f"default {rounds}")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    arguments = parser.parse_args()
    rows = measure(arguments.rounds)
    for row in rows:
        low, middle, high = quartiles(row.values)
        bound = "" if row.reach is None else f" (reach {row.sense} {row.reach:g})"
        verdict = {True: "reached", False: "MISSED", None: ""}[row.reached]
        print(
            f"{row.what} | {row.against}: {middle:.3g}{row.unit} [{low:.3g}, {high:.3g}]"
            f"{bound} {verdict}\n    {row.detail}"
        )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")
