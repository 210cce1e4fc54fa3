"""The pages of the models are those of the code, and their examples run."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import chartae
from chartae.models import Autoencoder

DOCS = Path(__file__).parents[1] / "docs"
FOLDER = DOCS / "models"
MODELS = [
    name
    for name in chartae.__all__
    if isinstance(item := getattr(chartae, name), type) and issubclass(item, Autoencoder)
]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_models", DOCS / "generate_models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text("utf-8")


def test_every_model_has_a_page_and_no_page_is_left_over() -> None:
    assert {page.stem for page in FOLDER.glob("*.md")} == {*MODELS, "README"}


@pytest.mark.parametrize("name", MODELS)
def test_page_is_that_of_the_code(name: str, generator: ModuleType) -> None:
    assert read(name) == generator.page(name), "run: python docs/generate_models.py"


def test_index_is_that_of_the_code(generator: ModuleType) -> None:
    assert read("README") == generator.index(), "run: python docs/generate_models.py"


@pytest.mark.parametrize("name", MODELS)
def test_page_tells_what_a_reader_needs(name: str) -> None:
    page = read(name)
    assert "\n$$\n" in page, "no equation"
    assert "\nUse it" in page, "no word on when to use it"
    assert not re.search(r":math:|``[^`]|\.\. math", page.replace("```", "")), "RST is left"
    (picture,) = re.findall(r"!\[.+\]\((.+)\)", page)
    assert (FOLDER / picture).stat().st_size < 60_000


@pytest.mark.parametrize("name", MODELS)
def test_example_runs(name: str) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", read(name), flags=re.DOTALL)
    namespace: dict[str, object] = {}
    exec(compile(example, name, "exec"), namespace)
    assert namespace["x_new"].shape == (16, 8, 8)
