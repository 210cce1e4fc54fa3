"""The recipe of the conda package asks for what pyproject.toml asks for."""

import tomllib
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement

import chartae

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
RECIPE: dict[str, Any] = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text("utf-8"))
NAMES = {
    "lightning-fabric": "pytorch-lightning",
    "matplotlib": "matplotlib-base",
    "torch": "pytorch",
}
"""Packages that have another name on conda-forge."""


def for_conda(requirements: list[str]) -> set[str]:
    """Return requirements of pip as those of conda."""
    parsed = map(Requirement, requirements)
    return {f"{NAMES.get(one.name, one.name)} {one.specifier}" for one in parsed}


def test_it_is_of_this_version_and_licence() -> None:
    project = PROJECT["project"]
    assert RECIPE["context"]["version"] == chartae.__version__
    assert RECIPE["about"]["license"] == project["license"]
    assert RECIPE["about"]["summary"] == project["description"]
    (command,) = project["scripts"].items()
    assert RECIPE["build"]["python"]["entry_points"] == [" = ".join(command)]


def test_it_requires_what_the_project_requires() -> None:
    project, requirements = PROJECT["project"], RECIPE["requirements"]
    assert f">={RECIPE['context']['python_min']}" == project["requires-python"]
    python, *others = requirements["run"]
    assert python == "python >=${{ python_min }}"
    assert len(others) == len(set(others))
    assert set(others) == for_conda(project["dependencies"])
    assert for_conda(PROJECT["build-system"]["requires"]) <= set(requirements["host"])


def test_it_constrains_the_extras_of_users() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    (everything,) = map(Requirement, extras["all"])
    wanted = set().union(*(for_conda(extras[extra]) for extra in everything.extras))
    constraints = RECIPE["requirements"]["run_constraints"]
    assert len(constraints) == len(wanted)
    assert set(constraints) == wanted
