"""The explorer's server, by its test client: what each control answers."""

import base64
import io
import json
import logging
import socket
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch

import chartae
from chartae.data import ArrayDataset, Sequences
from chartae.errors import ConfigurationError
from chartae.longitudinal import FlowVAE

pytest.importorskip("dash")

from chartae.app.callbacks import CONTROLS
from chartae.app.explorer import Explorer
from chartae.app.landscape import Landscape
from chartae.app.server import build_app, open_socket, serve

AXES = {"kind": "principal", "across": 0, "up": 1, "point": None}


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Page:
    """A browser without a window: it sends what Dash's own scripts would send."""

    def __init__(self, space):
        self.explorer = Explorer(space, "test")
        self.app = build_app(self.explorer)
        self.client = self.app.server.test_client()
        self.callbacks = {one["output"]: one for one in self.get("/_dash-dependencies")}

    def get(self, path, **options):
        return json.loads(self.client.get(path, base_url="http://127.0.0.1", **options).data)

    def ask(self, output, changed, **values):
        """Return the answer of the server callback whose outputs begin with ``output``."""
        name = next(
            key
            for key, one in self.callbacks.items()
            if key.strip(".").startswith(output)
            and one["clientside_function"] is None
            and any(f"{part['id']}.{part['property']}" == changed for part in one["inputs"])
        )
        known = self.callbacks[name]

        def filled(parts):
            return [{**part, "value": values.get(part["id"])} for part in parts]

        outputs = []
        for part in name.strip(".").split("..."):
            target, _, prop = part.rpartition(".")
            outputs.append({"id": target, "property": prop})
        body = {
            "output": name,
            "outputs": outputs if name.startswith("..") else outputs[0],
            "inputs": filled(known["inputs"]),
            "state": filled(known["state"]),
            "changedPropIds": [changed],
        }
        reply = self.client.post("/_dash-update-component", json=body, base_url="http://127.0.0.1")
        assert reply.status_code in (200, 204), reply.data[-2000:]
        return json.loads(reply.data)["response"] if reply.data else {}


def texts(part):
    """Return all text of a part of the page."""
    return json.dumps(part, ensure_ascii=False)


@pytest.fixture(scope="module")
def images():
    x = noise(60, 6, 6).sigmoid()
    return ArrayDataset(x, torch.arange(60) % 3, class_names=("a", "b", "c"))


@pytest.fixture(scope="module")
def page(images):
    return Page(Landscape.of(chartae.VAE((6, 6), 3, likelihood="bernoulli"), images))


@pytest.fixture(scope="module")
def courses():
    data = Sequences(noise(8, 4, 5), times=torch.arange(4.0), dtype=None)
    return Page(Landscape.of_sequences(FlowVAE((5,), 2), data))


class TestPoint:
    def test_decodes_where_the_pointer_is(self, page):
        asked = {"n": 7, "u": 0.1, "v": -0.2}
        answer = page.ask("decoded.src", "asked.data", asked=asked, label=0, **AXES)
        plane = page.explorer.plane("principal", 0, 1, None)
        z = plane.lift(torch.tensor([0.1, -0.2]))
        picture, near = page.explorer.decoded(z, None)
        assert answer["decoded"]["src"] == picture
        assert answer["answered"]["data"] == {"n": 7}
        assert f"#{near.indices[0]} " in texts(answer["near"])
        assert len(answer["near"]["children"]) == 5

    def test_decodes_the_sliders(self, page):
        z = page.explorer.space.codes[4]
        answer = page.ask("decoded.src", "asked.data", asked={"n": 1, "z": z.tolist()}, **AXES)
        assert answer["decoded"]["src"] == page.explorer.decoded(z, None)[0]
        assert "#4 b, 0" in texts(answer["near"]["children"][0])

    def test_a_point_of_another_dimension_is_said(self, page):
        given = {**AXES, "point": [1.0, 2.0]}
        answer = page.ask("decoded.src", "asked.data", asked={"n": 3, "u": 0.0, "v": 0.0}, **given)
        assert "expected (..., 3)" in texts(answer["where"])
        assert answer["answered"]["data"] == {"n": 3}
        answer = page.ask("map.figure", "color.value", show=[], **given)
        assert "expected (..., 3)" in answer["map-note"]["children"]

    def test_edits_the_chosen_point(self, page):
        given = {"point": [0.0, 0.0, 0.0], "column": "label", "attribute": "b"}
        for method in ("mean", "logistic"):
            answer = page.ask(
                "edits.children", "point.data", **given, method=method, strength=1.5, label=0
            )
            assert "data:image/png" in texts(answer)
        answer = page.ask("attribute.options", "column.value", column="label")
        assert answer["attribute"]["options"] == ["a", "b", "c"]


