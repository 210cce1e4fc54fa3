from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

# No deadlines: a busy machine is not a failing test.
settings.register_profile("chartae", deadline=None)
settings.load_profile("chartae")

# They take ten seconds: at the end, one worker would wait for the other.
LONGEST = ("tests/test_documents.py", "tests/cli/test_demo.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, for the tests that have the marks of ``tests.browsing.NEEDED``."""
    from playwright.sync_api import sync_playwright
    from tests.browsing import CHROMIUM, FLAGS

    with sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()
