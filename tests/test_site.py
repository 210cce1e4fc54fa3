"""The documentation site has every public name, no broken link, and builds without a warning."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name, walk_packages

import pytest

import chartae

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*ROOT.glob("*.md"), *DOCS.glob("*.md"), *DOCS.glob("*/*.md")]
ROOMS = [module.name for module in walk_packages(chartae.__path__, "chartae.") if module.ispkg]


def documented() -> list[tuple[str, str]]:
    """Return the modules and the names in the lists of the reference."""
    pages = [page.read_text("utf-8") for page in (DOCS / "api").glob("*.md")]
    lists = re.findall(r"```\{api\} (\S+)\n(.*?)```", "".join(pages), flags=re.DOTALL)
    return [(module, name) for module, names in lists for name in names.split()]


@pytest.mark.parametrize("room", ROOMS)
def test_reference_has_every_public_name_once(room: str) -> None:
    names = getattr(import_module(room), "__all__", [])
    assert sorted(name for module, name in documented() if module == room) == sorted(names), (
        f"docs/api/ has a page for {room}: list its public names there"
    )


def test_names_of_the_package_are_in_the_reference() -> None:
    items = [resolve_name(f"{module}:{name}") for module, name in documented()]
    for name in chartae.__all__:
        assert any(getattr(chartae, name) is item for item in items), name


def test_every_page_of_the_reference_is_in_its_index() -> None:
    index = (DOCS / "api" / "README.md").read_text("utf-8")
    for page in {page.stem for page in (DOCS / "api").glob("*.md")} - {"README"}:
        assert f"]({page}.md)" in index
        assert f"\n{page}\n" in index


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in link:
            assert (page.parent / link).exists(), link


@pytest.mark.slow
def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going"]
    options = ["--conf-dir", "docs", "--doctree-dir", tmp_path / "doctrees"]
    done = subprocess.run(
        [*command, *options, ".", tmp_path / "html"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = {page: page.read_text("utf-8") for page in tmp_path.rglob("*.html")}
    reference = "".join(text for page, text in pages.items() if page.parent.name == "api")
    for module, name in documented():
        assert f'id="{module}.{name}"' in reference
    for page, text in pages.items():  # the site needs no other host
        assert not re.search(r'<(script|img)[^>]* src="https?:|<link[^>]* href="https?:', text), (
            page
        )
    assert "docs/index.html" in pages[tmp_path / "html" / "index.html"]
