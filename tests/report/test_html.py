import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from chartae.augmentation import REAL, StudyResult, TrainingSet
from chartae.report import Report, Section, Table, image_grid, versions

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Checks that every element is closed in order, and collects tags and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def study():
    real = np.array([0.80, 0.82, 0.84, 0.86])
    changes = np.array([0.01, 0.012, 0.009, 0.011])
    rows = [real, real + changes, real - changes, real, real - 10 * changes]
    sets = [TrainingSet(p, m) for p in ("real + synthetic", "synthetic only") for m in "ab"]
    settings = {
        "num_test": 1347,
        "num_train": 100,
        "repeats": 4,
        "class_names": ["0", "1"],
        "metric": "accuracy",
    }
    figures = {"test": {"accuracy": np.array(rows)[:, None]}}
    return StudyResult((REAL, *sets), ("k-NN",), figures, {"k-NN": [{}] * 4}, settings)


@pytest.fixture
def report(study):
    grid = image_grid({"real": np.zeros((4, 8, 8))})
    return Report(
        "Ten <digits>",
        "A summary.",
        facts={"Versions": versions()},
        settings={"seed": 0, "note": "</pre><script>"},
        study=study,
        sections=[Section("Images", "Look.", grid, 'Sheet of "digits"')],
        files={"synthetic.npz": "the digits"},
    )


def test_is_well_formed(report):
    page = Page(report.render())
    assert page.all("html")[0]["lang"] == "en"
    assert page.all("meta")[1]["name"] == "viewport"


def test_needs_nothing_else(report):
    text = report.render()
    page = re.sub(r"data:image/png;base64,[\w+/=]+", "", text)
    assert not re.search(r"https?:|//\w|url\(|@import|<script|<link", page)
    for attributes in Page(text).all("img"):
        data = attributes["src"].removeprefix("data:image/png;base64,")
        assert base64.b64decode(data, validate=True).startswith(b"\x89PNG")


def test_every_image_has_its_alternative(report):
    images = Page(report.render()).all("img")
    assert [image["alt"] for image in images] == ['Sheet of "digits"']


def test_text_is_escaped(report):
    assert "<h1>Ten &lt;digits&gt;</h1>" in report.render()


def test_tells_verdicts(report):
    page = Page(report.render())
    labels = [a["aria-label"] for a in page.all("span") if a.get("role") == "img"]
    assert labels == ["helps", "hurts", "no clear difference", "hurts"]
    text = " ".join(" ".join(page.text).split())
    titles = [a["title"] for a in page.all("span") if a.get("role") == "img"]
    assert titles[0] == "+1.1 points, 95 % interval +0.7 to +1.4"
    assert "1,347 test observations" in text
    assert [a.get("class") for a in page.all("td")].count("best") == 1


def test_the_table_is_no_wider_than_its_numbers_need(report):
    """What rows have in common is a line above them, not a column that has to be scrolled by."""
    page = Page(report.render())
    headings = page.all("th")
    assert [h["scope"] for h in headings[:2]] == ["col", "col"]
    groups = [h["colspan"] for h in headings if h["scope"] == "rowgroup"]
    assert groups == ["2", "2"]
    assert len([h for h in headings if h["scope"] == "row"]) == 5
    words = " ".join(page.text).split()
    assert " ".join(words).count("synthetic only") == 1


def test_other_tables_are_shown_with_their_notes():
    table = Table(
        "Likeness", "Ratios.", ("class", "spread"), [("<a>", "0.1"), ("b", "1.0")], ["No."]
    )
    page = Page(Report("Tables", tables=[table]).render())
    assert [h["scope"] for h in page.all("th")] == ["col", "col", "row", "row"]
    assert len(page.all("td")) == 2
    assert len(page.all("li")) == 1
    assert {"Likeness", "Ratios.", "<a>", "0.1", "No."} <= {text.strip() for text in page.text}


def test_a_long_table_is_folded():
    table = Table("Long", "All.", ("a", "b"), [("1", "2")], sortable=True, folded=True)
    page = Page(Report("Tables", tables=[table]).render())
    assert [name for name, _ in page.tags if name in ("details", "table")] == ["details", "table"]


def test_parts_are_left_out_when_empty():
    page = Page(Report("Empty").render())
    assert not page.all("h2")
    assert not page.all("table")


def test_is_saved_whole(report, tmp_path):
    report.save(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").endswith("</html>")
    assert len(list(tmp_path.iterdir())) == 1
