"""Random small trainings: each ends in a usable model with finite numbers, or in one clear error.

Run by hand: python tests/fuzz/fits.py --count 10000
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from harness import main
from torch.utils.data import TensorDataset

import chartae
from chartae.augmentation import MODELS
from chartae.data import ArrayDataset
from chartae.distributions import LIKELIHOODS
from chartae.samplers import compatible_samplers
from chartae.samplers.learned import LearnedSampler

SHAPES = [(1,), (3,), (20,), (8, 8), (5, 7), (1, 8, 8), (3, 6, 6), (2, 4, 4, 4)]
SMALL = {"name": "mlp", "hidden": [16]}


def pick(random, options):
    options = list(options)
    return options[int(random.integers(len(options)))]


def likelihood_and_data(random, shape, n):
    """A likelihood, and data that it can explain."""
    name = pick(random, LIKELIHOODS)
    size = (n, *shape)
    unit = random.random(size)
    if name == "categorical":
        return name, np.eye(shape[-1])[random.integers(shape[-1], size=size[:-1])]
    if name == "negative_binomial":
        return name, random.poisson(10.0 ** random.uniform(-1, 5), size).astype(float)
    if name == "mixed":
        width = shape[-1]
        columns = [["gaussian", 1], ["negative_binomial", 1], ["bernoulli", width - 2]]
        if len(shape) > 1 or width < 3:
            return "bernoulli", (unit > 0.5).astype(float)
        x = np.concatenate([unit[:, :1], random.poisson(3.0, (n, 1)), unit[:, 2:] > 0.5], axis=1)
        return {"name": "mixed", "columns": columns}, x
    if name in ("gaussian", "laplace") and random.random() < 0.5:
        scale = pick(random, [0.1, "learned", "per_feature"])
        magnitude = 10.0 ** random.uniform(-6, 8)
        return {"name": name, "scale": scale}, magnitude * random.standard_normal(size)
    return name, unit


def spoiled(random, x):
    """Data as they should not be."""
    kind = random.integers(6)
    if kind == 0:
        x = x.copy()
        x.flat[int(random.integers(x.size))] = pick(random, [np.nan, np.inf, -np.inf])
        return x
    if kind == 1:
        return x * 10.0 ** random.uniform(5, 30)
    if kind == 2:
        return np.zeros_like(x) + pick(random, [0.0, 1.0, -1.0, 0.5])
    if kind == 3:
        return x[:, :1]
    if kind == 4:
        return x[:0]
    return x.astype(pick(random, [np.int64, np.uint8, np.bool_, np.float16, np.complex64, object]))


def contained(random, x, y, mask):
    """The data in one of the forms that people have."""
    kind = random.integers(6)
    if kind == 0 and y is None:
        return np.ma.masked_array(x, ~mask) if mask is not None else x
    if kind == 1 and y is None and mask is None and x.dtype.kind == "f":
        return torch.from_numpy(x)
    if kind == 2 and mask is None and x.dtype.kind == "f":
        tensors = [torch.from_numpy(x)]
        return TensorDataset(*tensors, *([] if y is None else [torch.as_tensor(y)]))
    if kind == 3 and y is None and mask is None:
        return list(x)
    return ArrayDataset.from_arrays(x, y, mask)


def case(number: int) -> str:
    random = np.random.default_rng(number)
    torch.manual_seed(number)
    name, shape = pick(random, MODELS), pick(random, SHAPES)
    n = int(random.integers(1, 30))
    likelihood, x = likelihood_and_data(random, shape, n)
    if random.random() < 0.15:
        x = spoiled(random, x)
    if x.dtype == np.float64 and random.random() < 0.8:
        x = x.astype(np.float32)
    options = {"latent_dim": int(random.integers(1, 5)), "likelihood": likelihood}
    if random.random() < 0.5:
        options |= {"encoder": SMALL, "decoder": SMALL}
    if MODELS[name].latent_space == "codes":
        options |= {"latent_dim": 8, "num_codes": 8}
    y = mask = None
    if random.random() < 0.25 or name == "cvae":
        options["conditions"] = pick(random, [3, (2,)])
        y = random.integers(3, size=len(x))
        if options["conditions"] == (2,):
            y = random.standard_normal((len(x), 2))
    if random.random() < 0.2:
        mask = random.random(x.shape) < 0.7
    data = contained(random, x, y, mask)
    model = MODELS[name](shape, **options)
    if random.random() < 0.2:
        model = model.double()
        data = data.to(dtype=torch.float64) if isinstance(data, ArrayDataset) else data
    history = chartae.fit(
        model,
        data,
        epochs=int(random.integers(1, 4)),
        batch_size=int(random.integers(1, 40)),
        learning_rate=10.0 ** random.uniform(-5, -1),
        seed=number,
        progress=False,
    )
    check(random, model, history, data, number)
    return "trained"


def check(random, model, history, data, number):
    """Whatever has been trained can be used, and holds no NaN."""
    assert all(np.isfinite(v) for v in history.train["loss"])
    for key, tensor in model.state_dict().items():
        assert torch.isfinite(tensor).all(), f"{key} is not finite"
    if isinstance(data, ArrayDataset):
        x, y = data.x, data.y
        if model.conditions is None:
            y = None
        again = model.reconstruct(x, y)
        assert again.shape == x.shape
        assert torch.isfinite(again).all(), "reconstruction"
        if samplers := compatible_samplers(model):
            sampler = pick(random, samplers)
            fast = {"epochs": 1} if issubclass(sampler, LearnedSampler) else {}
            drawn = (
                sampler(model, **fast).fit(x, y).sample(3, seed=0, y=None if y is None else y[0])
            )
            assert torch.isfinite(drawn).all(), f"samples of {sampler.__name__}"
    if random.random() < 0.1:
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(Path(folder))
            loaded = chartae.load(folder)
        for key, tensor in model.state_dict().items():
            assert torch.equal(tensor, loaded.state_dict()[key]), key


if __name__ == "__main__":
    main(case, 10_000)
