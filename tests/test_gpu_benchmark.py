"""The benchmark of accelerators works, as far as a CPU can show."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "speed" / "gpu.py"


@pytest.mark.slow
def test_it_fills_its_tables() -> None:
    pytest.importorskip("pythae", reason="needs the extra [bench]")
    command = [sys.executable, SCRIPT, "--device", "cpu", "--quick", "--models", "VAE", "VQVAE"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    names = [row[0].strip("| ") for row in rows]
    assert names[1:4] == ["chartae", "plain loop", "Pythae"]
    assert names.count("VAE") == names.count("VQVAE") == 1
    assert {"NormalSampler", "VolumeSampler", "CodeSampler"} <= set(names)
