"""Saving and loading: what was saved comes back, what cannot says why, nothing is unpickled."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import chartae
from chartae import persistence
from chartae.atomic import write_text
from chartae.data import ArrayDataset
from chartae.errors import CheckpointError, ConfigurationError
from chartae.models import VAE, Autoencoder, Losses
from chartae.nn import ENCODERS, register_encoder
from chartae.persistence import CONFIG_FILE, WEIGHTS_FILE, load, read_state, write_state
from chartae.samplers import Sampler

SMALL = {"name": "mlp", "hidden": [8]}
NETWORKS = {"encoder": SMALL, "decoder": SMALL}
MODELS = {
    "AAE": {"discriminator": SMALL},
    "AE": {},
    "BetaTCVAE": {"estimator": "mws"},
    "CIWAE": {"num_samples": 2, "beta": 0.3},
    "CVAE": {"conditions": 2, "learned_prior": True},
    "DisentangledBetaVAE": {"warmup": 0},
    "FactorVAE": {"discriminator": SMALL},
    "HRQVAE": {"grid": [2], "num_levels": 2, "num_codes": 3},
    "IAFVAE": {"hidden": [4], "num_flows": 1},
    "InfoVAE": {"kernel": "rbf"},
    "MIWAE": {"num_samples": 2, "num_groups": 2},
    "MSSSIMVAE": {"distance": "l1"},
    "PIWAE": {"num_samples": 2, "num_groups": 2},
    "PlanarFlowVAE": {"flows": "PR"},
    "PoincareVAE": {"posterior": "riemannian", "curvature": 0.5},
    "RAE": {"regularization": "sn"},
    "SVAE": {},
    "VAEGAN": {"discriminator": SMALL, "layer": 1},
    "MixtureVAE": {"num_components": 3},
    "VAMP": {"num_pseudo_inputs": 3},
    "VQVAE": {"grid": [2], "num_codes": 3},
    "WAE": {"regularization": "gan", "discriminator": SMALL},
    "VAE": {"likelihood": "bernoulli"},
    "BetaVAE": {"beta": 2.5},
    "IWAE": {"num_samples": 3},
    "HVAE": {"num_leapfrog": 2, "sqrt_beta_0": 0.5},
    "RHVAE": {"temperature": 0.7, "metric_network": SMALL, "num_leapfrog": 1},
}
SAMPLERS = {
    "NormalSampler": {},
    "MixtureSampler": {"num_components": 2},
    "VolumeSampler": {"num_steps": 3, "num_warmup": 2, "num_leapfrog": 2},
    "RandomWalkSampler": {"num_steps": 3, "num_warmup": 2, "num_integration_steps": 2},
    "MixupSampler": {"num_points": 8},
    "FlowSampler": {"hidden": [4], "epochs": 1},
    "TwoStageSampler": {"hidden": [4], "epochs": 1},
    "VampSampler": {},
    "CodeSampler": {"channels": 4, "num_layers": 1, "epochs": 1},
    "SphereSampler": {},
    "PoincareSampler": {},
}
SAMPLED = {  # class, latent size and options of what a sampler is of, if that is no RHVAE
    "VampSampler": ("VAMP", 2, {"num_pseudo_inputs": 3}),
    "CodeSampler": ("VQVAE", 4, {"grid": (2,), "num_codes": 4}),
    "SphereSampler": ("SVAE", 3, {}),
    "PoincareSampler": ("PoincareVAE", 2, {}),
}
BASES = {
    "Autoencoder", "ChainSampler", "Density", "DistanceVAE", "LearnedSampler", "ManifoldSampler",
    "PriorSampler", "Sampler", "Trainable", "VariationalAutoencoder",
}  # fmt: skip

X = torch.rand(12, 3, 2, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 2


def build(name="VAE", **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(chartae, name)((3, 2), 2, **{**NETWORKS, **MODELS[name], **options})
    return model.eval()


def train(model):
    y = None if model.conditions is None else LABELS
    data = ArrayDataset(X.to(model.dtype), y)
    chartae.fit(model, data, epochs=1, seed=0, accelerator="cpu", progress=False)
    return model


def same(one, other):
    if one.is_floating_point():
        one, other = one.nan_to_num(nan=-1e9), other.nan_to_num(nan=-1e9)
    return one.dtype == other.dtype and torch.equal(one, other)


def same_state(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)


def test_every_model_and_sampler_is_tried_here():
    """A new class joins by a line in MODELS or SAMPLERS.

    Models of sequences have their own contract, `tests/longitudinal/test_contract.py`.
    """
    rooms = ("chartae.models.", "chartae.samplers.")
    ours = {name for name, cls in persistence.CLASSES.items() if cls.__module__.startswith(rooms)}
    assert ours - BASES == MODELS.keys() | SAMPLERS.keys()


# --- what was saved comes back ------------------------------------------------------------------


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_models_come_back(name, trained, tmp_path):
    model = train(build(name)) if trained else build(name)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG_FILE, WEIGHTS_FILE}
    loaded = chartae.load(tmp_path)
    assert type(loaded) is type(model)
    assert json.dumps(loaded.config()) == json.dumps(model.config())
    assert same_state(loaded, model)
    assert not loaded.training
    y = None if model.conditions is None else LABELS
    assert torch.equal(loaded.reconstruct(X, y), model.reconstruct(X, y))


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_come_back_with_their_model(name, tmp_path):
    model_name, latent_dim, options = SAMPLED.get(name, ("RHVAE", 2, MODELS["RHVAE"]))
    model_class = getattr(chartae.models, model_name)
    model = train(model_class((3, 2), latent_dim, **NETWORKS, **options))
    sampler = getattr(chartae.samplers, name)(model, **SAMPLERS[name]).fit(X)
    sampler.save_pretrained(tmp_path)
    loaded = chartae.load(tmp_path)
    assert type(loaded) is type(sampler)
    assert same_state(loaded, sampler)
    assert torch.equal(loaded.sample(5, seed=1), sampler.sample(5, seed=1))


@pytest.mark.parametrize("name", MODELS)
def test_precision_is_kept_or_as_asked(name, tmp_path):
    model = train(build(name).double())
    model.save_pretrained(tmp_path)
    assert same_state(chartae.load(tmp_path), model)
    single = chartae.load(tmp_path, dtype=torch.float32)
    assert same_state(single, model.float())
    single.save_pretrained(tmp_path)
    assert chartae.load(tmp_path, dtype=torch.float64).dtype == torch.float64


def test_a_loaded_model_trains_on(tmp_path):
    first = train(build("RHVAE"))
    first.save_pretrained(tmp_path)
    second = train(chartae.load(tmp_path))
    assert not torch.equal(second.encode(X), first.encode(X))
    assert len(second.metric.centroids) == len(X)


def test_a_model_on_a_device_is_loaded_elsewhere(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    assert chartae.load(tmp_path, device="meta").device.type == "meta"
    with pytest.raises(NotImplementedError):
        model.to("meta").save_pretrained(tmp_path)
    assert chartae.load(tmp_path).device.type == "cpu"


def test_saving_again_replaces(tmp_path):
    build("AE").save_pretrained(tmp_path)
    build("VAE").save_pretrained(tmp_path)
    assert isinstance(chartae.load(tmp_path), VAE)


def test_metadata_come_back_also_in_a_sampler(tmp_path):
    model = chartae.AE((4,), 2, **NETWORKS)
    assert not model.metadata
    model.metadata = {"class_names": ["cat", "dog"], "form": {"columns": (1, 2)}}
    sampler = chartae.MixtureSampler(model, num_components=1).fit(torch.randn(9, 4))
    for saved in (model, sampler):
        saved.save_pretrained(tmp_path)
        loaded = load(tmp_path)
        found = loaded if saved is model else loaded.model
        assert found.metadata == {"class_names": ["cat", "dog"], "form": {"columns": [1, 2]}}
    model.metadata = {"class_names": {1, 2}}
    with pytest.raises(ConfigurationError, match="metadata.*cannot be saved as JSON"):
        model.save_pretrained(tmp_path)


@pytest.mark.parametrize("metadata", [3, ["ab"], None])
def test_metadata_of_another_kind(saved, metadata):
    rewrite(saved, metadata=metadata)
    refuse(saved, "cannot be rebuilt")


def test_loading_leaves_the_random_state(tmp_path):
    build().save_pretrained(tmp_path)
    before = torch.get_rng_state()
    chartae.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_replacing_the_file_does_not_change_a_loaded_state(tmp_path):
    write_state(tmp_path / "state", {"a": torch.zeros(1000)})
    state = read_state(tmp_path / "state")
    (tmp_path / "state").write_bytes(b"\xff" * 5000)
    assert not state["a"].any()


# --- what is yours ------------------------------------------------------------------------------


class Halved(VAE):
    """Not of the library: a model with an argument of its own."""

    def __init__(self, input_shape, latent_dim, *, factor=0.5, **networks):
        super().__init__(input_shape, latent_dim, **networks)
        self.factor = factor

    def loss(self, x, mask=None):
        losses = super().loss(x, mask)
        return Losses.of(self.factor * losses.objectives["model"], **losses.terms)


class Fixed(Sampler):
    def __init__(self, model, value=1.0):
        super().__init__(model)
        self.value = value

    def draw_latents(self, n, seed, y=None):
        return torch.full((n, self.model.latent_dim), self.value)


def test_a_model_and_a_sampler_of_mine_come_back(tmp_path):
    model = Halved((3, 2), 2, factor=0.25, **NETWORKS)
    Fixed(model, value=3.0).save_pretrained(tmp_path)
    loaded = chartae.load(tmp_path)
    assert (type(loaded), type(loaded.model)) == (Fixed, Halved)
    assert (loaded.value, loaded.model.factor) == (3.0, 0.25)
    assert same_state(loaded.model, model)


def test_a_model_of_a_script_comes_back_in_it(tmp_path):
    script = f"""
