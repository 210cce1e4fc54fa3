"""The explorer in headless Chromium: every control is used, without an error in the console.

They depend on the time that a browser without a graphics card takes, so they are run by `make
test-browser` only, on a machine with Chromium that does nothing else.
"""

import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch

import chartae
from chartae.data import ArrayDataset, Sequences
from chartae.longitudinal import FlowVAE

pytest.importorskip("dash")
pytest.importorskip("playwright")

from tests.browsing import NEEDED, visited

from chartae.app.explorer import Explorer
from chartae.app.landscape import Landscape
from chartae.app.page import atlas_page
from chartae.app.server import build_app, open_socket, serve

pytestmark = NEEDED


@contextmanager
def explored(browser, space):
    """Yield a page of the explorer, whose map is drawn."""
    listening = open_socket("127.0.0.1", 0)
    app = build_app(Explorer(space, "test"))
    threading.Thread(target=serve, args=(app, listening), daemon=True).start()
    with visited(browser, f"http://127.0.0.1:{listening.getsockname()[1]}/") as tab:
        tab.wait_for_selector("#map .xtick", state="attached")
        yield tab


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def data(count=200):
    source = chartae.data.digits()
    few = source.subset(torch.nonzero(source.y < 3)[:count, 0])
    return ArrayDataset(few.x, few.y, class_names=("a", "b", "c"))


def trained(kind, dim, **options):
    """Return a model that uses its latents, so that points of the map differ."""
    torch.manual_seed(0)
    model = kind((8, 8), dim, likelihood="bernoulli", **options)
    chartae.fit(model, data(), epochs=30, learning_rate=5e-3, seed=0, progress=False)
    return model


def at(tab, across, up):
    """Return the place on the screen of shares of the map's width and height."""
    box = tab.locator("#map .nsewdrag").bounding_box()
    return box["x"] + across * box["width"], box["y"] + up * box["height"]


def point(tab, across, up):
    tab.mouse.move(*at(tab, across, up))


def click(tab, across, up):
    point(tab, across, up)
    tab.mouse.down()
    tab.mouse.up()


def choose(tab, name, text):
    """Choose an entry of a dropdown list."""
    tab.locator(f"#{name}").click()
    tab.locator(".dash-dropdown-option, [role=option]").get_by_text(text, exact=True).click()


def mode(tab, text):
    tab.locator("#click").get_by_text(text, exact=True).click()


def saved(tab, name):
    with tab.expect_download() as waiting:
        tab.locator(f"#{name}").click()
    return waiting.value


def source(tab, which="#decoded"):
    return tab.locator(which).get_attribute("src")


def changed(tab, before, which="#decoded"):
    tab.wait_for_function(
        "([which, before]) => document.querySelector(which).src !== before",
        arg=[which, before or ""],
    )


def test_every_control_of_a_vae(browser, tmp_path):
    space = Landscape.of(trained(chartae.VAE, 3), data())
    with explored(browser, space) as tab:
        # Pointing decodes, and shows neighbours.
        point(tab, 0.4, 0.4)
        tab.wait_for_selector("#near img")
        assert tab.locator("#near img").count() == 5
        first = source(tab)
        point(tab, 0.7, 0.2)
        changed(tab, first)
        assert "z = (" in tab.locator("#where").inner_text()

        # A click chooses a point; the map goes through it, and the sliders follow.
        click(tab, 0.6, 0.6)
        tab.wait_for_function(
            "document.querySelector('#map-note').textContent.includes('the chosen point')"
        )
        slider = tab.locator(".axis [role=slider]").first
        before, url = source(tab), tab.url
        slider.focus()
        for _ in range(5):
            slider.press("ArrowRight")
        changed(tab, before)
        tab.wait_for_function("(url) => location.href !== url", arg=url)

        # Geodesic, straight line, fan.
        mode(tab, "geodesic")
        click(tab, 0.3, 0.5)
        tab.wait_for_function("location.search.includes('pair')")
        click(tab, 0.7, 0.5)
        tab.wait_for_selector("#strips img >> nth=1")
        assert "straight line: length" in tab.locator("#strips").inner_text()
        mode(tab, "exponential fan")
        click(tab, 0.5, 0.4)
        tab.wait_for_function("document.querySelector('#fan-note').textContent.includes('Fan:')")
        fan = tab.locator("#fan-note").inner_text()
        tab.locator("#size [role=slider], [role=slider][id=size]").first.press("ArrowRight")
        tab.wait_for_function(
            "(fan) => document.querySelector('#fan-note').textContent !== fan", arg=fan
        )

        # Colours, planes, volume.
        choose(tab, "kind", "coordinates")
        tab.wait_for_function(
            "document.querySelector('#map-note').textContent.includes('coordinates 1 and 2')"
        )
        choose(tab, "up", "3")
        tab.wait_for_function(
            "document.querySelector('#map-note').textContent.includes('coordinates 1 and 3')"
        )
        choose(tab, "across", "2")
        tab.wait_for_selector("#map .hm")
        tab.locator("#show").get_by_text("volume").click()
        tab.wait_for_selector("#map .hm", state="detached")

        # Attributes.
        choose(tab, "column", "label")
        choose(tab, "attribute", "b")
        tab.wait_for_selector("#edits img")
        edited = source(tab, "#edits img")
        tab.locator("#method").get_by_text("logistic").click()
        changed(tab, edited, "#edits img")

        # Samplers.
        tab.locator("#samplers").get_by_text("mixture").click()
        tab.locator("#draw").click()
        tab.wait_for_selector("#sheets img >> nth=1")

        # Exports.
        assert saved(tab, "save-map").suggested_filename == "latent-map.png"
        assert saved(tab, "save-image").suggested_filename == "decoded.png"
        saved(tab, "save-latents").save_as(tmp_path / "latents.csv")
        assert (tmp_path / "latents.csv").read_text().startswith("index,z1,z2,z3,label")
        saved(tab, "save-arrays").save_as(tmp_path / "all.npz")
        with np.load(tmp_path / "all.npz") as file:
            assert {"z_point", "x_geodesic", "z_fan_0", "z_normal"} <= set(file.files)

        # The URL brings the view back.
        note, strips = tab.locator("#map-note").inner_text(), tab.locator("#strips").inner_text()
        tab.goto(tab.url)
        tab.wait_for_selector("#strips img >> nth=1")
        tab.wait_for_function(
            "(note) => document.querySelector('#map-note').textContent === note", arg=note
        )
        assert tab.locator("#strips").inner_text() == strips
        tab.locator("#clear").click()
        tab.wait_for_selector("#strips img", state="detached")


