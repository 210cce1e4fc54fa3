"""Run every benchmark and write the table of ``docs/benchmarks.md`` between its markers.

python benchmarks/speed/run.py            # a few minutes; leave the machine alone meanwhile
python benchmarks/speed/run.py --rounds 2 small_data import_time  # a quick look
"""

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import machine, quartiles

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
BENCHMARKS = (
    "training_throughput",
    "small_data",
    "convolutions",
    "rhvae_epoch",
    "volume_sampler",
    "manifold_sampling",
    "geodesics",
    "log_likelihood",
    "longitudinal",
    "volumes",
    "import_time",
)


def run(name: str, rounds: int | None) -> list[dict[str, Any]]:
    """Run one benchmark in a process of its own; return its rows."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "rows.json"
        command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(output)]
        if rounds is not None:
            command += ["--rounds", str(rounds)]
        subprocess.run(command, check=True)
        rows: list[dict[str, Any]] = json.loads(output.read_text(encoding="utf-8"))
    return rows


def render(facts: dict[str, str], rows: list[dict[str, Any]], command: str) -> str:
    """Return the part of the page that is measured."""
    lines = [
        f"Measured on {datetime.now(UTC):%Y-%m-%d} with `{command}` on: "
        + "; ".join(f"{name} {value}" for name, value in facts.items())
        + ".",
        "",
        "| what | against | measured (quartiles) | reach | | figures |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, middle, high = quartiles(row["values"])
        measured = f"**{middle:.3g}**{row['unit']}"
        if len(row["values"]) > 1:
            measured += f" ({low:.3g} to {high:.3g})"
        reach = "" if row["reach"] is None else f"{row['sense']} {row['reach']:g}{row['unit']}"
        verdict = {True: "reached", False: "missed", None: "for information"}[row["reached"]]
        cells = (row["what"], row["against"], measured, reach, verdict, row["detail"])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write(page: Path, text: str) -> None:
    """Replace what stands between the markers of the page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{page} lacks the markers {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="benchmarks to run; none runs all")
    parser.add_argument("--rounds", type=int, help="default: each benchmark's own")
    arguments = parser.parse_args()
    names = arguments.names or BENCHMARKS
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    facts = machine()
    rows = [row for name in names for row in run(name, arguments.rounds)]
    command = " ".join(["python benchmarks/speed/run.py", *sys.argv[1:]])
    text = render(facts, rows, command)
    print(f"\n{text}")
    if not arguments.names:
        write(PAGE, text)


if __name__ == "__main__":
    main()
