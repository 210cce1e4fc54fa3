"""Damaged files whose fingerprints fit: one clear error, or something whole and finite."""

import functools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import chartae
from chartae import persistence
from chartae.data import ArrayDataset
from chartae.errors import CheckpointError, ConfigurationError
from chartae.persistence import CONFIG_FILE, WEIGHTS_FILE, read_state, write_state

SMALL = {"name": "mlp", "hidden": [8]}
NETWORKS = {"encoder": SMALL, "decoder": SMALL}
OPTIONS = {
    "VQVAE": {"grid": [2], "num_codes": 3},
    "HRQVAE": {"grid": [2], "num_codes": 3},
    "CVAE": {"conditions": 2},
    "RHVAE": {"metric_network": SMALL},
}
X = torch.rand(12, 3, 2, generator=torch.Generator().manual_seed(0))
HUGE = {
    "VAE": [
        {"latent_dim": 10**9},
        {"input_shape": [10**5, 10**4]},
        {"encoder": {"name": "mlp", "hidden": [10**5, 10**5]}},
        {"encoder": {"name": "mlp", "hidden": [8] * 20_000}},
        {"decoder": {"name": "mlp", "hidden": [10**20]}},
        {"conditions": 10**8},
        {"encoder": {"name": "conv_map"}, "input_shape": [10**4, 10**4]},
        {"encoder": {"name": "resnet", "blocks": 10**7}},
    ],
    "RHVAE": [{"latent_dim": 20_000}, {"metric_network": {"name": "mlp", "hidden": [10**8]}}],
    "VQVAE": [{"num_codes": 10**9}],
    "HRQVAE": [{"num_levels": 10**8}],
    "VAMP": [{"num_pseudo_inputs": 10**8}],
    "IAFVAE": [{"num_flows": 10**7}, {"hidden": [30_000, 30_000]}],
    "FlowSampler": [{"num_transforms": 10**7}, {"hidden": [30_000, 30_000]}],
    "TwoStageSampler": [{"hidden": [10**5, 10**5]}],
}


def build(name="VAE", **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name.endswith("Sampler"):
            return getattr(chartae, name)(build(), **{"hidden": [4], **options})
        options = {**NETWORKS, **OPTIONS.get(name, {}), **options}
        return getattr(chartae, name)((3, 2), 2, **options).eval()


def rewrite(folder, description=None, tensors=None):
    """Change a model's description or tensors, and make the two belong to one another again."""
    text = (folder / CONFIG_FILE).read_text() if description is None else json.dumps(description)
    if tensors is None:
        tensors = read_tensors(folder)
    (folder / CONFIG_FILE).write_text(text)
    metadata = {"config": persistence._fingerprint(text)}
    persistence._write_tensors(folder / WEIGHTS_FILE, tensors, metadata)


def read_tensors(folder):
    tensors, _ = persistence._read_tensors(folder / WEIGHTS_FILE)
    return {name: tensor.clone() for name, tensor in tensors.items()}


def with_arguments(folder, arguments):
    description = json.loads((folder / CONFIG_FILE).read_text())
    rewrite(folder, description | {"arguments": description["arguments"] | arguments})


def refuse(folder, message, **options):
    with pytest.raises(CheckpointError, match=message):
        chartae.load(folder, **options)


@pytest.fixture
def saved(tmp_path):
    build().save_pretrained(tmp_path)
    return tmp_path


# --- configurations -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments"), [(name, given) for name, all in HUGE.items() for given in all]
)
def test_what_asks_for_more_than_its_file_holds_is_refused_at_once(name, arguments, tmp_path):
    build(name).save_pretrained(tmp_path)
    with_arguments(tmp_path, arguments)
    started = time.process_time()
    refuse(tmp_path, "cannot be rebuilt from its configuration: ")
    assert time.process_time() - started < 2.0


MEMORY = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_damaged import HUGE, build, refuse, with_arguments
folder = Path(sys.argv[1])
def largest():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
for name in HUGE:
    build(name).save_pretrained(folder)
    with_arguments(folder, {"latent_dim": -1} if "Sampler" not in name else {"hidden": [-1]})
    refuse(folder, "cannot be rebuilt")
before = largest()
for name, damages in HUGE.items():
    for arguments in damages:
        build(name).save_pretrained(folder)
        with_arguments(folder, arguments)
        refuse(folder, "cannot be rebuilt")
