"""A table of 40 runs of equal cost: two processes against one.

Each run is a fixed amount of arithmetic on one thread. `chartae.runs.execute` is timed with one job
and with two, in turns; the time of two includes the start of the processes in the first round. The
machine needs two free cores.

    python benchmarks/speed/runs.py [--rounds 3] [--seconds 1.0]
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import torch
from harness import machine

from chartae.runs import Outcome, execute

COUNT = 40


def work(settings: Mapping[str, Any], shared: int, attempt: int) -> Outcome:
    """Multiply matrices a fixed number of times."""
    x = torch.full((200, 200), 1.0 / 200.0)
    for _ in range(shared):
        x = x @ x
        x = x / x.sum() * 200.0
    return Outcome({"sum": float(x.sum())})


def repeats_for(seconds: float) -> int:
    """Return how many products take so long on one thread."""
    torch.set_num_threads(1)
    work({}, 200, 0)
    start = time.perf_counter()
    work({}, 1000, 0)
    return max(1, round(1000 * seconds / (time.perf_counter() - start)))


def timed(jobs: int, repeats: int) -> float:
    """Return the seconds of all runs."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        table = execute(
            work,
            [{"run": run} for run in range(COUNT)],
            folder=folder,
            context={},
            shared=repeats,
            jobs=jobs,
        )
        assert len(table.done) == COUNT
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one run")
    arguments = parser.parse_args()
    print("; ".join(f"{name} {value}" for name, value in machine().items()))
    repeats = repeats_for(arguments.seconds)
    for _ in range(arguments.rounds):
        one, two = (timed(jobs, repeats) for jobs in (1, 2))
        print(f"one {one:.1f} s, two {two:.1f} s: {one / two:.2f} times as fast", flush=True)


if __name__ == "__main__":
    main()
