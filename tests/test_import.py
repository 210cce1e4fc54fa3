"""What imports what: `import chartae` is instant, a model costs torch and nothing else."""

import json
import subprocess
import sys

import pytest

import chartae

HEAVY = (
    "torch",
    "numpy",
    "imblearn",
    "sklearn",
    "scipy",
    "matplotlib",
    "lightning_fabric",
    "rich",
    "PIL",
)


def imported(statements):
    """Return which of the heavy modules are there after ``statements``."""
    code = (
        f"import sys, json\n{statements}\n"
        f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_package_imports_nothing_heavy():
    assert imported("import chartae; chartae.__version__; dir(chartae)") == set()


def test_names_import_torch_and_little_else():
    # All in one process, for each takes a second to start. torch imports numpy itself.
    names = "VAE, RHVAE, VolumeSampler, Augmenter, fit, load"
    assert imported(f"from chartae import {names}") <= {"torch", "numpy"}


def test_using_a_model_imports_no_more():
    statements = """
import torch, chartae, tempfile
model = chartae.VAE((8, 8), 2)
model.loss(torch.rand(4, 8, 8))
with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    chartae.load(folder)
"""
    assert imported(statements) <= {"torch", "numpy"}


def test_training_without_a_bar_imports_no_bar():
    statements = """
import torch, chartae
chartae.fit(chartae.VAE((4,), 2), torch.rand(4, 4), epochs=1, accelerator="cpu", progress=False)
"""
    # Lightning Fabric imports what else it finds.
    assert not imported(statements) & {"rich", "sklearn"}


@pytest.mark.parametrize("name", chartae.__all__)
def test_every_public_name_is_there(name):
    assert getattr(chartae, name).__name__ == name
    assert name in dir(chartae)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'chartae' has no attribute 'VEA'"):
        chartae.VEA  # noqa: B018


def test_nothing_is_logged_or_configured_at_import():
    code = (
        "import logging, chartae; from chartae import VAE, fit; "
        "assert not logging.getLogger().handlers; "
        "assert not logging.getLogger('chartae').handlers"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
