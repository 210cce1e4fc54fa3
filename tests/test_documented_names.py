"""What the pages name exists: names of the library, commands and options, make targets, files."""

import inspect
import re
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name, walk_packages
from typing import Any

import pytest

import chartae
from chartae.cli.app import app
from chartae.models.base import Networks

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted(DOCS.glob("*.md")),
    *sorted((DOCS / "models").glob("*.md")),
]
FOREIGN = {
    *("False", "None", "True", "__all__"),
    *("CNN", "Dataset", "FSDPStrategy", "IterableDataset", "Module", "PixelCNN", "ResNet"),
    *("RandomOverSampler", "SMOTE"),
    *("amx_bf16", "create_graph", "fully_shard", "n_neighbors", "nn", "torch"),
    *("memory_lower", "memory_upper"),
    *("log_image", "num_shards"),
    *(
        "--accelerator",
        "--master-addr",
        "--node-rank",
        "--nproc-per-node",
        "--ntasks-per-node",
        "--signal",
    ),
}
"""Names of Python, of other programs, and of columns in files that the command writes."""
VARIABLE = re.compile(r"(HF|MLFLOW|WANDB)_[A-Z_]+")
"""Variables of the environment that other programs read."""
FILE = re.compile(r"\.(cff|csv|db|html|json|md|npz|parquet|png|py|safetensors|toml|txt|yaml)$")
MADE = {"docs/_build"}
"""Folders that commands make."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


# --- what the pages say -------------------------------------------------------------------------


def inline_code(page: Path) -> list[str]:
    """Return what the text of a page has between backticks."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)


def command_lines(page: Path) -> Iterator[list[str]]:
    """Yield the words of each line ``chartae ...`` in the blocks of a page."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = [*"".join(blocks).splitlines(), *re.findall(r"^ {4}(chartae .*)$", text, re.MULTILINE)]
    for line in lines:
        words = shlex.split(line, comments=True)
        if words and words[0] == "chartae":
            yield words[1:]


# --- what there is ------------------------------------------------------------------------------


def arguments(item: Any) -> set[str]:
    """Return the names of the arguments of a function or class, those of networks included."""
    try:
        names = set(inspect.signature(item).parameters)
    except (TypeError, ValueError):
        return set()
    return names | set(Networks.__annotations__) if "networks" in names else names


def members(item: type) -> set[str]:
    """Return the attributes of a class, those included that only instances have."""
    homes = [base for base in item.__mro__ if base.__module__.startswith("chartae.")]
    notes = [name for base in homes for name in getattr(base, "__annotations__", {})]
    return {*dir(item), *notes}.union(*(assigned(base.__module__) for base in homes))


@cache
def assigned(module: str) -> set[str]:
    """Return the attributes that the classes of a module set on themselves."""
    source = Path(str(import_module(module).__file__)).read_text("utf-8")
    return set(re.findall(r"self\.([a-z]\w*)", source))


@cache
def public() -> dict[str, Any]:
    """Return every public name of the library, with what it stands for."""
    rooms = [m.name for m in walk_packages(chartae.__path__, "chartae.") if m.ispkg]
    modules = [chartae, *map(import_module, rooms), import_module("chartae.errors")]
    return {name: getattr(m, name) for m in modules for name in getattr(m, "__all__", ())}


@cache
def words() -> set[str]:
    """Return all public names, and those of their attributes and arguments."""
    found = {*public(), *FOREIGN}
    for item in public().values():
        found |= arguments(item)
        if isinstance(item, Mapping):  # such as the names of metrics
            found |= set(map(str, item))
        if inspect.isclass(item):
            found |= members(item)
            for name in dir(item):
                found |= set() if name.startswith("__") else arguments(getattr(item, name, None))
    return found


@cache
def options(name: str) -> set[str]:
    """Return the options of a subcommand."""
    given = app[name].assemble_argument_collection(default_parameter=app.default_parameter)
    return {option for argument in given for option in argument.names}


SUBCOMMANDS = [name for name in app if not name.startswith("-")]


# --- do they agree? -----------------------------------------------------------------------------


@each_page
def test_names_of_the_library(page: Path) -> None:
    for code in inline_code(page):
        found = re.fullmatch(r"(chartae\.)?([A-Za-z_]\w*)((?:\.\w+)*)(?:\((.*)\))?(=\S*)?", code)
        if found is None or FILE.search(code):
            continue
        whole, first, rest, inside, _ = found.groups()
        if not whole and (page.stem == "pythae" or first in FOREIGN or VARIABLE.fullmatch(first)):
            continue  # the names of others
        item = resolve_name(f"chartae.{first}{rest}") if whole else public().get(first)
        if "_" in first or first[0].isupper():
            assert whole or first in words(), code
        for attribute in filter(None, rest.split(".")):
            assert whole or attribute in (members(item) if inspect.isclass(item) else words()), code
        known = arguments(item) if whole or inspect.isclass(item) else words()
        for argument in re.findall(r"(?:^|, )([a-z]\w*)=", inside or ""):
            assert argument in known, code


@each_page
def test_commands_and_options(page: Path) -> None:
    for line in command_lines(page):
        app.parse_args(line)  # an error names what is wrong
    every = {option for name in SUBCOMMANDS for option in options(name)}
    for code in inline_code(page):
        program, _, rest = code.partition(" ")
        name = rest.split(" ")[0]
        known = every
        if program == "chartae" and name and not name.startswith("-") and name.islower():
            assert name in SUBCOMMANDS, code
            known = options(name)
        if program == "chartae" or code.startswith("--"):
            for option in re.findall(r"--[\w-]+", code):
                assert option in {*known, *FOREIGN, "--help", "--debug"}, code


@each_page
def test_files_and_make_targets(page: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)
    text = page.read_text("utf-8")
    for target in re.findall(r"(?:`|^ {4})make ([\w-]+)", text, flags=re.MULTILINE):
        assert target in targets
    for path in re.findall(r"(?<![\w/.-])(?:benchmarks|docs|examples|src|tests)/[\w./-]*\w", text):
        assert path.startswith(tuple(MADE)) or (ROOT / path).exists(), path
