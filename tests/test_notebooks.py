"""The notebooks are the pages: the same code in the same order, and links that lead to files."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[1] / "docs"
MADE = DOCS / "_build" / "notebooks"


def generator() -> ModuleType:
    path = DOCS / "generate_notebooks.py"
    spec = importlib.util.spec_from_file_location("generate_notebooks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NOTEBOOKS = generator()
PAGES = NOTEBOOKS.pages()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_notebook_is_its_page(page: Path) -> None:
    made = NOTEBOOKS.notebook(page, MADE)
    code = [cell["source"] for cell in made["cells"] if cell["cell_type"] == "code"]
    text = page.read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert [c for c in code if not c.startswith("%%sh\n")] == [block.strip() for block in blocks]
    texts = [cell["source"] for cell in made["cells"] if cell["cell_type"] == "markdown"]
    markdown = "\n".join(texts)
    assert "```python" not in markdown
    assert markdown.split()[:4] == text.split()[:4]
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", markdown):
        if "://" not in link:
            # Folders that do not exist cannot be left again by "..".
            assert (DOCS / re.sub(r"^(\.\./){2}", "", link)).exists(), link


def test_commands_are_run_by_the_shell() -> None:
    made = NOTEBOOKS.notebook(DOCS / "followups.md", MADE)
    shell = [cell["source"] for cell in made["cells"] if cell["source"].startswith("%%sh\n")]
    assert any("\nchartae impute" in source for source in shell)


def test_files_are_written(tmp_path: Path) -> None:
    NOTEBOOKS.main(tmp_path / "new")
    files = sorted((tmp_path / "new").glob("*.ipynb"))
    assert [file.stem for file in files] == [page.stem for page in PAGES]
    for file in files:
        found = json.loads(file.read_text("utf-8"))
        assert found["nbformat"] == 4
        ids = [cell["id"] for cell in found["cells"]]
        assert len(ids) == len(set(ids)) > 0
