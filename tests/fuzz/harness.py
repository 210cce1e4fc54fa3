"""Runs numbered random cases in processes of one thread each, and prints what came of them."""

import argparse
import logging
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable

import torch
from joblib import Parallel, delayed
from rich.console import Console
from rich.progress import track

from chartae.errors import ChartaeError

Case = Callable[[int], str]
"""From the number of a case to one word for its outcome; it raises where something is wrong."""

FIGURES: dict[str, float] = {}
"""What a case has measured, by name; the largest of each is printed at the end."""


def outcome(case: Case, number: int) -> tuple[int, str, str, dict[str, float]]:
    """The number, what came of the case, a traceback where that is a finding, and its figures."""
    torch.set_num_threads(1)
    FIGURES.clear()
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return number, case(number), "", dict(FIGURES)
        except ChartaeError as error:
            return number, f"refused: {type(error).__name__}", "", dict(FIGURES)
        except Exception as error:
            what = f"FINDING: {type(error).__name__}"
            return number, what, traceback.format_exc(), dict(FIGURES)


def main(case: Case, count: int) -> None:
    """Run the cases that the command line asks for; exit 1 if there are findings."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--count", type=int, default=count, help="number of cases")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", type=int, help="run this case alone, and show its traceback")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    given = parser.parse_args()
    numbers = range(given.first, given.first + given.count) if given.only is None else [given.only]
    console = Console(soft_wrap=True)
    results = Parallel(n_jobs=given.jobs, return_as="generator_unordered", batch_size=20)(
        delayed(outcome)(case, number) for number in numbers
    )
    counts: Counter[str] = Counter()
    findings = []
    largest: dict[str, tuple[float, int]] = {}
    for number, what, trace, figures in track(results, "cases", len(numbers), console=console):
        counts[what] += 1
        for name, value in figures.items():
            largest[name] = max(largest.get(name, (value, number)), (value, number))
        if trace:
            findings.append((number, trace))
    for what, times in sorted(counts.items()):
        console.print(f"{times:8d}  {what}")
    for name, (value, number) in sorted(largest.items()):
        console.print(f"{name}: {value:.3g} at most, --only {number}")
    # One of each kind: cases that fail at the same line are one fault.
    by_kind: dict[str, list[tuple[int, str]]] = {}
    for number, trace in sorted(findings):
        last = [line for line in trace.splitlines() if line.startswith("  File")][-1]
        by_kind.setdefault(f"{last.strip()} {trace.splitlines()[-1][:120]}", []).append(
            (number, trace)
        )
    for kind, members in sorted(by_kind.items(), key=lambda item: -len(item[1])):
        console.print(f"\n{len(members)} x {kind}, e.g. --only {members[0][0]}", markup=False)
        if given.only is not None:
            console.print(members[0][1], markup=False)
    sys.exit(bool(findings))
