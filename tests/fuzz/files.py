"""Damaged files: each is read as something whole and finite, or refused with one clear error.

Run by hand: python tests/fuzz/files.py --count 5000
"""

import atexit
import functools
import json
import resource
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from harness import main
from PIL import Image

import chartae
from chartae.augmentation import Augmenter
from chartae.data import disks_and_rings, read_data, write_npz

SMALL = {"name": "mlp", "hidden": [8]}
LIMIT_MB = 600
"""How much a small damaged file may add to the memory of this process."""


@functools.cache
def originals() -> Path:
    """A folder with one whole source of each kind, made once in each process."""
    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    data = disks_and_rings(12, seed=0)
    random = np.random.default_rng(0)
    model = chartae.RHVAE((28, 28), 2, encoder=SMALL, decoder=SMALL, metric_network=SMALL)
    chartae.fit(model, data, epochs=2, seed=0, output_dir=root / "training", progress=False)
    vae = chartae.VAE((28, 28), 2, encoder=SMALL, decoder=SMALL)
    chartae.fit(vae, data, epochs=1, seed=0, progress=False)
    (root / "sampler").mkdir()
    chartae.MixtureSampler(vae, num_components=2).fit(data.x).save_pretrained(root / "sampler")
    options = {"encoder": SMALL, "decoder": SMALL, "metric_network": SMALL}
    augmenter = Augmenter(model_options=options, fit_options={"epochs": 1})
    augmenter.fit(data.x.numpy(), np.array(data.class_names)[data.y.numpy()])
    augmenter.save(root / "augmenter")
    write_npz(root / "data.npz", data)
    np.savez(root / "plain.npz", x=data.x.numpy(), y=data.y.numpy())
    np.save(root / "data.npy", data.x.numpy())
    torch.save({"x": data.x, "y": data.y}, root / "data.pt")
    rows = [",".join(["a", "b", "c", "label"])]
    rows += [",".join([*(f"{v:.4f}" for v in random.random(3)), "pq"[k % 2]]) for k in range(20)]
    (root / "data.csv").write_text("\n".join(rows))
    for suffix in ("png", "jpg", "tiff"):
        for label in "ab":
            (root / suffix / label).mkdir(parents=True)
            for number in range(3):
                pixels = random.integers(0, 255, (12, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / suffix / label / f"{number}.{suffix}")
    return root


def read(source: Path) -> None:
    """Read a source as users do, and look at what has been read."""
    if source.name == "training":
        model = chartae.load(source)
        assert torch.isfinite(model.decode(torch.zeros(2, model.latent_dim))).all()
        again = chartae.RHVAE((28, 28), 2, encoder=SMALL, decoder=SMALL, metric_network=SMALL)
        data = disks_and_rings(12, seed=0)
        where = {"output_dir": source, "resume": True}
        chartae.fit(again, data, epochs=3, seed=0, progress=False, **where)
    elif source.name == "sampler":
        assert torch.isfinite(chartae.load(source).sample(2, seed=0)).all()
    elif source.name == "augmenter":
        x, y = Augmenter.load(source).sample(2)
        assert np.isfinite(x).all()
        assert len(x) == len(y)
    else:
        assert torch.isfinite(read_data(source).x).all()


def damage(random: np.random.Generator, file: Path) -> str:
    """Damage a file in one of the ways that disks, transfers and people have."""
    content = bytearray(file.read_bytes())
    size = len(content)
    at = int(random.integers(size))
    kind = ["cut", "flip", "bytes", "zeros", "twice", "insert", "empty", "edit"][random.integers(8)]
    if kind == "cut":
        content = content[:at]
    elif kind == "flip":
        content[at] ^= 1 << int(random.integers(8))
    elif kind == "bytes":
        for place in random.integers(size, size=int(random.integers(1, 30))):
            content[place] = int(random.integers(256))
    elif kind == "zeros":
        content[at : at + 200] = bytes(len(content[at : at + 200]))
    elif kind == "twice":
        content += content[at:]
    elif kind == "insert":
        content[at:at] = random.bytes(int(random.integers(1, 50)))
    elif kind == "empty":
        content = bytearray()
    elif file.suffix == ".json":
        content = bytearray(json.dumps(edited(random, json.loads(content))).encode())
    file.write_bytes(content)
    return kind


def edited(random: np.random.Generator, value: object) -> object:
    """JSON with one value in it replaced by another."""
    others = [None, -1, 0, 10**6, 1e300, "x", [], {}, [1, 2], {"name": "mlp"}, True]
    if isinstance(value, dict) and value and random.random() < 0.8:
        key = list(value)[random.integers(len(value))]
        return {**value, key: edited(random, value[key])}
    if isinstance(value, list) and value and random.random() < 0.8:
        at = int(random.integers(len(value)))
        return [*value[:at], edited(random, value[at]), *value[at + 1 :]]
    return others[random.integers(len(others))]


def case(number: int) -> str:
    random = np.random.default_rng(number)
    sources = sorted(originals().iterdir())
    source = sources[random.integers(len(sources))]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / source.name
        if source.is_dir():
            shutil.copytree(source, copy)
        else:
            shutil.copy(source, copy)
        files = sorted(p for p in copy.rglob("*") if p.is_file()) if copy.is_dir() else [copy]
        damage(random, files[random.integers(len(files))])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            read(copy)
        finally:
            added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            if added > LIMIT_MB:
                raise MemoryError(f"{added:.0f} MB for a damaged {source.name}")
    return "read"


if __name__ == "__main__":
    import files  # by its name, so that worker processes find what it has

    main(files.case, 5_000)