import chartae
class OfAScript(chartae.AE):
    pass
OfAScript((4,), 2).save_pretrained({str(tmp_path)!r})
assert type(chartae.load({str(tmp_path)!r})) is OfAScript
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    with pytest.raises(CheckpointError, match="class 'OfAScript' is unknown.*import it before"):
        chartae.load(tmp_path)


def test_a_registered_preset_comes_back(tmp_path):
    @register_encoder("test/linear")
    def linear(input_shape, features=4):
        return nn.Sequential(nn.Flatten(), nn.Linear(6, features))

    try:
        model = build(encoder={"name": "test/linear", "features": 5})
        model.save_pretrained(tmp_path)
        assert same_state(chartae.load(tmp_path), model)
    finally:
        del ENCODERS["test/linear"]
    with pytest.raises(CheckpointError, match="encoder='test/linear' is not known"):
        chartae.load(tmp_path)


def test_a_module_of_mine_is_asked_for_and_filled(tmp_path):
    def mine():
        return nn.Sequential(nn.Flatten(), nn.Linear(6, 4))

    model = build(encoder=mine())
    chartae.NormalSampler(model).save_pretrained(tmp_path)
    message = (
        r"encoder was a user-defined module \(Sequential\): pass it as load\(..., encoder=...\)"
    )
    with pytest.raises(CheckpointError, match=message):
        chartae.load(tmp_path)
    assert same_state(chartae.load(tmp_path, encoder=mine()).model, model)
    with pytest.raises(CheckpointError, match=r"encoder.1.bias has shape \(4,\): expected \(5,\)"):
        chartae.load(tmp_path, encoder=nn.Sequential(nn.Flatten(), nn.Linear(6, 5)))
    with pytest.raises(CheckpointError, match="lacks the tensor.*encoder.2.weight"):
        chartae.load(tmp_path, encoder=nn.Sequential(*mine(), nn.Linear(4, 4)))
    bare = nn.Sequential(nn.Flatten(), nn.Linear(6, 4, bias=False))
    with pytest.raises(CheckpointError, match="unknown tensor.*encoder.1.bias"):
        chartae.load(tmp_path, encoder=bare)


