"""The page without a server has the right pictures at the right places."""

import base64
import html
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import chartae
from chartae.app import Landscape, atlas_page
from chartae.app.page import typical_pairs
from chartae.app.pictures import Painter
from chartae.app.view import decode
from chartae.data import ArrayDataset, Sequences
from chartae.errors import DataError
from chartae.longitudinal import FlowVAE
from chartae.report.latent import Plane


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def content(page):
    found = re.search(r'id="content">(.*?)</script>', page.html, flags=re.DOTALL)
    return json.loads(html.unescape(found[1]))


def opened(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def picture(sprite, index):
    """Return picture ``index`` of a sprite, as the script of the page finds it."""
    row, column = divmod(index, sprite["columns"])
    top, left = row * (sprite["height"] + 2), column * (sprite["width"] + 2)
    return opened(sprite["source"])[top : top + sprite["height"], left : left + sprite["width"]]


@pytest.fixture(scope="module")
def space():
    x = noise(50, 6, 6).sigmoid()
    data = ArrayDataset(x, torch.arange(50) % 3, class_names=("a", "b", "c"))
    return Landscape.of(chartae.VAE((6, 6), 3, likelihood="bernoulli"), data)


@pytest.fixture(scope="module")
def page(space):
    return content(atlas_page(space, grid=5))


def test_a_cell_of_the_atlas_is_decoded_in_its_middle(space, page):
    left, right, below, above = page["extent"]
    row, column = 3, 1
    middle = torch.tensor(
        [left + (column + 0.5) * (right - left) / 5, below + (row + 0.5) * (above - below) / 5]
    )
    x = decode(space, Plane(space.codes).lift(middle[None]))[0]
    expected = Painter.of(space.x).pixels(x)
    shown = picture(page["atlas"], row * page["grid"] + column)
    assert np.abs(shown.astype(int) - expected.astype(int)).max() <= 1  # rounding of the middle


def test_codes_and_thumbnails_are_those_of_the_data(space, page):
    codes = np.frombuffer(base64.b64decode(page["codes"]), "<f4").reshape(-1, page["dim"])
    assert np.array_equal(codes, space.codes.numpy())
    flat = np.frombuffer(base64.b64decode(page["flat"]), "<f4").reshape(-1, 2)
    lifted = np.asarray(page["origin"]) + flat @ np.asarray(page["basis"]).T
    plane = Plane(space.codes)
    assert np.allclose(lifted, plane.lift(plane.project(space.codes)), atol=1e-5)
    assert np.array_equal(picture(page["thumbnails"], 7), Painter.of(space.x).pixels(space.x[7]))
    assert page["names"][7] == "#7 b"


def test_points_have_the_colours_of_the_legend(space, page):
    assert page["colors"][0] == page["colors"][3] != page["colors"][1]
    numbers = content(
        atlas_page(Landscape(space.model, space.x, space.codes, {"n": np.arange(50.0)}))
    )
    assert numbers["colors"][0] == "#440154"  # both ends of viridis
    assert numbers["colors"][-1] == "#fde725"


def test_geodesics_join_the_pairs(space):
    found = atlas_page(space, pairs=[(4, 9)], grid=3)
    lines = content(found)["lines"]
    ends = Plane(space.codes).project(space.codes[[4, 9]])
    for line in lines:
        assert np.allclose(np.asarray(line["points"])[[0, -1]], ends, atol=1e-5)
    assert "geodesic from #4 to #9" in found.html
    with pytest.raises(DataError, match="from 0 to 49"):
        atlas_page(space, pairs=[(4, 50)], grid=3)


def test_typical_observations_are_nearest_to_the_means(space):
    (a, b), (_, c) = typical_pairs(space)
    for index, name in ((a, "a"), (b, "b"), (c, "c")):
        members = np.flatnonzero(space.columns["label"] == name)
        distances = (space.codes[members] - space.codes[members].mean(0)).norm(dim=1)
        assert index == members[int(distances.argmin())]


def test_needs_no_network_and_is_repeated(space):
    page = atlas_page(space, title="<b>", grid=3)
    assert not re.search(r"https?:", page.html)
    assert "<title>&lt;b&gt;</title>" in page.html
    assert page == atlas_page(space, title="<b>", grid=3)
    assert page._repr_html_().startswith("<iframe srcdoc=")


def test_many_points_are_drawn(space):
    codes, rows = space.codes.repeat(40, 1), space.x.repeat(40, 1, 1)
    many = content(atlas_page(Landscape(space.model, rows, codes, {}), grid=3))
    assert len(many["names"]) == 1500


def test_a_grid_of_codes_has_reconstructions():
    x = noise(20, 6, 6).sigmoid()
    model = chartae.VQVAE((6, 6), 8, grid=(2, 2), num_codes=4, likelihood="bernoulli").eval()
    page = chartae.explore(model, x)
    found = content(page)
    assert "grid of codes" in page.html
    assert found["reconstructs"]
    expected = Painter.of(x).pixels(model.reconstruct(x[3:4])[0].detach())
    assert np.array_equal(picture(found["atlas"], 3), expected)


def test_follow_ups_have_trajectories_and_futures():
    data = Sequences(noise(5, 4, 3), times=torch.arange(4.0), ids=list("vwxyz"), dtype=None)
    page = chartae.explore(FlowVAE((3,), 2), data)
    assert "individual v: the observed visits" in page.html
    assert "individual x: possible course 2, times 0 to 4.5" in page.html
    assert len(content(page)["lines"]) == 3


def test_works_without_dash():
    code = """
import sys
sys.modules["dash"] = None
import torch, chartae
from chartae.app import Landscape
from chartae.app.explorer import Explorer
from chartae.app.server import build_app
model, x = chartae.VAE((6,), 2), torch.rand(9, 6)
chartae.explore(model, x)
try:
    build_app(Explorer(Landscape.of(model)))
except chartae.errors.ConfigurationError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install chartae[app]" in done.stdout, done.stderr
