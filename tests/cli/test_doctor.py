"""The subcommand ``doctor``."""

from importlib.metadata import PackageNotFoundError, version

import pytest

from chartae.cli import doctor as module
from chartae.cli import run

REQUIRES = [
    "numpy>=2.0",
    "torch>=99.0",
    'strange>=1.0; extra == "app"',
    'numpy>=2.0; extra == "app"',
    "scipy>=1.0; extra == 'parquet'",
    "colorama>=0.4; sys_platform == 'plan9'",
    'pytest>=8; extra == "dev"',
]


@pytest.fixture
def packages(monkeypatch):
    monkeypatch.setattr(module, "requires", lambda name: REQUIRES)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def test_tells_versions_and_what_is_missing(packages, capsys) -> None:
    assert run(["doctor"]) == 0
    lines = {
        key.strip(): value.strip()
        for key, _, value in (line.partition("  ") for line in capsys.readouterr().out.splitlines())
    }
    assert lines["numpy"] == version("numpy")
    assert lines["torch"] == "MISSING"  # too old
    assert lines["[app]"] == "missing strange: pip install 'chartae[app]'"
    assert lines["[parquet]"] == "installed"
    assert "[dev]" not in lines
    assert "colorama" not in lines  # of another system
    assert "cores" in lines["CPU"]
    assert lines["tracker mlflow"] in (_version("mlflow"), "missing: pip install mlflow")
    assert "tracker csv" not in lines


def test_knows_the_extras_of_this_package() -> None:
    assert sorted(module.extras()) == ["app", "cluster", "dicom", "hub", "nifti", "parquet", "tune"]


def test_a_package_that_cannot_be_found_is_missing(monkeypatch) -> None:
    def nowhere(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(module, "version", nowhere)
    assert all(module.extras().values())


def test_a_package_within_another_is_not_missing(monkeypatch) -> None:
    """As in an environment of conda."""
    versions = {"pytorch-lightning": "2.6.1"}

    def only_these(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(module, "version", only_these)
    assert module._installed(module.Requirement("lightning-fabric>=2.5")) == "2.6.1"
    assert module._installed(module.Requirement("lightning-fabric>=2.7")) == ""
    assert module._installed(module.Requirement("torch>=2.6")) == ""