def test_one_request_at_a_time_and_the_newest_pointer_last(browser, monkeypatch):
    at_once, places = [0, 0], []
    answer = Explorer.decoded

    def slow(explorer, z, label):
        places.append(z.tolist())
        at_once[0] += 1
        at_once[1] = max(at_once)
        time.sleep(0.5)
        at_once[0] -= 1
        return answer(explorer, z, label)

    monkeypatch.setattr(Explorer, "decoded", slow)
    space = Landscape.of(chartae.VAE((8, 8), 2, likelihood="bernoulli"), data())
    with explored(browser, space) as tab:
        for k in range(60):
            point(tab, 0.2 + 0.01 * k, 0.5)
        last = tab.evaluate(
            """([x, y]) => {
                const plot = document.querySelector('#map .js-plotly-plot');
                const { xaxis, yaxis } = plot._fullLayout, box = plot.getBoundingClientRect();
                return [xaxis.p2d(x - box.left - xaxis._offset),
                        yaxis.p2d(y - box.top - yaxis._offset)];
            }""",
            at(tab, 0.79, 0.5),
        )
        for _ in range(40):  # until the newest pointer has been answered
            tab.wait_for_timeout(500)
            if places and places[-1] == pytest.approx(last, abs=0.02):
                break
    assert len(places) < 60
    assert at_once[1] == 1
    assert places[-1] == pytest.approx(last, abs=0.02)


def test_conditions_and_a_colour_of_numbers(browser):
    model = trained(chartae.CVAE, 2, conditions=3)
    space = Landscape.of(model, data(), columns={"number": np.arange(200.0)})
    with explored(browser, space) as tab:
        point(tab, 0.5, 0.5)
        tab.wait_for_selector("#near img")
        before = source(tab)
        choose(tab, "label", "2")
        changed(tab, before)
        choose(tab, "color", "number")
        tab.wait_for_selector("#map .cbtitle >> text=number")


def test_follow_ups(browser):
    people = Sequences(noise(12, 4, 5), times=torch.arange(4.0), dtype=None)
    with explored(browser, Landscape.of_sequences(FlowVAE((5,), 2), people)) as tab:
        mode(tab, "individual")
        click(tab, 0.5, 0.5)
        tab.wait_for_selector("#films img >> nth=4")
        assert "possible course 4" in tab.locator("#films").inner_text()


def test_a_grid_of_codes_shows_reconstructions(browser):
    model = chartae.VQVAE((8, 8), 8, grid=(2, 2), num_codes=4, likelihood="bernoulli")
    with explored(browser, Landscape.of(model, data())) as tab:
        point(tab, 0.5, 0.5)
        tab.wait_for_selector("#near img")
        assert tab.get_by_text("is a grid of codes").is_visible()
        assert not tab.locator("#draw").is_visible()


def test_fifty_thousand_points(browser):
    flat = noise(50_000, 4)
    space = Landscape.of(chartae.VAE((4,), 2), ArrayDataset(flat))
    with explored(browser, space) as tab:
        point(tab, 0.5, 0.5)
        tab.wait_for_selector("#near img")


@pytest.mark.parametrize("dim", [2, 5])
def test_the_page_without_a_server(browser, tmp_path, dim):
    space = Landscape.of(trained(chartae.VAE, dim), data())
    atlas_page(space, title="a page").save(tmp_path / "page.html")
    with visited(browser, (tmp_path / "page.html").as_uri()) as tab:
        tab.wait_for_selector("#map[data-ready]")
        box = tab.locator("#map").bounding_box()
        shown = set()
        for share in (0.3, 0.5, 0.7):
            tab.mouse.move(box["x"] + share * box["width"], box["y"] + share * box["height"])
            assert tab.locator("#near canvas").count() == 5
            shown.add(tab.evaluate("document.getElementById('image').toDataURL()"))
        assert len(shown) == 3
        assert "geodesic from" in tab.locator(".strip").first.inner_text()