print(largest() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the peak of memory")
def test_small_folders_take_little_memory(tmp_path):
    """In a process of its own, whose peak is not that of the tests before."""
    command = [sys.executable, "-c", MEMORY, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 300.0


def test_a_large_input_of_few_weights_loads(tmp_path):
    """Its encoder is tried on the shape alone: activations are larger than the file."""
    network = {"name": "conv_map", "channels": [4], "features": 1, "blocks": 0}
    model = chartae.VQVAE(
        (2048, 2048), 1024**2, grid=(1024, 1024), num_codes=2, encoder=network, decoder=network
    )
    model.save_pretrained(tmp_path)
    assert chartae.load(tmp_path).input_shape == (2048, 2048)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": []}, r"class \[\] is unknown"),
        ({"class": "CheckpointError"}, "is unknown"),
        ({"arguments": {"encoder": {"__object__": None}}}, "cannot be rebuilt"),
        ({"arguments": {"encoder": {"__object__": {"class": "VAE"}}}}, "cannot be rebuilt"),
        ({"arguments": {"encoder": {"__module__": None}}}, "was a user-defined module"),
        ({"arguments": {"likelihood": {"name": []}}}, "cannot be rebuilt"),
        ({"arguments": {"input_shape": [3, [2]], "latent_dim": 2}}, "input_shape"),
    ],
)
def test_descriptions_of_another_form(saved, change, message):
    rewrite(saved, json.loads((saved / CONFIG_FILE).read_text()) | change)
    refuse(saved, message)


@pytest.mark.parametrize("opening", ["[", '{"a": '])
def test_json_of_any_depth(saved, opening):
    (saved / CONFIG_FILE).write_text(opening * 100_000)
    refuse(saved, "config.json cannot be read")


def test_parts_in_parts_in_parts(saved):
    description = json.loads((saved / CONFIG_FILE).read_text())
    for _ in range(150):
        outer = {"class": "NormalSampler", "format": 1}
        description = outer | {"arguments": {"model": {"__object__": description}}}
    rewrite(saved, description)
    refuse(saved, "cannot be rebuilt from its configuration: model is NormalSampler")


def test_a_long_error_is_cut(saved):
    with_arguments(saved, {"latent_dim": list(range(50_000))})
    with pytest.raises(CheckpointError, match="cannot be rebuilt") as caught:
        chartae.load(saved)
    assert len(str(caught.value)) < 1200


def test_the_frames_of_torch_are_not_in_an_error(saved):
    with_arguments(saved, {"decoder": {"name": "mlp", "hidden": [10**20]}})
    with pytest.raises(CheckpointError, match="hidden") as caught:
        chartae.load(saved)
    assert "frame #" not in str(caught.value)


@functools.cache
def whole(name):
    """The text and the tensors of a model or sampler as saved."""
    with tempfile.TemporaryDirectory() as folder:
        build(name).save_pretrained(folder)
        return (Path(folder) / CONFIG_FILE).read_text(), read_tensors(Path(folder))


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 10**12), st.floats(), st.text(max_size=5)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "hidden", "__object__", "class", "x"]), inner)
    ),
    max_leaves=6,
)