def test_a_module_that_nothing_asks_for_is_refused(tmp_path):
    build().save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match="encodr given, but the VAE"):
        chartae.load(tmp_path, encodr=nn.Linear(6, 4))
    with pytest.raises(ConfigurationError, match="encoder is str: expected a torch module"):
        chartae.load(tmp_path, encoder="mlp")


def test_a_class_with_the_name_of_another_is_not_saved(tmp_path):
    """It would come back as the other; and it does not displace it."""
    impostor = type("VAE", (chartae.AE,), {"__module__": "mine"})((3, 2), 2, **NETWORKS)
    with pytest.raises(ConfigurationError, match="mine.VAE cannot be saved.*rename it"):
        impostor.save_pretrained(tmp_path / "impostor")
    build().save_pretrained(tmp_path)
    assert type(chartae.load(tmp_path)) is VAE


def test_an_argument_that_is_not_json_is_refused_before_writing(tmp_path):
    model = Halved((3, 2), 2, factor=torch.ones(2), **NETWORKS)
    with pytest.raises(ConfigurationError, match="factor=tensor.*cannot be saved"):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


# --- what cannot be loaded ----------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    build().save_pretrained(tmp_path)
    return tmp_path


def refuse(folder, message):
    with pytest.raises(CheckpointError, match=message):
        chartae.load(folder)


