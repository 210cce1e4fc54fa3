"""Write the pages that have Python code as Jupyter notebooks: ``make notebooks``.

Text and code are those of the pages, so there is no second text to keep. A notebook runs in a
Jupyter whose kernel has chartae installed.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!\w+://|#)([^)]+)\)")
"""Where a link or a picture leads, relative to the page."""


def pages() -> list[Path]:
    """Return the pages with Python code, but the landing page."""
    found = (page for page in sorted(DOCS.glob("*.md")) if page.stem != "index")
    return [page for page in found if "```python" in page.read_text("utf-8")]


def notebook(page: Path, folder: Path) -> dict[str, Any]:
    """Return a page as a notebook of ``folder``, in the format of nbformat 4.5."""
    text = page.read_text("utf-8")
    cells, end = [], 0
    for block in BLOCK.finditer(text):
        cells += [_text(text[end : block.start()], page, folder)]
        language, code = block.groups()
        cells += [_code(code if language == "python" else f"%%sh\n{code}")]
        end = block.end()
    cells += [_text(text[end:], page, folder)]
    kept = [cell for cell in cells if cell["source"]]
    return {
        "cells": [{"id": f"cell-{number}", **cell} for number, cell in enumerate(kept)],
        "metadata": {"kernelspec": {"display_name": "Python 3", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _text(markdown: str, page: Path, folder: Path) -> dict[str, Any]:
    def moved(link: re.Match[str]) -> str:
        return f"]({Path(os.path.relpath(page.parent / link[1], folder)).as_posix()})"

    return {"cell_type": "markdown", "metadata": {}, "source": LINK.sub(moved, markdown.strip())}


def _code(code: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": code.strip(),
    }


def main(folder: Path) -> None:
    """Write the notebooks into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for page in pages():
        text = json.dumps(notebook(page, folder), indent=1)
        (folder / f"{page.stem}.ipynb").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else DOCS / "_build" / "notebooks"))