def places(value, path=()):
    """Return where the values in nested dictionaries and lists are."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        if isinstance(item, (dict, list)):
            yield from places(item, (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_value_anywhere_in_a_configuration(data):
    """It is refused, or what is loaded is whole: every tensor of the file, as it is there."""
    names = ["VAE", "RHVAE", "HRQVAE", "IAFVAE", "FlowSampler", "PoincareVAE", "CVAE"]
    text, tensors = whole(data.draw(st.sampled_from(names)))
    description = json.loads(text)
    path = data.draw(st.sampled_from(list(places(description))))
    with tempfile.TemporaryDirectory() as folder:
        rewrite(Path(folder), replaced(description, path, data.draw(VALUES)), tensors)
        try:
            loaded = chartae.load(folder)
        except CheckpointError:
            return
    state = loaded.state_dict()
    assert state.keys() == tensors.keys()
    assert all(torch.equal(state[k].nan_to_num(), t.nan_to_num()) for k, t in tensors.items())


# --- weights ------------------------------------------------------------------------------------

WEIGHT = "decoder.0.weight"


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2],
)
def test_precisions_that_models_do_not_have_are_refused_by_name(saved, dtype):
    tensors = {name: tensor.to(dtype) for name, tensor in read_tensors(saved).items()}
    rewrite(saved, tensors=tensors)
    refuse(saved, f"is {dtype}: expected torch.float32")


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.complex64])
def test_other_kinds_of_numbers_are_no_weights(saved, dtype):
    tensors = read_tensors(saved)
    rewrite(saved, tensors=tensors | {WEIGHT: tensors[WEIGHT].to(dtype)})
    refuse(saved, f"{WEIGHT} is {dtype}: expected torch.float32")


def test_weights_are_no_counts(tmp_path):
    build("BetaTCVAE").save_pretrained(tmp_path)
    rewrite(tmp_path, tensors=read_tensors(tmp_path) | {"training_size": torch.tensor(3.0)})
    refuse(tmp_path, "training_size is torch.float32: expected torch.int64")


def test_two_precisions_in_one_file_are_refused(saved):
    tensors = read_tensors(saved)
    rewrite(saved, tensors=tensors | {WEIGHT: tensors[WEIGHT].double()})
    refuse(saved, f"{WEIGHT} is torch.float64.*: expected one precision")


def test_a_model_of_half_precision_is_not_saved(tmp_path):
    with pytest.raises(ConfigurationError, match=r"is torch.float16: expected torch.float32"):
        build().half().save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_no_numbers_are_refused(saved, value):
    tensors = read_tensors(saved)
    tensors[WEIGHT][1, 1] = value
    rewrite(saved, tensors=tensors)
    refuse(saved, f"{WEIGHT} has NaN or infinite values: expected finite numbers")


def test_weights_that_overflow_the_precision_asked_for_are_refused(tmp_path):
    model = build().double()
    with torch.no_grad():
        model.decoder[0].weight[0, 0] = 1e300
    model.save_pretrained(tmp_path)
    assert chartae.load(tmp_path).dtype == torch.float64
    refuse(tmp_path, f"{WEIGHT} has NaN or infinite values", dtype=torch.float32)


def test_what_is_infinite_from_the_start_may_stay_so(tmp_path):
    """A causal mask of a network of yours, say, or what an RHVAE knows only once trained."""

    class Masked(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Flatten(), nn.Linear(6, 4))
            self.register_buffer("causal", torch.full((3, 3), -torch.inf).triu(1))

        def forward(self, x):
            return self[1](self[0](x))

    build("RHVAE").save_pretrained(tmp_path / "untrained")
    assert chartae.load(tmp_path / "untrained").fitted_temperature.isnan()
    model = build(encoder=Masked())
    model.save_pretrained(tmp_path / "masked")
    loaded = chartae.load(tmp_path / "masked", encoder=Masked())
    assert torch.equal(loaded.encoder.causal, model.encoder.causal)
    model.encoder.causal[2, 0] = -torch.inf
    model.save_pretrained(tmp_path / "masked")
    refuse(tmp_path / "masked", "encoder.causal has NaN or infinite", encoder=Masked())


# --- what was fitted ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": torch.zeros(2, 3)}, r"means has shape \(2, 3\): expected \(n, 2\)"),
        ({"weights": torch.ones(2, 1)}, r"weights has shape \(2, 1\): expected \(n\)"),
        ({"means": torch.full((2, 2), torch.nan)}, "means has NaN or infinite values"),
        ({"means": torch.zeros(0, 2)}, "means is empty: expected all fitted buffers"),
        ({"means": torch.zeros(3, 2)}, r"are of \(2, 3, 2\) components: expected equal numbers"),
        ({"weights": torch.tensor([1.5, -0.5])}, "weights has negative values"),
        ({"weights": torch.zeros(2)}, "weights has .*zeros only"),
    ],
)
def test_a_mixture_that_nobody_fitted_is_refused(tmp_path, change, message):
    chartae.MixtureSampler(build(), num_components=2).fit(X).save_pretrained(tmp_path)
    rewrite(tmp_path, tensors=read_tensors(tmp_path) | change)
    refuse(tmp_path, message)


def test_a_metric_that_nobody_fitted_is_refused_in_a_model_and_inside_a_sampler(tmp_path):
    model = build("RHVAE")
    chartae.fit(model, X, epochs=1, seed=0, accelerator="cpu", progress=False)
    sampler = chartae.VolumeSampler(model)
    changes = {
        "temperature=nan": {"fitted_temperature": torch.tensor(torch.nan)},
        "temperature=-1.0": {"fitted_temperature": torch.tensor(-1.0)},
        "matrices has shape": {"matrices": model.matrices[:5]},
        r"centroids has shape \(12, 3\): expected \(n, 2\)": {"centroids": torch.zeros(12, 3)},
        "centroids is empty": {"centroids": torch.zeros(0, 2)},
    }
    for module, prefix in ((model, ""), (sampler, "model.")):
        module.save_pretrained(tmp_path)
        tensors = read_tensors(tmp_path)
        for message, change in changes.items():
            change = {prefix + name: tensor for name, tensor in change.items()}
            rewrite(tmp_path, tensors=tensors | change)
            refuse(tmp_path, message)


def test_spectral_norms_of_zero_are_refused(tmp_path):
    build("RAE", regularization="sn").save_pretrained(tmp_path)
    tensors = read_tensors(tmp_path)
    name = "decoder.0.parametrizations.weight.0._u"
    rewrite(tmp_path, tensors=tensors | {name: torch.zeros(8)})
    refuse(tmp_path, "decoder has spectral norms of 0")


def test_posteriors_that_nobody_fitted_are_refused(tmp_path):
    chartae.VolumeSampler(build(), num_steps=2).fit(X).save_pretrained(tmp_path)
    tensors = read_tensors(tmp_path)
    rewrite(tmp_path, tensors=tensors | {"variances": -tensors["variances"]})
    refuse(tmp_path, "variances")


# --- checkpoints --------------------------------------------------------------------------------


def train(folder, model=None, **options):
    options = {"epochs": 2, "batch_size": 6, "scheduler": "plateau", **options}
    fixed = {"seed": 0, "accelerator": "cpu", "progress": False}
    chartae.fit(model or build(), ArrayDataset(X), output_dir=folder, **fixed, **options)


@functools.cache
def checkpoint():
    with tempfile.TemporaryDirectory() as folder:
        train(folder)
        return read_state(Path(folder) / "checkpoint.safetensors")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("plan",), 3, "it has no plan with a seed"),
        (("plan", "batch_size"), torch.ones(2), "made with other arguments"),
        (("model",), {}, "model holds : expected"),
        (("good", "newer"), [], r"newer is \[\]: expected a list of"),
        (("good", "epochs"), [1, 2, 3], "damaged: too many values"),
        (("history", "train"), {"loss": ["x", "y"]}, "train.* expected a list of numbers"),
        (("history", "seconds"), [1.0], "different lengths"),
        (("position", "epoch"), "x", "epoch='x': expected an integer"),
        (("position", "step"), 3, "step=3: expected an integer at least 0 and at most 2"),
        (("position", "step"), 1, r"the terms are not those of 1 step\(s\)"),
        (("position", "bad_epochs"), -1, "bad_epochs=-1"),
        (("names",), ["x", "y", "z"], "history.0 is 'loss'"),
        (("optimizers",), {"x": 1}, "optimizers holds x: expected model"),
        (("optimizers", "model", "param_groups", 0, "lr"), "x", "lr='x': expected a finite"),
        (("optimizers", "model", "param_groups", 0, "betas"), [0.1, 0.2], "betas.0 is 0.1"),
        (("optimizers", "model", "state", 0), {}, "state.0 holds : expected step"),
        (("schedulers", 0, "factor"), None, "schedulers.0.factor is None: expected 0.5"),
        (("rng", "cpu"), torch.zeros(3), "cpu has shape"),
    ],
)
def test_damaged_checkpoints_are_refused_and_change_nothing(tmp_path, path, value, message):
    write_state(tmp_path / "checkpoint.safetensors", replaced(checkpoint(), path, value))
    model = build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        train(tmp_path, model, epochs=3, resume=True)
    assert all(torch.equal(model.state_dict()[name], t) for name, t in before.items())


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "adamax", "rmsprop"])
def test_the_state_of_an_optimizer_has_the_shapes_of_its_parameters(tmp_path, optimizer):
    """Fused kernels would read and write beside tensors that are too small."""
    train(tmp_path, optimizer=optimizer)
    path = tmp_path / "checkpoint.safetensors"
    state = read_state(path)
    for values in state["optimizers"]["model"]["state"].values():
        values |= {name: tensor[:1] for name, tensor in values.items() if tensor.dim()}
    write_state(path, state)
    with pytest.raises(CheckpointError, match="has shape"):
        train(tmp_path, optimizer=optimizer, epochs=3, resume=True)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "adamax", "rmsprop", "sgd"])
def test_the_state_of_every_optimizer_is_accepted(tmp_path, optimizer):
    train(tmp_path, optimizer=optimizer)
    train(tmp_path, optimizer=optimizer, epochs=3, resume=True)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": "1" * 5000, "state": "{}"}, "is damaged"),
        ({"format": "1", "state": "[" * 100_000}, "is damaged"),
        ({"format": "1", "state": "[]"}, "it holds list, not a state"),
        ({"format": "1", "state": "3"}, "it holds int, not a state"),
        ({"format": "1", "state": '{"__dict__": [[[], 1]]}'}, "is damaged: TypeError"),
        ({"format": "1", "state": '{"__tensor__": []}'}, "is damaged: TypeError"),
        ({"format": "1", "state": '{"a": 1}'}, "is damaged: KeyError"),
    ],
)
def test_states_of_another_form(tmp_path, metadata, message):
    persistence._write_tensors(tmp_path / "state", {}, metadata)
    with pytest.raises(CheckpointError, match=message):
        read_state(tmp_path / "state")