class TestMap:
    def draw(self, page, **values):
        given = {**AXES, "color": "label", "show": ["volume"], **values}
        return page.ask("map.figure", "color.value", **given)

    def test_has_a_trace_for_each_class_over_the_volume(self, page):
        figure = self.draw(page)["map"]["figure"]
        assert [trace["name"] for trace in figure["data"][1:]] == ["a", "b", "c"]
        assert figure["data"][0]["type"] == "heatmap"

    def test_says_what_plane_it_is(self, page):
        note = self.draw(page)["map-note"]["children"]
        assert "principal plane of 3 dimensions, through the mean" in note
        note = self.draw(page, kind="coordinates", up=2, point=[0.0, 1.0, 0.0])["map-note"]
        assert "coordinates 1 and 3 of 3, through the chosen point" in note["children"]

    def test_equal_axes_are_refused(self, page):
        answer = self.draw(page, across=1, up=1)
        assert "map" not in answer
        assert "choose two that differ" in answer["map-note"]["children"]

    def test_a_click_chooses_what_the_mode_says(self, page):
        clicked = {"n": 1, "u": 0.5, "v": 0.25}
        plane = page.explorer.plane("principal", 0, 1, None)
        z = plane.lift(torch.tensor([0.5, 0.25])).tolist()
        for mode, expected in (("point", z), ("origin", z), ("pair", [z])):
            answer = page.ask("point.data", "clicked.data", clicked=clicked, click=mode, **AXES)
            assert answer == {
                mode: {"data": pytest.approx(expected) if mode != "pair" else [pytest.approx(z)]}
            }
        second = page.ask(
            "point.data", "clicked.data", clicked=clicked, click="pair", pair=[z], **AXES
        )
        third = page.ask(
            "point.data", "clicked.data", clicked=clicked, click="pair", pair=[z, z], **AXES
        )
        assert [len(answer["pair"]["data"]) for answer in (second, third)] == [2, 1]


class TestCurves:
    def test_two_points_give_two_strips_with_lengths(self, page):
        pair = page.explorer.space.codes[:2].tolist()
        answer = page.ask("curves.data", "pair.data", pair=pair, label=0)
        assert set(answer["curves"]["data"]) == {"geodesic", "straight line"}
        assert np.allclose(answer["curves"]["data"]["geodesic"][-1], pair[1], atol=1e-5)
        assert "geodesic: length" in texts(answer)

    def test_a_fan(self, page):
        answer = page.ask("fan.data", "origin.data", origin=[0.0, 0.0, 0.0], size=0.2, **AXES)
        assert len(answer["fan"]["data"]) == 24
        assert "24 geodesics of length" in answer["fan-note"]["children"]

    def test_an_error_is_a_line_on_the_page(self, images):
        data = ArrayDataset(images.x[:10])
        model = chartae.VQVAE((6, 6), 8, grid=(2, 2), num_codes=4, likelihood="bernoulli")
        grids = Page(Landscape.of(model, data))
        answer = grids.ask("curves.data", "pair.data", pair=[[0.0] * 8] * 2)
        assert "has no metric" in texts(answer["strips"])
        answer = grids.ask("decoded.src", "asked.data", asked={"n": 1, "u": 0.0, "v": 0.0}, **AXES)
        assert answer["decoded"]["src"].startswith("data:image/png")
        assert "grid of codes" in texts(grids.get("/_dash-layout"))


class TestSamplers:
    def test_side_by_side(self, page):
        answer = page.ask("drawn.data", "draw.n_clicks", draw=1, samplers=["normal", "mixture"])
        assert set(answer["drawn"]["data"]) == {"normal", "mixture"}
        assert texts(answer["sheets"]).count("data:image/png") == 2

    def test_a_sampler_that_fails_does_not_hide_the_others(self, page):
        answer = page.ask("drawn.data", "draw.n_clicks", draw=1, samplers=["vamp", "normal"])
        assert list(answer["drawn"]["data"]) == ["normal"]
        assert "vamp: sampler='vamp'" in texts(answer["sheets"])