def rewrite(folder, **changes):
    """Change the description of a model, and make its weights belong to it again."""
    description = json.loads((folder / CONFIG_FILE).read_text()) | changes
    text = json.dumps(description)
    tensors, _ = persistence._read_tensors(folder / WEIGHTS_FILE)
    metadata = {"config": persistence._fingerprint(text)}
    persistence._write_tensors(folder / WEIGHTS_FILE, tensors, metadata)
    write_text(folder / CONFIG_FILE, text)


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_missing_files(saved, name):
    (saved / name).unlink()
    refuse(saved, f"has no {name}")
    refuse(saved / "nowhere", "has no config.json")


@pytest.mark.parametrize("size", [0, 5, 60, 500, -1])
def test_truncated_weights(saved, size):
    path = saved / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:size])
    refuse(saved, "model.safetensors cannot be read")


@pytest.mark.parametrize("size", [0, 1, 40, -1])
def test_truncated_configuration(saved, size):
    path = saved / CONFIG_FILE
    path.write_bytes(path.read_bytes()[:size])
    refuse(saved, "config.json cannot be read")


@pytest.mark.parametrize("text", ["[]", "null", "{}", '{"arguments": []}', '"VAE"'])
def test_json_of_something_else(saved, text):
    (saved / CONFIG_FILE).write_text(text)
    refuse(saved, "does not describe a model")


def test_binary_configuration(saved):
    (saved / CONFIG_FILE).write_bytes(b"\x80\x04\xff")
    refuse(saved, "config.json cannot be read")


def test_unknown_class(saved):
    rewrite(saved, **{"class": "TVAE"})
    refuse(saved, "class 'TVAE' is unknown: expected one of AAE, AE,")


@pytest.mark.parametrize("version", [2, "new", None])
def test_future_versions(saved, version):
    rewrite(saved, format=version, chartae="9.9.9")
    refuse(saved, f"saved in format {version} by chartae 9.9.9.*upgrade chartae")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_dim": 3}, r"decoder.0.weight has shape \(8, 2\): expected \(8, 3\)"),
        ({"latent_dim": "two"}, "cannot be rebuilt.*latent_dim='two'"),
        ({"latent_dims": 2}, "cannot be rebuilt.*latent_dims"),
        ({"encoder": "mpl"}, "cannot be rebuilt.*did you mean 'mlp'"),
        ({"encoder": {"name": "mlp", "hidden": [8, 8]}}, "lacks the tensor"),
        ({"likelihood": "gausian"}, "cannot be rebuilt.*gausian"),
    ],
)
def test_arguments_that_do_not_fit(saved, arguments, message):
    given = json.loads((saved / CONFIG_FILE).read_text())["arguments"]
    rewrite(saved, arguments=given | arguments)
    refuse(saved, message)


def test_files_of_two_savings(saved, tmp_path):
    build("AE").save_pretrained(tmp_path / "other")
    (saved / CONFIG_FILE).write_bytes((tmp_path / "other" / CONFIG_FILE).read_bytes())
    refuse(saved, "model.safetensors does not belong to config.json")


def test_an_edited_configuration(saved):
    text = (saved / CONFIG_FILE).read_text()
    (saved / CONFIG_FILE).write_text(text.replace("bernoulli", "gaussian"))
    refuse(saved, "or a file was edited")


def test_dtypes_that_models_do_not_have(saved):
    with pytest.raises(ConfigurationError, match="dtype=torch.float16: expected"):
        chartae.load(saved, dtype=torch.float16)


# --- writings that fail -------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("again", ["VAE", "AE"])
def test_a_failure_in_the_weights_leaves_the_old_model(tmp_path, monkeypatch, error, again):
    model = build()
    model.save_pretrained(tmp_path)

    def fail(path, content):
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
            raise error

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises((CheckpointError, KeyboardInterrupt)) as caught:
        train(build(again)).save_pretrained(tmp_path)
    if isinstance(error, OSError):
        assert "could not be written: [Errno 28] No space" in str(caught.value)
    assert same_state(chartae.load(tmp_path), model)
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG_FILE, WEIGHTS_FILE}


@pytest.mark.parametrize("again", ["VAE", "AE"])
def test_a_failure_between_the_two_files_never_loads_wrongly(tmp_path, monkeypatch, again):
    build().save_pretrained(tmp_path)
    newer = train(build(again))

    def fail(path, text):
        raise KeyboardInterrupt

    monkeypatch.setattr(persistence, "write_text", fail)
    with pytest.raises(KeyboardInterrupt):
        newer.save_pretrained(tmp_path)
    if again == "VAE":  # the same configuration: the newer weights fit it
        assert same_state(chartae.load(tmp_path), newer)
    else:
        refuse(tmp_path, "saving was interrupted")
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG_FILE, WEIGHTS_FILE}


