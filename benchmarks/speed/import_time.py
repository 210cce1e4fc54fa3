"""How long `import chartae` and ``chartae --help`` take, each in a process of its own.

The times are those of the import statement alone, or of the whole command.
"""

import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

from harness import Row, interleave, main

CLOCK = """
import time
start = time.perf_counter()
{statement}
print(time.perf_counter() - start)
"""
HELP = """
import contextlib, io, sys
from chartae.cli import main
sys.argv = ["chartae", "--help"]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    main()
print(float("torch" in sys.modules))
"""


def _python(code: str) -> float:
    command = [sys.executable, "-c", code]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _import(statement: str) -> Callable[[], float]:
    return lambda: _python(CLOCK.format(statement=statement))


def measure(rounds: int) -> list[Row]:
    statements = [
        "import torch",
        "import chartae",
        "from chartae import VAE",
        "import chartae.training",
    ]
    times = interleave({s: _import(s) for s in statements}, rounds)
    torch = times.median("import torch")

    def row(statement: str, reach: float | None) -> Row:
        detail = f"{times.median(statement):.3f} against {torch:.3f} s"
        ratios = times.ratios(statement, "import torch")
        return Row(f"`{statement}`: time", "`import torch`", ratios, reach, "<=", detail=detail)

    return [
        row("import chartae", 1.15),
        row("from chartae import VAE", 1.15),
        row("import chartae.training", None),
        *_help_rows(rounds),
    ]


def _help_rows(rounds: int) -> list[Row]:
    script = Path(sysconfig.get_path("scripts")) / "chartae"

    def run_help() -> None:
        subprocess.run([str(script), "--help"], check=True, capture_output=True)

    try:
        seconds = interleave({"help": run_help}, rounds).seconds["help"]
        imports = _python(HELP)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"chartae --help does not run yet: {error}", file=sys.stderr)
        return []
    return [
        Row("`chartae --help`: wall time", "", seconds, 0.4, "<=", " s"),
        Row("`chartae --help`: imports of torch", "", [imports], 0.0, "<="),
    ]


if __name__ == "__main__":
    main(measure, rounds=9)
