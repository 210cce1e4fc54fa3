import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import chartae
from chartae.cli import run
from chartae.data import ArrayDataset, read_data, write_npz
from chartae.geometry import ConformalMetric, PosteriorMetric


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a file of 12 images of two classes, one of them by itself, and trained models.

    Most tests only read in it.
    """
    folder = tmp_path_factory.mktemp("interpolate")
    x = torch.rand(12, 4, 4, generator=torch.Generator().manual_seed(0))
    with contextlib.chdir(folder):
        write_npz("data.npz", ArrayDataset(x, torch.arange(12) % 2, class_names=("cat", "dog")))
        np.save("one.npy", x[:1].numpy())
        np.save("bare.npy", x[0].numpy())
        np.savez("nan.npz", x=np.full((2, 4, 4), np.nan, dtype=np.float32))
        np.save("wide.npy", np.zeros((2, 5, 5), dtype=np.float32))
        Image.fromarray((255 * x[1]).round().byte().numpy()).save("image.png")
        Path("broken.png").write_text("no image")
        for model in ("ae", "vae", "rhvae"):
            train(model)
        train("vae", 1, out="flat")
    return folder


@pytest.fixture
def data(folder, monkeypatch):
    """The images; the working directory is the folder, without results."""
    monkeypatch.chdir(folder)
    for result in (*Path().glob("path.*"), *Path().glob("again.*")):
        result.unlink()
    return read_data("data.npz").x


def train(model, latent_dim=2, out=None):
    command = (
        f"train data.npz --out {out or model} --epochs 3 --latent-dim {latent_dim} --model {model}"
    )
    assert run(command.split()) == 0


def interpolate(options):
    return run(["interpolate", *options.split()])


def arrays(path):
    with np.load(path) as file:
        return dict(file)


class TestInterpolate:
    def test_curves_of_an_rhvae(self, data, capsys):
        assert interpolate("rhvae data.npz:0 data.npz:5 --out path.npz --num-points 7") == 0
        out = capsys.readouterr().out
        found, model = arrays("path.npz"), chartae.load("rhvae")
        assert found["x_geodesic"].shape == found["x_line"].shape == (7, 4, 4)
        ends = model.encode(data[[0, 5]]).detach()
        for name in ("geodesic", "line"):
            assert np.allclose(found[f"z_{name}"][[0, -1]], ends, atol=1e-6)
            decoded = model.decode(torch.as_tensor(found[f"z_{name}"])).detach()
            assert np.allclose(found[f"x_{name}"], decoded, atol=1e-6)
        steps = np.diff(found["z_line"], axis=0)
        assert np.allclose(steps, steps[0], atol=1e-6)
        geodesic, line = found["lengths"]
        assert geodesic <= line * (1 + 1e-4)
        assert f"geodesic: length {geodesic:.4g}" in out
        assert f"straight line: length {line:.4g}" in out
        assert ("not converged" in out) != bool(found["converged"])

    def test_figure_of_a_vae(self, data):
        command = "vae data.npz:0 data.npz:5 --data data.npz --out path.png --num-points 4"
        assert interpolate(command) == 0
        with Image.open("path.png") as image:
            assert image.format == "PNG"
        options = json.loads(Path("path.json").read_text())["interpolate"]
        assert (options["a"], options["num_points"], options["metric"]) == ("data.npz:0", 4, "auto")

    def test_a_vae_keeps_to_its_data(self, data):
        assert interpolate("vae data.npz:0 data.npz:5 --data data.npz --out path.npz") == 0
        model = chartae.load("vae")
        metric = ConformalMetric.avoiding_the_void(PosteriorMetric.from_model(model, data))
        found = arrays("path.npz")
        z = torch.as_tensor(found["z_line"])
        middle, step = (z[1:] + z[:-1]) / 2, z[1:] - z[:-1]
        length = float(metric.norm(middle, step).sum())
        assert found["lengths"][1] == pytest.approx(length, rel=0.02)

    def test_an_index_may_count_from_the_end(self, data):
        for out, a in (("path", "data.npz:-1"), ("again", "data.npz:11")):
            assert interpolate(f"rhvae {a} data.npz:5 --out {out}.npz --num-points 2") == 0
        first, again = arrays("path.npz"), arrays("again.npz")
        assert np.array_equal(first["z_line"], again["z_line"])

    def test_the_two_originals_are_shown(self, data, monkeypatch):
        shown = []
        monkeypatch.setattr(
            "chartae.report.geometry.draw_observations",
            lambda axes, x, columns, low, high: shown.append((x, low, high)),
        )
        assert interpolate("rhvae data.npz:0 data.npz:5 --out path.png --num-points 3") == 0
        ends, low, high = shown[0]
        assert np.allclose(ends[[0, -1]], data[[0, 5]])
        assert np.isnan(ends[1]).all()
        assert (low, high) == (0.0, 1.0)

    @pytest.mark.parametrize("command", ["", "--data data.npz"])
    def test_a_sphere_is_not_left(self, data, command):
        torch.manual_seed(0)
        chartae.SVAE((4, 4), 3).eval().save_pretrained("sphere")
        assert interpolate(f"sphere data.npz:0 data.npz:5 {command} --out path.npz") == 0
        z = torch.as_tensor(arrays("path.npz")["z_geodesic"])
        torch.testing.assert_close(z.norm(dim=-1), torch.ones(len(z)))
        ends = chartae.load("sphere").encode(data[[0, 5]]).detach()
        torch.testing.assert_close(z[[0, -1]], ends, atol=1e-5, rtol=0)
        angles = (z[1:] * z[:-1]).sum(-1).clamp(-1, 1).acos()
        torch.testing.assert_close(angles, angles[:1].expand(len(angles)), atol=1e-3, rtol=0)
        assert angles.sum() == pytest.approx(float(arrays("path.npz")["lengths"][0]), rel=1e-3)

    def test_a_ball_has_its_own_geodesics(self, data):
        torch.manual_seed(0)
        chartae.PoincareVAE((4, 4), 2).eval().save_pretrained("ball")
        assert interpolate("ball data.npz:0 data.npz:5 --out path.npz") == 0
        assert (np.linalg.norm(arrays("path.npz")["z_geodesic"], axis=-1) < 1).all()

    @pytest.mark.parametrize("model", ["vae", "rhvae"])
    def test_a_conditional_model_goes_from_label_to_label(self, data, model):
        out = f"conditional-{model}"
        if not Path(out).exists():
            command = f"train data.npz --out {out} --epochs 2 --latent-dim 2 --model {model}"
            assert run([*command.split(), "--conditional"]) == 0
        command = f"{out} data.npz:0 data.npz:5 --data data.npz --out path.npz --num-points 3"
        assert interpolate(command) == 0
        found, loaded = arrays("path.npz"), chartae.load(out)
        for end, row in ((0, 0), (-1, 5)):
            y = torch.tensor([row % 2])
            expected = loaded.reconstruct(data[[row]], y).detach()
            assert np.allclose(found["x_geodesic"][end], expected[0], atol=1e-5)
        assert interpolate(f"{command} --overwrite --label dog") == 0
        z = torch.as_tensor(arrays("path.npz")["z_geodesic"])
        y = torch.ones(3, dtype=torch.int64)
        assert np.allclose(arrays("path.npz")["x_geodesic"], loaded.decode(z, y).detach())
        assert interpolate(f"{out} one.npy data.npz:5 --data data.npz --out again.npz") == 2

    def test_an_autoencoder_pulls_back(self, data):
        assert interpolate("ae data.npz:0 data.npz:5 --out path.png --num-points 3") == 0

    def test_is_repeated_from_what_it_wrote(self, data):
        assert interpolate("rhvae data.npz:0 data.npz:5 --out path.npz --num-points 3") == 0
        assert interpolate("--config path.json --out again.npz") == 0
        first, again = arrays("path.npz"), arrays("again.npz")
        assert all(np.array_equal(first[name], again[name]) for name in first)

    @pytest.mark.parametrize(("a", "row"), [("one.npy", 0), ("bare.npy", 0), ("image.png", 1)])
    def test_one_observation(self, data, a, row):
        assert interpolate(f"rhvae {a} data.npz:5 --out path.npz --num-points 2") == 0
        z = chartae.load("rhvae").encode(data[[row]]).detach()
        assert np.allclose(arrays("path.npz")["z_line"][0], z, atol=0.02)

    def test_a_colon_in_a_name(self, data):
        Path("b:1").mkdir()
        np.save("b:1/x:2.npy", data[:1].numpy())
        assert interpolate("rhvae b:1/x:2.npy b:1/x:2.npy:0 --out path.npz") == 0
        assert np.ptp(arrays("path.npz")["z_line"], axis=0).max() == 0

    def test_the_model_of_a_sampler(self, data):
        chartae.VolumeSampler(chartae.load("rhvae")).save_pretrained("sampler")
        assert interpolate("sampler data.npz:0 data.npz:5 --out path.npz") == 0

    def test_help_has_an_example(self, capsys):
        assert interpolate("--help") == 0
        assert "Example: chartae interpolate" in " ".join(capsys.readouterr().out.split())


ENDS = "data.npz:0 data.npz:5"
BAD = {
    "suffix": f"vae {ENDS} --data data.npz --out path.jpg",
    "no model": f"nothing {ENDS} --out path.npz",
    "no data for the posterior metric": f"vae {ENDS} --out path.npz",
    "no such metric": f"vae {ENDS} --data data.npz --metric euclid --out path.npz",
    "no metric of its own": f"vae {ENDS} --metric model --out path.npz",
    "no posterior": f"ae {ENDS} --metric posterior --data data.npz --out path.npz",
    "one latent dimension": f"flat {ENDS} --data data.npz --out path.npz",
    "number of points": f"vae {ENDS} --data data.npz --out path.npz --num-points 1",
    "no such file": "vae nothing.npy data.npz:0 --data data.npz --out path.npz",
    "no image": "vae broken.png data.npz:0 --data data.npz --out path.npz",
    "no index": "vae data.npz data.npz:0 --data data.npz --out path.npz",
    "index out of range": "vae data.npz:0 data.npz:12 --data data.npz --out path.npz",
    "negative index": "vae data.npz:0 data.npz:-13 --data data.npz --out path.npz",
    "label without conditions": f"rhvae {ENDS} --label cat --out path.npz",
    "space of vectors": f"rhvae {ENDS} --metric space --out path.npz",
    "another shape": "vae wide.npy:0 data.npz:0 --data data.npz --out path.npz",
    "data of another shape": f"vae {ENDS} --data wide.npy --out path.npz",
    "not a number": "vae nan.npz:0 data.npz:0 --data data.npz --out path.npz",
}


@pytest.mark.parametrize("command", BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line_and_exit_code_2(command, data, capsys):
    capsys.readouterr()
    before = set(Path().iterdir())
    assert interpolate(command) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("chartae: ")
    assert error.count("\n") == 1
    assert set(Path().iterdir()) == before
