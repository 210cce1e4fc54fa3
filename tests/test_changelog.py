"""The changelog is that of this version, in the form of Keep a Changelog."""

import re
from datetime import date
from pathlib import Path

from packaging.version import Version

import chartae

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CHANGELOG.md").read_text("utf-8")
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def headings() -> list[tuple[str, str]]:
    """Return versions and dates, newest first."""
    found = re.findall(r"^## (.*)$", TEXT, flags=re.MULTILINE)
    matches = [re.fullmatch(r"\[(\d\S*)\] - (\S+)", heading) for heading in found]
    assert all(matches), f"a heading is not '[version] - date': {found}"
    return [(match[1], match[2]) for match in matches if match]


def test_its_newest_version_is_that_of_the_package_and_of_the_citation() -> None:
    assert headings()[0][0] == chartae.__version__
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.findall(r"^version: (.*)$", citation, flags=re.MULTILINE) == [chartae.__version__]


def test_versions_and_dates_descend() -> None:
    versions = [Version(version) for version, _ in headings()]
    assert versions == sorted(set(versions), reverse=True)
    dates = [day for _, day in headings()]
    if dates[0] == "Unreleased":
        del dates[0]
    assert dates == sorted(dates, key=date.fromisoformat, reverse=True)


def test_each_version_has_each_kind_of_change_once_in_order() -> None:
    for section in re.split(r"^## .*$", TEXT, flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.*)$", section, flags=re.MULTILINE)
        assert kinds
        assert kinds == [kind for kind in KINDS if kind in kinds]
