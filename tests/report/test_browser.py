"""Every report in headless Chromium, on a screen and on a phone: nothing is wrong or cut off."""

import shlex
from pathlib import Path

import pytest
import torch
from tests.browsing import NEEDED, visited

from chartae.cli.app import run
from chartae.data import ArrayDataset, Sequences, digits, raising_arms, write_npz, write_sequences

pytest.importorskip("playwright")
pytest.importorskip("optuna")

pytestmark = NEEDED

QUICK = "--epochs 2"
TRAINED = "train digits.npz --epochs 2 --validation 0.2 --out model"
COMMANDS = {
    "augment": [f"augment digits.npz --per-class 10 --out new.npz --report --no-check {QUICK}"],
    "study": [
        "study digits.npz --repeats 3 --methods transforms,smote,vae+mixture --synthetic 20,x3 "
        f"--classifiers k-NN,MLP --out study {QUICK}"
    ],
    "sizes": [
        "study digits.npz --repeats 1 --methods smote,vae+mixture --classifiers k-NN "
        f"--per-class 5,10 --out study {QUICK}"
    ],
    "table": [f"augment table.csv --per-class 10 --out new.csv --report --no-check {QUICK}"],
    "benchmark": [
        "benchmark digits.npz --models ae,vae --samplers auto,mixture --latent-dims 2,4 --jobs 1 "
        f"--out benchmark {QUICK}"
    ],
    "evaluate": [TRAINED, "evaluate model digits.npz --out evaluation.html"],
    "tune": [f"tune digits.npz --model betavae --metric mse --trials 4 --out tuned {QUICK}"],
    "scores": [f"train visits.csv --longitudinal --validation 0.2 --out model {QUICK}"],
    "follow-ups": [
        f"train arms --longitudinal --model trajectoryvae --validation 0.2 --out model {QUICK}"
    ],
    "explore": [TRAINED, "explore model digits.npz --html explore.html"],
    "demo": ["demo --quick --seeds 1 --out demo"],
}
"""The commands that write a page, by name."""

BEYOND = """() => {
  const width = document.documentElement.clientWidth, scrolled = ".scroll, figure, pre";
  const wide = [...document.body.querySelectorAll("*")].filter(one =>
    one.getBoundingClientRect().right > width + 1 && !one.closest(scrolled));
  const cut = [...document.querySelectorAll("button")].filter(one =>
    one.scrollWidth > one.clientWidth + 1 && !one.closest(scrolled));
  return [...wide, ...cut].map(one => one.tagName + " " + one.textContent.slice(0, 40));
}"""
"""What is outside of the window, but for what can be scrolled, and buttons that cut off a word."""
STRETCHED = """() => [...document.images].filter(one => one.clientWidth && Math.abs(
    (one.naturalWidth / one.naturalHeight) / (one.clientWidth / one.clientHeight) - 1) > 0.03
).map(one => one.alt)"""
BROKEN = "() => [...document.images].filter(one => !one.naturalWidth).map(one => one.alt)"
BRIGHTNESS = """() => {
  const style = getComputedStyle(document.body);
  return [style.color, style.backgroundColor].map(text =>
    text.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0));
}"""
COLUMN = """([table, place]) => {
  const body = document.querySelectorAll("table.sortable")[table].tBodies[0];
  const values = [...body.rows].map(row => parseFloat(row.cells[place].textContent));
  return values.filter(value => !isNaN(value));
}"""
"""The numbers in a column of a sortable table."""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = digits()
    few = torch.nonzero(source.y < 3)[:90, 0]
    write_npz("digits.npz", ArrayDataset(source.x[few], source.y[few]))
    rows = [f"{k % 7},{'ab'[k % 2]},{'yes' if k % 3 else 'no'}" for k in range(40)]
    Path("table.csv").write_text("\n".join(["number,letter,label", *rows]))
    generator = torch.Generator().manual_seed(0)
    times = torch.rand(30, 5, generator=generator).cumsum(1)
    names = ["a rather long name of a score", "speed"]
    scores = torch.randn(30, 5, 2, generator=generator).cumsum(1)
    write_sequences("visits.csv", Sequences(scores, times=times, columns=names))
    write_sequences("arms", raising_arms(16, 4, shape=(16, 16), seed=0))


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_report_on_a_screen_and_on_a_phone(browser, name):
    for command in COMMANDS[name]:
        assert run(shlex.split(command)) == 0
    (page,) = [*Path().glob("*.html"), *Path().glob("*/*.html")]
    for width in (1200, 390):
        with visited(browser, page.resolve().as_uri(), width) as tab:
            for part in tab.locator("details summary").all():
                part.click()
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.evaluate(BEYOND) == []
            assert tab.evaluate(BROKEN) == []
            assert tab.evaluate(STRETCHED) == []
            ink, paper = tab.evaluate(BRIGHTNESS)
            assert ink < 0.4 * paper
            sorts(tab)


def sorts(tab) -> None:
    """Check that a click on any heading of a sortable table sorts its rows, both ways."""
    for table, found in enumerate(tab.locator("table.sortable").all()):
        for place, heading in enumerate(found.locator("thead button").all()):
            for descending in (False, True):
                heading.click()
                values = tab.evaluate(COLUMN, [table, place])
                if not found.locator(f"td.text:nth-child({place + 1})").count():
                    assert values == sorted(values, reverse=descending)
