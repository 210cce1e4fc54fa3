"""Damaged models, samplers, checkpoints and records, whose fingerprints are made to fit.

Each is refused with one clear error, or loads as something whole and finite, of every class of the
library, within a few hundred MB and seconds.

Run by hand: python tests/fuzz/loading.py --count 5000
"""

import atexit
import contextlib
import functools
import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import FIGURES, main
from safetensors import safe_open
from safetensors.torch import save

import chartae
from chartae.data import ArrayDataset
from chartae.errors import ChartaeError, CheckpointError, DataError
from chartae.training import History

sys.path.append(str(Path(__file__).parents[1]))
from test_persistence import LABELS, MODELS, NETWORKS, SAMPLED, SAMPLERS, X, build, train

LIMIT_MB = 300
LIMIT_SECONDS = 2.0
TRAININGS: dict[str, dict[str, Any]] = {
    "VAE": {"scheduler": "plateau"},
    "FactorVAE": {"optimizer": "adamw"},
    "RHVAE": {"optimizer": "sgd", "scheduler": "cosine"},
}
KINDS = ("configuration", "weights", "checkpoint", "record")
NUMBERS = [None, True, -1, 0, 1, 3, 7, 1000, 10**5, 10**9, 10**20, 10**400, 0.5, -2.5, 1e300]
OTHERS = ["x", "", "gaussian", "mlp", [], {}, [1, 2], [10**5, 10**5], [0.5], [[1]], [-1], [None]]
MAPPINGS = [{"name": "mlp"}, {"name": "conv"}, {"name": "conv_map"}, {"name": None}, {"x": {}}]
STRANGE = [
    *({"__object__": value} for value in (None, [], {}, {"class": "VAE"}, {"class": []})),
    *({"__module__": value} for value in ("Linear", None)),
    *({"__tensor__": value} for value in ("0", "no", [])),
    *({"__dict__": value} for value in ([], [1], [[1, 2, 3]], [[[], 1]])),
]
DTYPES = [
    *(torch.float16, torch.bfloat16, torch.float64, torch.float32, torch.float8_e4m3fn),
    *(torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64),
]


# --- what is damaged ----------------------------------------------------------------------------


@functools.cache
def originals() -> Path:
    """A folder with whole ones, made once in each process."""
    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    for name in MODELS:
        train(build(name)).save_pretrained(root / name)
    for name, options in SAMPLERS.items():
        kind, latent_dim, others = SAMPLED.get(name, ("RHVAE", 2, MODELS["RHVAE"]))
        model = train(getattr(chartae, kind)((3, 2), latent_dim, **NETWORKS, **others))
        getattr(chartae, name)(model, **options).fit(X).save_pretrained(root / name)
    normal = train(build("VAE", likelihood="gaussian"))
    chartae.VolumeSampler(normal, num_steps=3, num_warmup=2).fit(X).save_pretrained(root / "Volume")
    for name in TRAININGS:
        with contextlib.suppress(InterruptedError):
            fit(name, root / f"training {name}", until=5)
    return root