class TestIndividuals:
    def test_a_click_chooses_the_nearest_one(self, courses):
        u, v = courses.explorer.space.codes[9].tolist()
        answer = courses.ask(
            "point.data", "clicked.data", clicked={"n": 1, "u": u, "v": v}, click="chosen", **AXES
        )
        assert answer == {"chosen": {"data": 2}}  # its visits are 8 to 11

    def test_a_filmstrip_of_futures(self, courses):
        answer = courses.ask("course.data", "chosen.data", chosen=2)
        assert len(answer["course"]["data"]["individual 2"]) == 60
        assert texts(answer["films"]).count("data:image/png") == 5

    def test_trajectories_are_on_the_map(self, courses):
        answer = courses.ask(
            "map.figure", "color.value", show=["trajectories"], color="time", **AXES
        )
        assert answer["map"]["figure"]["data"][0]["name"] == "follow-ups"


class TestExports:
    def test_latents_are_a_table(self, page):
        answer = page.ask("file.data", "save-latents.n_clicks")
        rows = answer["file"]["data"]["content"].splitlines()
        assert rows[0] == "index,z1,z2,z3,label"
        assert rows[3].endswith(",c")
        found = [float(cell) for cell in rows[3].split(",")[1:4]]
        assert found == pytest.approx(page.explorer.space.codes[2].tolist())

    def test_arrays_are_what_is_shown(self, page):
        curves = {"straight line": [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]}
        answer = page.ask("file.data", "save-arrays.n_clicks", curves=curves, label=0)
        content = base64.b64decode(answer["file"]["data"]["content"])
        with np.load(io.BytesIO(content)) as file:
            assert np.array_equal(file["z_straight_line"], curves["straight line"])
            expected = page.explorer.space.model.decode(torch.tensor([[1.0, 1.0, 1.0]]))
            assert np.allclose(file["x_straight_line"][1], expected[0].detach())

    def test_the_image_is_that_on_the_page(self, page):
        answer = page.ask("file.data", "save-image.n_clicks", decoded="data:image/png;base64,QUJD")
        assert answer["file"]["data"]["content"] == "QUJD"


class TestServer:
    def test_everything_of_the_view_is_in_the_page(self, page):
        layout = texts(page.get("/_dash-layout"))
        assert all(f'"id": "{name}"' in layout for name, _ in CONTROLS)

    def test_answers_only_to_names_of_this_machine(self, page):
        for host, status in (("127.0.0.1:8050", 200), ("[::1]:8050", 200), ("evil.test", 403)):
            assert page.client.get("/", base_url=f"http://{host}").status_code == status

    def test_answers_to_any_name_when_told_so(self, page):
        client = build_app(page.explorer, host="0.0.0.0").server.test_client()
        assert client.get("/", base_url="http://my-machine").status_code == 200

    def test_no_other_files(self, page):
        for path in ("/assets/../server.py", "/assets/%2e%2e/server.py", "/etc/passwd"):
            reply = page.client.get(path, base_url="http://127.0.0.1")
            assert b"import" not in reply.data

    def test_loads_nothing_from_the_network(self, page):
        text = page.client.get("/", base_url="http://127.0.0.1").data.decode()
        assert "https://" not in text
        assert "http://" not in text

    def test_takes_the_next_free_port_and_says_so(self, caplog):
        with open_socket("127.0.0.1", 0) as first:
            port = first.getsockname()[1]
            with caplog.at_level(logging.WARNING), open_socket("127.0.0.1", port) as second:
                assert second.getsockname()[1] > port
        assert f"port {port} is in use" in caplog.text

    def test_bad_ports(self):
        with pytest.raises(ConfigurationError, match="port"):
            open_socket("127.0.0.1", 70000)
        with pytest.raises(ConfigurationError, match="expected a free port"):
            open_socket("192.0.2.1", 8050)  # not an address of this machine

    def test_serves(self, page):
        listening = open_socket("127.0.0.1", 0)
        port = listening.getsockname()[1]
        threading.Thread(target=serve, args=(page.app, listening), daemon=True).start()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as reply:
            assert b"chartae: test" in reply.read()
        assert socket.getdefaulttimeout() is None
