"""Headless Chromium, for the tests of pages. They are run by ``make test-browser`` only."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NEEDED = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
    pytest.mark.skipif("BROWSER" not in os.environ, reason="run by make test-browser"),
]
WAIT = 60_000
# WebGL in software, for machines without a graphics card.
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@contextmanager
def visited(browser: Any, url: str, width: int = 1400) -> Iterator[Any]:
    """Yield a page; at the end, fail if it had an error or asked for anything of the network."""
    tab = browser.new_page(viewport={"width": width, "height": 1600})
    tab.set_default_timeout(WAIT)
    wrong = []

    def request(asked: Any) -> None:
        if not re.match(r"data:|blob:|file:|http://127\.0\.0\.1[:/]", asked.url):
            wrong.append(asked.url)

    tab.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("request", request)
    tab.on("response", lambda reply: wrong.append(reply.url) if reply.status >= 400 else None)
    tab.goto(url)
    yield tab
    tab.close()
    assert wrong == []