def fit(name: str, folder: Path, until: int | None = None, *, resume: bool = False) -> History:
    """Train three steps an epoch, two epochs; stop before the given step as a killed process."""
    model, steps = build(name), 0
    loss = model.loss

    def cut_short(*args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == until:
            raise InterruptedError
        return loss(*args, **kwargs)

    if until:
        model.loss = cut_short
        model.batch_keys = lambda: {"x"}
    return chartae.fit(
        model,
        ArrayDataset(X, None if model.conditions is None else LABELS),
        epochs=2,
        batch_size=4,
        seed=0,
        accelerator="cpu",
        progress=False,
        output_dir=folder,
        resume=resume,
        checkpoint_interval=0.0,
        **TRAININGS[name],
    )


# --- damage -------------------------------------------------------------------------------------


def pick(random: np.random.Generator, values: Any) -> Any:
    return values[random.integers(len(values))]


def other(random: np.random.Generator) -> Any:
    """A value that nobody has saved, or somebody of another class."""
    nested: Any = []
    for _ in range(int(pick(random, [10, 200, 5000]))):
        nested = [nested] if random.random() < 0.5 else {"a": nested}
    rare = [nested, [2] * 10_000, "x" * 10_000, float("nan"), float("inf")]
    return pick(random, pick(random, [NUMBERS, NUMBERS, OTHERS, MAPPINGS, STRANGE, rare]))


def edited(random: np.random.Generator, value: Any) -> Any:
    """JSON with one value in it replaced, removed or added."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        key = pick(random, list(value))
        kind = random.random()
        if kind < 0.05:
            return {k: v for k, v in value.items() if k != key}
        if kind < 0.1:
            return {**value, pick(random, ["x", "epochs", "latent_dim", "1"]): other(random)}
        return {**value, key: edited(random, value[key])}
    if isinstance(value, list) and value and random.random() < 0.85:
        at, kind = int(random.integers(len(value))), random.random()
        if kind < 0.1:
            return value[:at] + value[at + 1 :]
        if kind < 0.2:
            return [*value, other(random)]
        return [*value[:at], edited(random, value[at]), *value[at + 1 :]]
    if isinstance(value, str) and value in MODELS | SAMPLERS and random.random() < 0.7:
        return pick(random, list(MODELS | SAMPLERS))
    return other(random)


def dumped(value: Any) -> str:
    """JSON of any depth."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    try:
        return json.dumps(value)
    finally:
        sys.setrecursionlimit(limit)


def damaged(random: np.random.Generator, tensors: dict[str, torch.Tensor]) -> None:
    """Damage one tensor, or all of them, in place."""
    name = pick(random, sorted(tensors))
    tensor = tensors[name]
    kind = random.integers(9)
    if kind == 0:
        dtype = pick(random, DTYPES)
        for each in [name] if random.random() < 0.5 else list(tensors):
            tensors[each] = tensors[each].to(dtype)
    elif kind == 1 and tensor.numel():
        flat = tensor.clone().flatten()
        if flat.is_floating_point():
            flat[random.integers(flat.numel())] = pick(random, [np.nan, np.inf, -np.inf])
        tensors[name] = flat.reshape(tensor.shape)
    elif kind == 2:
        tensors[name] = tensor[None] if random.random() < 0.5 else tensor.flatten()
    elif kind == 3:
        del tensors[name]
    elif kind == 4:
        tensors[pick(random, [f"{name}x", "x", ""])] = tensor.clone()
    elif kind == 5 and tensor.dim():
        axis = int(random.integers(tensor.dim()))
        tensors[name] = tensor.narrow(axis, 0, tensor.shape[axis] // 2)
    elif kind == 6 and tensor.dim():
        axis = int(random.integers(tensor.dim()))
        tensors[name] = torch.cat([tensor, tensor], axis)
    elif kind == 7 and tensor.is_floating_point():
        tensors[name] = pick(random, [-tensor, tensor * 0, tensor * 1000, tensor + 1])
    elif tensor.numel():
        content = bytearray(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        content[random.integers(len(content))] ^= 1 << int(random.integers(8))
        flipped = torch.frombuffer(content, dtype=torch.uint8).view(tensor.dtype)
        tensors[name] = flipped.reshape(tensor.shape)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        names = file.keys()
        return {name: file.get_tensor(name).clone() for name in names}, file.metadata()


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    whole = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    path.write_bytes(save(whole, metadata))


# --- cases --------------------------------------------------------------------------------------


def memory() -> float:
    """The largest memory of this process since the peak was last forgotten, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@contextlib.contextmanager
def measured(kind: str) -> Iterator[None]:
    Path("/proc/self/clear_refs").write_text("5")
    before, started = memory(), time.process_time()
    try:
        yield
    finally:
        FIGURES[f"{kind}, s"] = seconds = time.process_time() - started
        FIGURES[f"{kind}, MB"] = added = memory() - before
        if added > LIMIT_MB or seconds > LIMIT_SECONDS:
            raise MemoryError(f"{added:.0f} MB, {seconds:.1f} s")


def case(number: int) -> str:
    random = np.random.default_rng(number)
    originals()
    kind = KINDS[min(len(KINDS) - 1, int(random.choice(4, p=[0.45, 0.3, 0.2, 0.05])))]
    with tempfile.TemporaryDirectory() as folder:
        found = module if kind in KINDS[:2] else training
        return f"{kind} {found(random, kind, Path(folder))}"


def module(random: np.random.Generator, kind: str, folder: Path) -> str:
    """Damage and load a model or a sampler."""
    sources = sorted(p for p in originals().iterdir() if not p.name.startswith("training"))
    source = pick(random, sources)
    description = json.loads((source / "config.json").read_text())
    tensors, _ = read_tensors(source / "model.safetensors")
    for _ in range(int(pick(random, [1, 1, 2]))):
        if kind == "configuration":
            description = edited(random, description)
        elif tensors:
            damaged(random, tensors)
    text = dumped(description)
    (folder / "config.json").write_text(text)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()
    write_tensors(folder / "model.safetensors", tensors, {"config": fingerprint})
    try:
        with measured(kind):
            loaded = chartae.load(folder)
    except CheckpointError:
        return "refused"
    return use(loaded, description)


def use(loaded: Any, description: Any) -> str:
    """Look at what was loaded, and use it as far as its settings let it end."""
    state = loaded.state_dict()
    floats = [t for t in state.values() if t.is_floating_point() and t.numel()]
    assert {t.dtype for t in floats} <= {loaded.dtype}
    model = getattr(loaded, "model", loaded)
    y = {} if model.conditions is None else {"y": torch.zeros(2, dtype=torch.int64)}
    if isinstance(model.conditions, tuple):
        y = {"y": torch.zeros(2, *model.conditions, dtype=model.dtype)}
    if any(isinstance(n, int) and n > 1000 for n in numbers(description)):
        return "loaded, of large settings"
    try:
        if model is loaded:
            out = model.reconstruct(torch.zeros(2, *model.input_shape, dtype=model.dtype), **y)
        else:
            out = loaded.sample(2, seed=0, **y)
    except ChartaeError as error:
        return f"loaded, then {type(error).__name__}: {str(error)[:90]}"
    moderate = all(float(t.abs().max()) < 1e6 for t in floats if t.isfinite().all())
    assert torch.isfinite(out).all() or not moderate
    return "loaded"


def numbers(value: Any) -> Iterator[Any]:
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, (dict, list)):
            yield from numbers(item)
        else:
            yield item


def training(random: np.random.Generator, kind: str, folder: Path) -> str:
    """Damage the checkpoint or the record of a training, and continue it or read it."""
    name = pick(random, sorted(TRAININGS))
    folder = folder / name
    shutil.copytree(originals() / f"training {name}", folder)
    if kind == "record":
        path = folder / "history.json"
        path.write_text(dumped(edited(random, json.loads(path.read_text()))))
        try:
            with measured(kind):
                history = History.load(path)
        except DataError:
            return "refused"
        history.plot()
        return f"loaded, of {history.num_epochs} epoch(s)"
    path = next(folder.glob("checkpoint*"))
    tensors, metadata = read_tensors(path)
    if random.random() < 0.7:
        metadata["state"] = dumped(edited(random, json.loads(metadata["state"])))
    else:
        damaged(random, tensors)
    write_tensors(path, tensors, metadata)
    try:
        with measured(kind):
            fit(name, folder, resume=True)
    except ChartaeError as error:
        return f"refused: {type(error).__name__}"
    return "continued"


if __name__ == "__main__":
    import loading  # by its name, so that worker processes find what it has

    main(loading.case, 5_000)