FULL_DISK = """
import resource, sys, torch, chartae
from chartae.errors import CheckpointError
folder = sys.argv[1]
torch.manual_seed(0)
x = torch.rand(20, 6)
chartae.AE((6,), 2).save_pretrained(folder)
names = ("config.json", "model.safetensors")
before = {name: open(f"{folder}/{name}", "rb").read() for name in names}
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for work in (
    lambda: chartae.VAE((6,), 2).save_pretrained(folder),
    lambda: chartae.fit(chartae.VAE((6,), 2), x, epochs=2, accelerator="cpu", output_dir=folder),
):
    try:
        work()
    except CheckpointError as error:
        print(error)
    else:
        raise SystemExit("it was written")
assert type(chartae.load(folder)).__name__ == "AE"
for name, content in before.items():
    assert open(f"{folder}/{name}", "rb").read() == content
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes")
def test_a_full_disk(tmp_path):
    """A limit on the size of files, which the operating system enforces as it does a full disk."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("could not be written") == 2
    left = {path.name for path in tmp_path.iterdir()}
    assert left - {"history.json"} == {CONFIG_FILE, WEIGHTS_FILE}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_that_cannot_be_written_to(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        build().save_pretrained(tmp_path)
    tmp_path.chmod(0o700)


# --- no pickle ----------------------------------------------------------------------------------


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('a pickle was run')",))


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_pickle_is_not_run(saved, name):
    (saved / name).write_bytes(pickle.dumps(Bomb()))
    refuse(saved, f"{name} cannot be read")


def test_a_torch_file_is_not_run(saved):
    torch.save({"weights": Bomb()}, saved / WEIGHTS_FILE)
    refuse(saved, "model.safetensors cannot be read")


def test_the_library_has_no_unpickling():
    for path in Path(chartae.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for word in ("import pickle", "cPickle", "dill", "joblib.load", "allow_pickle=True"):
            assert word not in text, (path, word)
        assert text.count("torch.load(") == text.count("weights_only=True"), path
        assert text.count("np.load(") == text.count("allow_pickle=False"), path


# --- states -------------------------------------------------------------------------------------


def test_states_come_back(tmp_path):
    shared = torch.arange(6.0)
    state = {
        "nested": {"list": [1, 2.5, None, True, "text", float("inf")], 3: {"tensor": shared[:3]}},
        "view": shared[::2],
        "empty": torch.zeros(0, 2, dtype=torch.float64),
        "integers": torch.tensor(5),
        "__tensor__": "a name of its own",
        "nothing": {},
        "number": 0.1 + 0.2,
    }
    write_state(tmp_path / "state.safetensors", state)
    read = read_state(tmp_path / "state.safetensors")
    assert list(read) == list(state)
    assert read["nested"]["list"] == state["nested"]["list"]
    assert torch.equal(read["nested"][3]["tensor"], shared[:3])
    assert torch.equal(read["view"], shared[::2])
    assert read["empty"].dtype == torch.float64
    assert read["empty"].shape == (0, 2)
    assert read["integers"].dtype == torch.int64
    assert read["__tensor__"] == "a name of its own"
    assert (read["nothing"], read["number"]) == ({}, 0.1 + 0.2)


def test_states_that_json_cannot_hold(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot hold this state: .*set"):
        write_state(tmp_path / "state", {"a": {1, 2}})
    assert list(tmp_path.iterdir()) == []


def test_states_of_the_future_and_others(tmp_path):
    path = tmp_path / "state"
    for metadata, message in (
        ({"format": "2", "state": "{}"}, "newer format: upgrade"),
        ({"format": "1"}, "not a checkpoint"),
        ({"format": "one", "state": "{}"}, "not a checkpoint"),
        ({"format": "1", "state": '{"__dict__": [["a", {"__tensor__": "7"}]]}'}, "damaged"),
        ({"format": "1", "state": "{"}, "damaged"),
    ):
        persistence._write_tensors(path, {}, metadata)
        with pytest.raises(CheckpointError, match=message):
            read_state(path)


def test_the_door_of_persistence_alone_needs_the_classes_imported(saved):
    assert isinstance(load(saved), Autoencoder)


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path):
    model = chartae.VAE((4,), 2)
    model.posterior_head.linear.bias.data[0] = torch.nan
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"posterior_head.*bias has NaN or infinite values"):
        chartae.load(tmp_path)
